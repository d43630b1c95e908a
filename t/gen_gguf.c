/* SPDX-License-Identifier: MIT */
/* GGUF files for tests, made from nothing but a seed. */
#include "gen_gguf.h"
#include "os.h"
#include "quant.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *need(void *p)
{
    if (!p)
        bail("no memory for a generated file");
    return p;
}

uint64_t gen_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* ---- parts ---- */

void gen_put(struct gen_bytes *b, const void *p, size_t n)
{
    if (b->n + n > b->room) {
        b->room = 2 * (b->n + n);
        b->p = need(realloc(b->p, b->room));
    }
    if (n > 0)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

void gen_u32(struct gen_bytes *b, uint32_t v)
{
    const unsigned char bytes[] = {(unsigned char)v, (unsigned char)(v >> 8),
                                   (unsigned char)(v >> 16), (unsigned char)(v >> 24)};
    gen_put(b, bytes, sizeof bytes);
}

void gen_u64(struct gen_bytes *b, uint64_t v)
{
    gen_u32(b, (uint32_t)v);
    gen_u32(b, (uint32_t)(v >> 32));
}

void gen_str(struct gen_bytes *b, const char *s)
{
    gen_u64(b, strlen(s));
    gen_put(b, s, strlen(s));
}

static void pad(struct gen_bytes *b, uint64_t align)
{
    while (align > 0 && b->n % align != 0)
        gen_put(b, "", 1);
}

void gen_init(struct gen_file *f)
{
    *f = (struct gen_file){.version = 3, .align = 32};
}

void gen_key(struct gen_file *f, const char *name, uint32_t type)
{
    gen_str(&f->keys, name);
    gen_u32(&f->keys, type);
    f->key_count++;
}

void gen_key_u32(struct gen_file *f, const char *name, uint32_t v)
{
    gen_key(f, name, GEN_U32);
    gen_u32(&f->keys, v);
}

void gen_key_f32(struct gen_file *f, const char *name, float v)
{
    gen_key(f, name, GEN_F32);
    gen_put(&f->keys, &v, 4);
}

void gen_key_str(struct gen_file *f, const char *name, const char *v)
{
    gen_key(f, name, GEN_STR);
    gen_str(&f->keys, v);
}

static void key_array(struct gen_file *f, const char *name, uint32_t type, uint64_t n)
{
    gen_key(f, name, GEN_ARRAY);
    gen_u32(&f->keys, type);
    gen_u64(&f->keys, n);
}

void gen_key_strs(struct gen_file *f, const char *name, const char *const *v, uint64_t n)
{
    key_array(f, name, GEN_STR, n);
    for (uint64_t i = 0; i < n; i++)
        gen_str(&f->keys, v[i]);
}

void gen_key_i32s(struct gen_file *f, const char *name, const int32_t *v, uint64_t n)
{
    key_array(f, name, GEN_I32, n);
    for (uint64_t i = 0; i < n; i++)
        gen_u32(&f->keys, (uint32_t)v[i]);
}

void gen_describe(struct gen_file *f, const char *name, int rank, const uint64_t *dim,
                  uint32_t type, uint64_t offset)
{
    gen_str(&f->tensors, name);
    gen_u32(&f->tensors, (uint32_t)rank);
    for (int d = rank - 1; d >= 0; d--)
        gen_u64(&f->tensors, dim[d]);
    gen_u32(&f->tensors, type);
    gen_u64(&f->tensors, offset);
    f->tensor_count++;
}

void gen_tensor(struct gen_file *f, const char *name, int rank, const uint64_t *dim, uint32_t type,
                const void *data, size_t bytes)
{
    pad(&f->data, f->align);
    gen_describe(f, name, rank, dim, type, f->data.n);
    gen_put(&f->data, data, bytes);
}

unsigned char *gen_finish(struct gen_file *f, size_t *size)
{
    struct gen_bytes all = {0};
    gen_put(&all, "GGUF", 4);
    gen_u32(&all, f->version);
    gen_u64(&all, f->tensor_count);
    gen_u64(&all, f->key_count);
    gen_put(&all, f->keys.p, f->keys.n);
    gen_put(&all, f->tensors.p, f->tensors.n);
    pad(&all, f->align);
    gen_put(&all, f->data.p, f->data.n);
    free(f->keys.p);
    free(f->tensors.p);
    free(f->data.p);
    *size = all.n;
    return need(realloc(all.p, all.n));
}

/* ---- a tiny model ---- */

void gen_model_init(struct gen_model *m)
{
    *m = (struct gen_model){.seed = 1,
                            .type = ATTEND_F32,
                            .layers = 2,
                            .heads = 4,
                            .groups = 2,
                            .head_size = 16,
                            .hidden = 96,
                            .context = 256,
                            .rope_base = 10000.0f,
                            .eps = 1e-5f,
                            .tied = 1};
}

/* In the byte alphabet: "Ġ" is a space, "Ċ" a newline, "Ã ©" the two bytes of an e with acute. */
static const char *const merges[] = {
    "h e",   "i n",  "Ġ t",     "r e",   "o n",    "e r",  "Ġ a",   "a t", "o u",   "e n", "Ġt he",
    "o r",   "i s",  "e s",     "Ġ w",   "n d",    "i t",  "a l",   "Ġ s", "in g",  "l l", "Ġ o",
    "Ġa nd", "Ġo f", "l d",     "he ll", "hell o", "Ġ Ġ",  "ĠĠ ĠĠ", "Ã ©", "t he",  "Ċ Ċ", "- -",
    "Ġw or", "e d",  "Ġwor ld", "Ġ c",   "a n",    "Ġt o", "a r",   "o t", "Ġc an", "Ġ b", "Ġb e"};

/* The name of a token: tokens[id] of the vocabulary. */
static void name_token(int id, char name[16])
{
    static const char *const named[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"};
    int byte = id - (int)NELEM(named), merge = byte - 256;
    if (byte < 0) {
        snprintf(name, 16, "%s", named[id]);
    } else if (merge >= 0) {
        const char *space = strchr(merges[merge], ' ');
        snprintf(name, 16, "%.*s%s", (int)(space - merges[merge]), merges[merge], space + 1);
    } else {
        unsigned letter = (unsigned)byte, next = 256;
        for (int b = 0; b <= byte; b++)
            if (b <= 32 || (b >= 127 && b <= 160) || b == 173)
                letter = b == byte ? next : letter, next++;
        int at = 0;
        if (letter >= 0x80)
            name[at++] = (char)(0xc0 | letter >> 6);
        name[at++] = (char)(letter < 0x80 ? letter : 0x80 | (letter & 0x3f));
        name[at] = 0;
    }
}

static void add_vocabulary(struct gen_file *f)
{
    static char names[GEN_VOCABULARY][16];
    const char *tokens[GEN_VOCABULARY];
    int32_t types[GEN_VOCABULARY];
    for (int id = 0; id < GEN_VOCABULARY; id++) {
        name_token(id, names[id]);
        tokens[id] = names[id];
        types[id] = id < 3 ? 3 : id == 3 ? 4 : 1; /* control, user-defined, normal */
    }
    gen_key_str(f, "tokenizer.ggml.model", "gpt2");
    gen_key_str(f, "tokenizer.ggml.pre", "smollm");
    gen_key_strs(f, "tokenizer.ggml.tokens", tokens, GEN_VOCABULARY);
    gen_key_i32s(f, "tokenizer.ggml.token_type", types, GEN_VOCABULARY);
    gen_key_strs(f, "tokenizer.ggml.merges", merges, NELEM(merges));
    gen_key_u32(f, "tokenizer.ggml.bos_token_id", 1);
    gen_key_u32(f, "tokenizer.ggml.eos_token_id", 2);
    gen_key_str(f, "tokenizer.chat_template",
                "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' "
                "%}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
                "Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' "
                "+ message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
                "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
}

/* One row in a type; returns its bytes. */
static size_t store_row(attend_type type, void *to, const float *row, int64_t n)
{
    size_t blocks = (size_t)n / AT_QUANT_BLOCK;
    switch (type) {
    case ATTEND_F16:
        at_quant_f16(to, row, n);
        return 2 * (size_t)n;
    case ATTEND_BF16:
        at_quant_bf16(to, row, n);
        return 2 * (size_t)n;
    case ATTEND_Q8_0:
        at_quant_q8_0(to, row, n);
        return blocks * sizeof(struct at_q8_0);
    case ATTEND_Q4_0:
        at_quant_q4_0(to, row, n);
        return blocks * sizeof(struct at_q4_0);
    case ATTEND_Q4_1:
        at_quant_q4_1(to, row, n);
        return blocks * sizeof(struct at_q4_1);
    default:
        memcpy(to, row, 4 * (size_t)n);
        return 4 * (size_t)n;
    }
}

static uint32_t gguf_type(attend_type type)
{
    switch (type) {
    case ATTEND_F16:
        return 1;
    case ATTEND_BF16:
        return 30;
    case ATTEND_Q8_0:
        return 8;
    case ATTEND_Q4_0:
        return 2;
    case ATTEND_Q4_1:
        return 3;
    default:
        return 0;
    }
}

static float uniform(uint64_t *seed) /* from -1 to 1 */
{
    return (float)((double)(gen_random(seed) >> 11) * 0x1p-52 - 1.0);
}

/* A matrix whose product with a vector of ones' size has about that size. */
static void add_matrix(struct gen_file *f, uint64_t *seed, const char *name, attend_type type,
                       int rows, int columns)
{
    const uint64_t dim[] = {(uint64_t)rows, (uint64_t)columns};
    float *row = need(malloc((size_t)columns * sizeof *row));
    unsigned char *data = need(malloc((size_t)rows * (size_t)columns * sizeof *row));
    size_t bytes = 0;
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < columns; j++)
            row[j] = uniform(seed) * sqrtf(3.0f / (float)columns);
        bytes += store_row(type, data + bytes, row, columns);
    }
    gen_tensor(f, name, 2, dim, gguf_type(type), data, bytes);
    free(data);
    free(row);
}

static void add_norm(struct gen_file *f, uint64_t *seed, const char *name, int n)
{
    const uint64_t dim[] = {(uint64_t)n};
    float *w = need(malloc((size_t)n * sizeof *w));
    for (int i = 0; i < n; i++)
        w[i] = 1.0f + 0.25f * uniform(seed);
    gen_tensor(f, name, 1, dim, 0, w, (size_t)n * sizeof *w);
    free(w);
}

static void add_factors(struct gen_file *f, int n)
{
    const uint64_t dim[] = {(uint64_t)n};
    float *x = need(malloc((size_t)n * sizeof *x));
    for (int p = 0; p < n; p++)
        x[p] = 1.0f + (float)p;
    gen_tensor(f, "rope_freqs.weight", 1, dim, 0, x, (size_t)n * sizeof *x);
    free(x);
}

static void add_layer(struct gen_file *f, uint64_t *seed, const struct gen_model *m, int layer)
{
    const int width = m->heads * m->head_size, kv = m->groups * m->head_size;
    const struct {
        const char *name;
        int rows, columns;
    } matrices[] = {
        {"attn_q",      width,     width    },
        {"attn_k",      kv,        width    },
        {"attn_v",      kv,        width    },
        {"attn_output", width,     width    },
        {"ffn_gate",    m->hidden, width    },
        {"ffn_up",      m->hidden, width    },
        {"ffn_down",    width,     m->hidden}
    };
    char name[64];
    snprintf(name, sizeof name, "blk.%d.attn_norm.weight", layer);
    add_norm(f, seed, name, width);
    snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", layer);
    add_norm(f, seed, name, width);
    for (size_t i = 0; i < NELEM(matrices); i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, matrices[i].name);
        add_matrix(f, seed, name, m->type, matrices[i].rows, matrices[i].columns);
    }
}

unsigned char *gen_model_make(const struct gen_model *m, size_t *size)
{
    const int width = m->heads * m->head_size;
    const attend_type embedding = m->type >= ATTEND_Q8_0 ? ATTEND_Q8_0 : m->type;
    uint64_t seed = m->seed;
    struct gen_file f;
    gen_init(&f);
    gen_key_str(&f, "general.architecture", "llama");
    gen_key_str(&f, "general.name", "tiny");
    gen_key_u32(&f, "llama.block_count", (uint32_t)m->layers);
    gen_key_u32(&f, "llama.context_length", (uint32_t)m->context);
    gen_key_u32(&f, "llama.embedding_length", (uint32_t)width);
    gen_key_u32(&f, "llama.feed_forward_length", (uint32_t)m->hidden);
    gen_key_u32(&f, "llama.attention.head_count", (uint32_t)m->heads);
    gen_key_u32(&f, "llama.attention.head_count_kv", (uint32_t)m->groups);
    gen_key_f32(&f, "llama.rope.freq_base", m->rope_base);
    gen_key_f32(&f, "llama.attention.layer_norm_rms_epsilon", m->eps);
    gen_key_u32(&f, "llama.rope.dimension_count", (uint32_t)m->head_size);
    gen_key_u32(&f, "llama.vocab_size", GEN_VOCABULARY);
    add_vocabulary(&f);
    add_matrix(&f, &seed, "token_embd.weight", embedding, GEN_VOCABULARY, width);
    if (m->factors)
        add_factors(&f, m->head_size / 2);
    for (int layer = 0; layer < m->layers; layer++)
        add_layer(&f, &seed, m, layer);
    add_norm(&f, &seed, "output_norm.weight", width);
    if (!m->tied)
        add_matrix(&f, &seed, "output.weight", embedding, GEN_VOCABULARY, width);
    return gen_finish(&f, size);
}

void gen_model_write(const struct gen_model *m, const char *path)
{
    char err[256];
    struct at_os_file *out;
    size_t size;
    unsigned char *data = gen_model_make(m, &size);
    if (at_os_file_new(&out, path, err, sizeof err) < 0)
        bail("%s", err);
    at_os_file_write(out, data, size);
    if (at_os_file_finish(out, err, sizeof err) < 0)
        bail("%s", err);
    free(data);
}
