/* SPDX-License-Identifier: MIT */
/* A BERT encoder: what its two files share. */
#ifndef AT_BERT_H
#define AT_BERT_H

#include "models.h"

/* What config.json says. */
struct at_bert_sizes {
    int64_t layers, width, hidden, heads, vocabulary, positions, types;
    float eps;
    enum { AT_BERT_GELU, AT_BERT_GELU_TANH, AT_BERT_RELU } activation;
};

struct attend_bert {
    attend_ctx *ctx;
    attend_bert_opts opts;
    char *device;
    struct at_bert_sizes n;
    int64_t limit; /* tokens of a sequence */
    attend_safetensors *file;
    attend_wordpiece *wordpiece;
    attend_plan *plan;
    attend_exec *exec;
    int32_t *position; /* [batch] */
    float *hidden;     /* [batch, width]: for embeddings */
};

/* bert_config.c: reads the folder's JSON and vocabulary into m. */
int at_bert_read_folder(attend_bert *m, const char *folder, int *lower, char *err, size_t errlen);
/* FOLDER/NAME into path; false where that has no room. */
int at_bert_path(char path[1024], const char *folder, const char *name);

#endif
