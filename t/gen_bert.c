/* SPDX-License-Identifier: MIT */
/* Makes safetensors files, and a folder with a tiny BERT model whose numbers are known. */
#include "gen_bert.h"
#include "tap.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char gen_bert_vocabulary[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nwor\n##ld\n,\n!\na\n##b\n##c\n";
const char gen_bert_config[] =
    "{\"model_type\": \"bert\", \"hidden_size\": 12, \"num_hidden_layers\": 2,\n"
    " \"num_attention_heads\": 3, \"intermediate_size\": 20, \"max_position_embeddings\": 16,\n"
    " \"vocab_size\": 13, \"layer_norm_eps\": 1e-12, \"hidden_act\": \"gelu\"}\n";

void gen_write_file(const char *folder, const char *name, const void *data, size_t size)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        bail("cannot write %s", path);
}

/* ---- safetensors ---- */

void gen_tensors_add(struct gen_tensors *t, const char *name, int rank, const int64_t *dim,
                     const float *data)
{
    char text[400], shape[100] = "";
    size_t count = 1, at = 0;
    for (int d = 0; d < rank; d++) {
        at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%" PRId64, d ? "," : "", dim[d]);
        count *= (size_t)dim[d];
    }
    int n = snprintf(text, sizeof text,
                     "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                     t->header.n ? "," : "{", name, shape, t->data.n, t->data.n + count * 4);
    gen_put(&t->header, text, (size_t)n);
    gen_put(&t->data, data, count * 4);
}

unsigned char *gen_tensors_finish(struct gen_tensors *t, size_t *size)
{
    struct gen_bytes all = {NULL, 0, 0};
    gen_put(&t->header, "}", 1);
    while (t->header.n % 8 != 0)
        gen_put(&t->header, " ", 1);
    gen_u64(&all, t->header.n);
    gen_put(&all, t->header.p, t->header.n);
    gen_put(&all, t->data.p, t->data.n);
    free(t->header.p);
    free(t->data.p);
    memset(t, 0, sizeof *t);
    *size = all.n;
    return all.p;
}

/* ---- the model ---- */

float gen_bert_weight(const char *name, int64_t i)
{
    uint64_t h = 0xcbf29ce484222325u + (uint64_t)i * 0x9e3779b97f4a7c15u;
    for (const char *c = name; *c; c++)
        h = (h ^ (unsigned char)*c) * 0x100000001b3u;
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9u;
    double u = (double)(h >> 40) / (1 << 24) - 0.5;
    return (float)(strstr(name, "LayerNorm.weight") ? 1 + 0.2 * u : u);
}

static void add(struct gen_tensors *t, const char *left_out, const char *name, int64_t rows,
                int64_t cols)
{
    const int64_t dim[] = {rows, cols}, n = rows * (cols ? cols : 1);
    float *data = malloc((size_t)n * sizeof *data);
    if (!data)
        bail("no memory");
    for (int64_t i = 0; i < n; i++)
        data[i] = gen_bert_weight(name, i);
    if (!left_out || strcmp(left_out, name) != 0)
        gen_tensors_add(t, name, cols ? 2 : 1, dim, data);
    free(data);
}

static void add_layer(struct gen_tensors *t, const char *left_out, int layer)
{
    enum { W = GEN_BERT_WIDTH, H = GEN_BERT_HIDDEN };
    static const struct {
        const char *name;
        int64_t rows, cols;
    } parts[] = {
        {"attention.self.query.weight",       W, W},
        {"attention.self.query.bias",         W, 0},
        {"attention.self.key.weight",         W, W},
        {"attention.self.key.bias",           W, 0},
        {"attention.self.value.weight",       W, W},
        {"attention.self.value.bias",         W, 0},
        {"attention.output.dense.weight",     W, W},
        {"attention.output.dense.bias",       W, 0},
        {"attention.output.LayerNorm.weight", W, 0},
        {"attention.output.LayerNorm.bias",   W, 0},
        {"intermediate.dense.weight",         H, W},
        {"intermediate.dense.bias",           H, 0},
        {"output.dense.weight",               W, H},
        {"output.dense.bias",                 W, 0},
        {"output.LayerNorm.weight",           W, 0},
        {"output.LayerNorm.bias",             W, 0},
    };
    for (size_t i = 0; i < NELEM(parts); i++) {
        char name[100];
        snprintf(name, sizeof name, "encoder.layer.%d.%s", layer, parts[i].name);
        add(t, left_out, name, parts[i].rows, parts[i].cols);
    }
}

void gen_bert_write(const char *folder, const char *left_out)
{
    struct gen_tensors t = {
        {NULL, 0, 0},
        {NULL, 0, 0}
    };
    size_t size;
    add(&t, left_out, "embeddings.word_embeddings.weight", GEN_BERT_VOCABULARY, GEN_BERT_WIDTH);
    add(&t, left_out, "embeddings.position_embeddings.weight", GEN_BERT_POSITIONS, GEN_BERT_WIDTH);
    add(&t, left_out, "embeddings.token_type_embeddings.weight", 2, GEN_BERT_WIDTH);
    add(&t, left_out, "embeddings.LayerNorm.weight", GEN_BERT_WIDTH, 0);
    add(&t, left_out, "embeddings.LayerNorm.bias", GEN_BERT_WIDTH, 0);
    for (int layer = 0; layer < GEN_BERT_LAYERS; layer++)
        add_layer(&t, left_out, layer);
    unsigned char *file = gen_tensors_finish(&t, &size);
    gen_write_file(folder, "model.safetensors", file, size);
    free(file);
    gen_write_file(folder, "config.json", gen_bert_config, strlen(gen_bert_config));
    gen_write_file(folder, "vocab.txt", gen_bert_vocabulary, strlen(gen_bert_vocabulary));
    static const char limit[] = "{\"max_seq_length\": 10}";
    gen_write_file(folder, "sentence_bert_config.json", limit, strlen(limit));
}
