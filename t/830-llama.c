/* SPDX-License-Identifier: MIT */
/* Llama-family models on a tiny generated file: every device against ref, in one batch, in pieces
 * and token by token; composed attention; types of the cache; and files and calls that must be
 * refused with a sentence. */
#include "gen_gguf.h"
#include "models.h"
#include "os.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 40, V = GEN_VOCABULARY };

static char err[512];
static attend_ctx *ctx;

static void *need(void *p)
{
    if (!p)
        bail("no memory");
    return p;
}

/* ---- a model from a generated file ---- */

struct tiny {
    unsigned char *data;
    attend_gguf *file;
    attend_llama *llama;
};

static struct tiny open_tiny(const struct gen_model *m)
{
    struct tiny t = {0};
    size_t size;
    t.data = gen_model_make(m, &size);
    if (attend_gguf_from_memory(t.data, size, &t.file, err, sizeof err) < 0)
        bail("%s", err);
    return t;
}

static void close_tiny(struct tiny *t)
{
    attend_llama_free(t->llama);
    attend_gguf_free(t->file);
    free(t->data);
}

static struct tiny make_tiny(const struct gen_model *m, const attend_llama_opts *opts)
{
    struct tiny t = open_tiny(m);
    if (attend_llama_new(ctx, t.file, opts, &t.llama, err, sizeof err) < 0)
        bail("%s", err);
    return t;
}

static attend_llama_opts on(const char *device)
{
    attend_llama_opts opts;
    attend_llama_opts_init(&opts);
    opts.device = device;
    return opts;
}

static const int32_t *tokens(void)
{
    static int32_t id[TOKENS];
    uint64_t seed = 7;
    for (int i = 0; i < TOKENS; i++)
        id[i] = (int32_t)(gen_random(&seed) % V);
    return id;
}

/* Logits after every token, fed in pieces of `piece`. */
static float *logits_of(const struct gen_model *m, const attend_llama_opts *opts, int piece)
{
    struct tiny t = make_tiny(m, opts);
    float *rows = need(malloc((size_t)TOKENS * V * sizeof *rows));
    for (int i = 0; i < TOKENS; i += piece) {
        int n = piece < TOKENS - i ? piece : TOKENS - i;
        if (attend_llama_feed(t.llama, tokens() + i, n, 0, rows + (size_t)i * V, err, sizeof err) <
            0)
            bail("%s", err);
    }
    close_tiny(&t);
    return rows;
}

/* Largest difference, as a share of the largest logit. */
static double distance(const float *a, const float *b)
{
    double worst = 0, top = 0;
    for (size_t i = 0; i < (size_t)TOKENS * V; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        worst = d > worst || isnan(d) ? d : worst;
        top = fmax(top, fabs((double)b[i]));
    }
    return worst / top;
}

/* ---- devices, pieces ---- */

/* A sum of n <= 304 products in f32 is off by n 2^-24 = 1.8e-5 of the sum of their sizes at worst,
 * and by its root, 1e-6, as a rule; some ten of them follow each other in two layers. */
#define F32_BOUND 2e-5

static void test_device(const struct gen_model *m, const char *device, const float *want)
{
    static const int pieces[] = {1, 7, 17, TOKENS};
    attend_llama_opts opts = on(device);
    for (size_t i = 0; i < NELEM(pieces); i++) {
        float *got = logits_of(m, &opts, pieces[i]);
        double d = distance(got, want);
        ok(d <= F32_BOUND, "%s, %s, %d heads of %d, %d at once: off by %.2g of the largest",
           attend_type_name(m->type), device, m->heads, m->groups, pieces[i], d);
        free(got);
    }
    opts.batch = 9;
    float *got = logits_of(m, &opts, TOKENS);
    double d = distance(got, want);
    ok(d <= F32_BOUND, "and in batches of %d: %.2g", (int)opts.batch, d);
    free(got);
}

static void test_devices(const struct gen_model *m)
{
    attend_llama_opts opts = on("ref");
    attend_device_info info;
    float *want = logits_of(m, &opts, TOKENS);
    for (int i = 0; attend_device_get(ctx, i, &info) == 0; i++)
        if (info.present)
            test_device(m, info.name, want);
    free(want);
}

static void test_factors(void)
{
    struct gen_model m;
    gen_model_init(&m);
    attend_llama_opts opts = on("ref");
    float *without = logits_of(&m, &opts, TOKENS);
    m.factors = 1;
    float *with = logits_of(&m, &opts, TOKENS);
    double d = distance(with, without);
    ok(d > 1e-3, "rope_freqs.weight is not ignored: %.2g", d);
    free(without);
    free(with);
    test_devices(&m);
}

static void test_models(void)
{
    static const attend_type types[] = {ATTEND_F16, ATTEND_BF16, ATTEND_Q8_0, ATTEND_Q4_0,
                                        ATTEND_Q4_1};
    struct gen_model m;
    gen_model_init(&m);
    test_devices(&m);
    for (size_t i = 0; i < NELEM(types); i++) {
        gen_model_init(&m);
        m.type = types[i];
        m.tied = (int)(i % 2);
        test_devices(&m);
    }
    gen_model_init(&m);
    m.heads = m.groups = 3;
    m.head_size = 40;
    m.rope_base = 100000;
    test_devices(&m);
}

/* ---- types of the cache ---- */

/* A key or value in the cache is off by half a unit of its last place; scores and outputs are sums
 * in which this averages out, but logits of two layers may double it. */
static void test_cache(void)
{
    static const struct {
        attend_type type;
        double unit;
    } types[] = {
        {ATTEND_F16,  0x1p-11},
        {ATTEND_BF16, 0x1p-8 },
        {ATTEND_Q8_0, 0x1p-7 },
        {ATTEND_F8,   0x1p-3 },
        {ATTEND_Q4_0, 0x1p-3 },
    };
    struct gen_model m;
    gen_model_init(&m);
    attend_llama_opts opts = on("ref");
    float *exact = logits_of(&m, &opts, TOKENS);
    for (size_t i = 0; i < NELEM(types); i++) {
        opts = on("ref");
        opts.kv = types[i].type;
        float *want = logits_of(&m, &opts, TOKENS);
        double d = distance(want, exact);
        ok(d > 0 && d <= 4 * types[i].unit, "a cache in %s changes logits by %.2g",
           attend_type_name(types[i].type), d);
        opts.device = "auto";
        float *batch = logits_of(&m, &opts, TOKENS), *step = logits_of(&m, &opts, 1);
        d = distance(batch, want);
        ok(d <= types[i].unit, "and on the best device it is near: %.2g", d);
        d = distance(step, want);
        ok(d <= types[i].unit, "token by token, too: %.2g", d);
        free(want);
        free(batch);
        free(step);
    }
    free(exact);
}

/* ---- activations in 8 bits ---- */

/* An activation is off by half of 1/127 of the largest of its 32; a logit is a sum of many such
 * errors with either sign, and two layers pass them on. */
static void test_int8(attend_type type)
{
    struct gen_model m;
    gen_model_init(&m);
    m.type = type;
    attend_llama_opts opts = on("ref");
    float *exact = logits_of(&m, &opts, TOKENS);
    opts = on("simd");
    opts.precision = ATTEND_INT8;
    float *batch = logits_of(&m, &opts, TOKENS), *step = logits_of(&m, &opts, 1);
    double d = distance(batch, exact);
    ok(d > 1e-5 && d <= 0.05, "%s: 8 bits change logits by %.2g", attend_type_name(type), d);
    d = distance(step, exact);
    ok(d <= 0.05, "token by token, too: %.2g", d);
    struct tiny t = make_tiny(&m, &opts);
    char *text = need(attend_plan_describe(attend_llama_plan(t.llama), ATTEND_TEXT));
    ok(strstr(text, "/gemm-int8 ") != NULL, "the plan tells of it");
    attend_free(text);
    close_tiny(&t);
    opts.precision = ATTEND_EXACT;
    t = make_tiny(&m, &opts);
    text = need(attend_plan_describe(attend_llama_plan(t.llama), ATTEND_TEXT));
    ok(strstr(text, "/gemm ") && !strstr(text, "int8"), "and is exact if not asked otherwise");
    attend_free(text);
    close_tiny(&t);
    free(exact);
    free(batch);
    free(step);
}

/* ---- composed attention ---- */

/* A plan without what it says of fusions. */
static char *plan_text(const struct tiny *t)
{
    char *text = need(attend_plan_describe(attend_llama_plan(t->llama), ATTEND_TEXT));
    for (char *at = text; (at = strstr(at, "  fused: "));)
        memmove(at, at + strcspn(at, "\n"), strlen(at + strcspn(at, "\n")) + 1);
    return text;
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

static void test_composed(int groups, const char *device)
{
    struct gen_model m;
    gen_model_init(&m);
    m.groups = groups;
    attend_llama_opts opts = on(device);
    struct tiny fused = make_tiny(&m, &opts);
    opts.composed = 1;
    struct tiny composed = make_tiny(&m, &opts);
    char *a = plan_text(&fused), *b = plan_text(&composed);
    is_str(b, a, "composed attention of %d groups on %s has the plan of the fused one", groups,
           device);
    is_int(count(a, "attention f32"), m.layers * count(a, "arena "), "one attention a layer");
    is_int(count(a, "softmax"), 0, "and no softmax");
    free(a);
    free(b);
    close_tiny(&fused);
    close_tiny(&composed);
    opts.composed = 0;
    float *x = logits_of(&m, &opts, TOKENS);
    opts.composed = 1;
    float *y = logits_of(&m, &opts, TOKENS);
    is_mem(y, x, (size_t)TOKENS * V * sizeof *x, "the same logits");
    free(x);
    free(y);
}

/* ---- the object ---- */

static void test_calls(void)
{
    struct gen_model m;
    float first[V], again[V], row[V];
    gen_model_init(&m);
    attend_llama_opts opts = on("auto");
    opts.context = 16;
    opts.batch = 5;
    struct tiny t = make_tiny(&m, &opts);
    is_int(attend_llama_vocabulary(t.llama), V, "as many logits as tokens");
    is_int(attend_llama_context(t.llama), 16, "the context");
    ok(attend_llama_feed(t.llama, tokens(), 12, 11, first, err, sizeof err) == 0, "12 tokens");
    is_int(attend_llama_fed(t.llama), 12, "are fed");
    is_int(attend_llama_feed(t.llama, tokens(), 5, 4, row, err, sizeof err), ATTEND_ELIMIT,
           "5 more");
    is_str(err, "5 tokens after 12 do not fit into a context of 16", "which says");
    is_int(attend_llama_fed(t.llama), 12, "are not fed");
    ok(attend_llama_feed(t.llama, tokens(), 4, 4, NULL, err, sizeof err) == 0,
       "4 are, without logits");
    attend_llama_reset(t.llama);
    is_int(attend_llama_fed(t.llama), 0, "nothing is fed after a reset");
    ok(attend_llama_feed(t.llama, tokens(), 12, 11, again, err, sizeof err) == 0, "12 again");
    is_mem(again, first, sizeof first, "give the same logits");
    attend_llama_reset(t.llama);
    const int32_t strange[] = {1, V}, negative[] = {-1};
    is_int(attend_llama_feed(t.llama, strange, 2, 1, row, err, sizeof err), ATTEND_EINVAL,
           "a token that there is not");
    is_str(err, "token 1 is 304, outside of the vocabulary of 304", "which says");
    is_int(attend_llama_feed(t.llama, negative, 1, 0, row, err, sizeof err), ATTEND_EINVAL,
           "one below 0");
    is_int(attend_llama_feed(t.llama, tokens(), 2, 3, row, err, sizeof err), ATTEND_EINVAL,
           "logits of a token that is not fed");
    close_tiny(&t);
}

/* ---- bad options and files ---- */

static void refused_opts(const attend_llama_opts *opts, int status, const char *sentence)
{
    struct gen_model m;
    gen_model_init(&m);
    struct tiny t = open_tiny(&m);
    is_int(attend_llama_new(ctx, t.file, opts, &t.llama, err, sizeof err), status, "refused");
    is_str(err, sentence, "with this sentence");
    ok(!t.llama, "and no model");
    close_tiny(&t);
}

static void test_opts(void)
{
    attend_llama_opts opts = on("auto");
    opts.context = 257;
    refused_opts(&opts, ATTEND_ELIMIT,
                 "a context of 257 tokens, but the model was made for 1 to 256");
    opts = on("auto");
    opts.batch = 0;
    refused_opts(&opts, ATTEND_EINVAL, "a batch of 0 tokens, want at least 1");
    opts = on("auto");
    opts.kv = ATTEND_Q4_1;
    refused_opts(&opts, ATTEND_EUNSUPPORTED,
                 "keys and values in q4_1: want f32, f16, bf16, q8_0, q4_0 or f8");
}

static unsigned char *find_bytes(unsigned char *data, size_t size, const char *what)
{
    size_t n = strlen(what);
    for (size_t i = 1; i + n <= size; i++)
        if (data[i - 1] == 0 && memcmp(data + i, what, n) == 0) /* behind a length below 2^56 */
            return data + i;
    bail("the generated file has no '%s'", what);
}

/* The generated file with `text` written over the first `from`; where that is a key, `value`
 * (unless it is -1) over its number, 32 bits behind its type. */
static void refused_file(int tied, const char *from, const char *text, int64_t value, int status,
                         const char *sentence)
{
    struct gen_model m;
    struct tiny t = {0};
    size_t size;
    gen_model_init(&m);
    m.tied = tied;
    t.data = gen_model_make(&m, &size);
    unsigned char *at = find_bytes(t.data, size, from);
    memcpy(at, text, strlen(text));
    for (int i = 0; value >= 0 && i < 4; i++)
        at[strlen(from) + 4 + (size_t)i] = (unsigned char)(value >> (8 * i));
    if (attend_gguf_from_memory(t.data, size, &t.file, err, sizeof err) < 0)
        bail("%s", err);
    is_int(attend_llama_new(ctx, t.file, NULL, &t.llama, err, sizeof err), status, "refused");
    is_str(err, sentence, "with this sentence");
    close_tiny(&t);
}

static void refused_key(const char *key, int64_t value, int status, const char *sentence)
{
    refused_file(1, key, "", value, status, sentence);
}

static void test_files(void)
{
    refused_file(1, "blk.1.ffn_up.weight", "blk.1.ffn_xx.weight", -1, ATTEND_EFORMAT,
                 "tensor 'blk.1.ffn_up.weight' is missing");
    refused_file(1, "token_embd.weight", "token_embx.weight", -1, ATTEND_EFORMAT,
                 "tensor 'token_embd.weight' is missing");
    refused_file(0, "output.weight", "outputs.weigh", -1, ATTEND_EUNSUPPORTED,
                 "tensor 'outputs.weigh' has no place in a Llama model");
    refused_file(1, "llama.block_count", "llama.block_xxxxx", -1, ATTEND_EFORMAT,
                 "the key 'llama.block_count' is missing");
    refused_file(1, "llama.attention.layer_norm_rms", "llama.attention.layer_norm_xxx", -1,
                 ATTEND_EFORMAT, "the key 'llama.attention.layer_norm_rms_epsilon' is missing");
    refused_file(1, "llama", "mamba", -1, ATTEND_EUNSUPPORTED,
                 "'general.architecture' is 'mamba', and only 'llama' is known here");
    refused_key("llama.block_count", 3, ATTEND_EFORMAT,
                "tensor 'blk.2.attn_norm.weight' is missing");
    refused_key("llama.block_count", 1, ATTEND_EUNSUPPORTED,
                "tensor 'blk.1.attn_k.weight' has no place in a Llama model");
    refused_key("llama.block_count", 0, ATTEND_EFORMAT, "'llama.block_count' is 0, want 1 to 4096");
    refused_key("llama.feed_forward_length", 95, ATTEND_EFORMAT,
                "tensor 'blk.0.ffn_gate.weight' is 96 x 64, want 95 x 64");
    refused_key("llama.embedding_length", 128, ATTEND_EFORMAT,
                "tensor 'token_embd.weight' is 304 x 64, want 304 x 128");
    refused_key(
        "llama.attention.head_count_kv", 3, ATTEND_EFORMAT,
        "'llama.attention.head_count_kv' is 3, of which the 4 of head_count are no multiple");
    refused_key("llama.rope.dimension_count", 18, ATTEND_EFORMAT,
                "'llama.rope.dimension_count' is 18, want an even number from 2 to 16");
    refused_key("llama.rope.dimension_count", 15, ATTEND_EFORMAT,
                "'llama.rope.dimension_count' is 15, want an even number from 2 to 16");
    refused_key("llama.rope.freq_base", 0, ATTEND_EFORMAT,
                "'llama.rope.freq_base' is 0, want a number above 0");
    refused_key("llama.rope.freq_base", 0x7fc00000, ATTEND_EFORMAT,
                "'llama.rope.freq_base' is nan, want a number above 0");
    refused_key("llama.context_length", 0, ATTEND_EFORMAT,
                "'llama.context_length' is 0, want 1 to 2147483647");
}

static void test_nan(void)
{
    static const unsigned char nan_bytes[] = {0, 0, 0xc0, 0x7f};
    struct gen_model m;
    struct tiny t = {0};
    size_t size;
    gen_model_init(&m);
    t.data = gen_model_make(&m, &size);
    memcpy(t.data + size - 4, nan_bytes, 4); /* the end of the last norm */
    if (attend_gguf_from_memory(t.data, size, &t.file, err, sizeof err) < 0)
        bail("%s", err);
    is_int(attend_llama_new(ctx, t.file, NULL, &t.llama, err, sizeof err), ATTEND_EFORMAT,
           "a weight that is NaN");
    is_str(err,
           "tensor 'output_norm.weight' has an element that is NaN or infinite, in row 0, "
           "column 63",
           "which says");
    close_tiny(&t);
}

/* ---- no memory ---- */

static int64_t allowed;

static void *sparing_alloc(void *arg, size_t bytes, size_t align)
{
    (void)arg;
    if (allowed-- <= 0)
        return NULL;
    return at_os_alloc(align, bytes);
}

static void sparing_free(void *arg, void *p, size_t bytes)
{
    (void)arg;
    (void)bytes;
    at_os_free(p);
}

/* Whichever allocation fails, there is a sentence, and nothing is left (as ASan sees). */
static void test_memory(void)
{
    struct gen_model m;
    attend_ctx *sparing;
    attend_ctx_opts opts;
    bool good = true, made = false;
    int fails = 0;
    gen_model_init(&m);
    struct tiny t = open_tiny(&m);
    attend_ctx_opts_init(&opts);
    opts.threads = 1;
    opts.allocator = (attend_allocator){sparing_alloc, sparing_free, NULL};
    allowed = INT64_MAX;
    if (attend_ctx_new(&opts, &sparing) < 0)
        bail("no context");
    for (int64_t n = 0; good && !made; n += 1 + n / 16) {
        err[0] = 0;
        allowed = n;
        int status = attend_llama_new(sparing, t.file, NULL, &t.llama, err, sizeof err);
        made = status == 0;
        good = made || (status == ATTEND_ENOMEM && !t.llama && strstr(err, "memory"));
        fails += !made;
        if (!good)
            diag("after %d allocations: %s, '%s'", (int)n, attend_status_name(status), err);
    }
    allowed = INT64_MAX;
    ok(good && made && fails > 20, "memory may end anywhere (%d places)", fails);
    attend_llama_free(t.llama);
    t.llama = NULL;
    attend_ctx_free(sparing);
    close_tiny(&t);
}

int main(void)
{
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    test_models();
    test_factors();
    test_int8(ATTEND_Q4_1);
    test_int8(ATTEND_Q8_0);
    test_cache();
    test_composed(2, "auto");
    test_composed(4, "auto");
    test_composed(1, "ref");
    test_calls();
    test_opts();
    test_files();
    test_nan();
    test_memory();
    attend_ctx_free(ctx);
    return done_testing();
}
