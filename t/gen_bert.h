/* SPDX-License-Identifier: MIT */
/* Makes safetensors files, and a folder with a tiny BERT model whose numbers are known. */
#ifndef T_GEN_BERT_H
#define T_GEN_BERT_H

#include "gen_gguf.h"

/* ---- a safetensors file that grows ---- */

struct gen_tensors {
    struct gen_bytes header, data;
};
/* f32, dims slowest first. */
void gen_tensors_add(struct gen_tensors *t, const char *name, int rank, const int64_t *dim,
                     const float *data);
/* The whole file, to free; t is empty again. */
unsigned char *gen_tensors_finish(struct gen_tensors *t, size_t *size);

/* ---- the model ---- */

enum {
    GEN_BERT_VOCABULARY = 13,
    GEN_BERT_WIDTH = 12,
    GEN_BERT_HEADS = 3,
    GEN_BERT_HIDDEN = 20,
    GEN_BERT_LAYERS = 2,
    GEN_BERT_POSITIONS = 16,
    GEN_BERT_LIMIT = 10
};
extern const char gen_bert_vocabulary[], gen_bert_config[]; /* the text of vocab.txt, config.json */

/* Element i of a weight: the file has just these. */
float gen_bert_weight(const char *name, int64_t i);
/* Writes the three files into a folder that exists; without the tensor `left_out`, where not NULL.
 */
void gen_bert_write(const char *folder, const char *left_out);
void gen_write_file(const char *folder, const char *name, const void *data, size_t size);

#endif
