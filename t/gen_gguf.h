/* SPDX-License-Identifier: MIT */
/* Makes GGUF files in memory: a tiny language model that behaves like a real one, and the parts
 * that make files with faults.  Memory that runs out ends the test (bail). */
#ifndef T_GEN_GGUF_H
#define T_GEN_GGUF_H

#include "attend.h"

#include <stddef.h>
#include <stdint.h>

/* ---- parts ---- */

struct gen_bytes {
    unsigned char *p;
    size_t n, room;
};

/* A file that grows: keys, descriptions of tensors and their data apart, joined by gen_finish. */
struct gen_file {
    struct gen_bytes keys, tensors, data;
    uint64_t key_count, tensor_count;
    uint32_t version; /* 3 */
    uint64_t align;   /* 32; where it is another, add the key too */
};

/* Types of values as GGUF numbers them. */
enum {
    GEN_U8,
    GEN_I8,
    GEN_U16,
    GEN_I16,
    GEN_U32,
    GEN_I32,
    GEN_F32,
    GEN_BOOL,
    GEN_STR,
    GEN_ARRAY,
    GEN_U64,
    GEN_I64,
    GEN_F64
};

void gen_put(struct gen_bytes *b, const void *p, size_t n);
void gen_u32(struct gen_bytes *b, uint32_t v);
void gen_u64(struct gen_bytes *b, uint64_t v);
void gen_str(struct gen_bytes *b, const char *s); /* length, then bytes */

void gen_init(struct gen_file *f);
void gen_key(struct gen_file *f, const char *name, uint32_t type); /* a value must follow */
void gen_key_u32(struct gen_file *f, const char *name, uint32_t v);
void gen_key_f32(struct gen_file *f, const char *name, float v);
void gen_key_str(struct gen_file *f, const char *name, const char *v);
void gen_key_strs(struct gen_file *f, const char *name, const char *const *v, uint64_t n);
void gen_key_i32s(struct gen_file *f, const char *name, const int32_t *v, uint64_t n);
/* A description: dims slowest first, type as GGUF numbers it. */
void gen_describe(struct gen_file *f, const char *name, int rank, const uint64_t *dim,
                  uint32_t type, uint64_t offset);
/* A description and its data, which follows what is there. */
void gen_tensor(struct gen_file *f, const char *name, int rank, const uint64_t *dim, uint32_t type,
                const void *data, size_t bytes);
/* The whole file, of exactly *size bytes; frees the parts.  The caller frees it. */
unsigned char *gen_finish(struct gen_file *f, size_t *size);

/* ---- a tiny model ---- */

/* A Llama-family model with a byte-level "smollm" vocabulary and SmolLM2's chat template. */
struct gen_model {
    uint64_t seed;
    attend_type type; /* of matrices: f32, f16, bf16, q8_0, q4_0, q4_1; embeddings of a quantised
                         model are q8_0 */
    int layers, heads, groups, head_size, hidden, context;
    float rope_base, eps;
    int tied;    /* 1: the output is the embedding, as in SmolLM2; 0: "output.weight" */
    int factors; /* 1: "rope_freqs.weight" slows pair p down by 1 + p */
};
/* Defaults: f32, 2 layers, 4 heads in 2 groups of size 16, hidden 96, context 256, base 10000,
 * eps 1e-5, tied, no factors. */
void gen_model_init(struct gen_model *m);
/* The file, of exactly *size bytes, without general.alignment (so 32).  The caller frees it. */
unsigned char *gen_model_make(const struct gen_model *m, size_t *size);
/* The same, written to path. */
void gen_model_write(const struct gen_model *m, const char *path);

/* Its vocabulary: end-of-text 0, <|im_start|> 1, <|im_end|> 2 (the end token), user-defined <tool>
 * 3, then 256 bytes and the merges. */
enum { GEN_VOCABULARY = 304 };

/* The next number of a seeded sequence (splitmix64). */
uint64_t gen_random(uint64_t *state);

#endif
