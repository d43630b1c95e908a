/* SPDX-License-Identifier: MIT */
/* A model from a file, as the verbs that run one open it. */
#ifndef MODEL_H
#define MODEL_H

#include "cmd.h"
#include "models.h"

struct model {
    const struct cmd_line *l;
    const char *file;
    attend_ctx *ctx;
    attend_gguf *gguf;
    attend_llama *llama;
};

/* clang-format off */
/* Flags of these verbs; model_read looks at them. */
#define MODEL_FLAGS                                                                                \
    {"-m",    "MODEL.gguf",   "the model", NULL},                                                  \
    {"--ctx", "N",            "tokens that the cache of keys and values holds", NULL},             \
    {"--kv",  "TYPE",         "keys and values in the cache: f32, f16, bf16, q8_0, q4_0, fp8 (f32)", NULL}, \
    {"--precision", "exact|int8", "int8: activations in 8 bits meet quantised weights (exact)", NULL}
/* clang-format on */

/* Opens the file of -m.  What was opened, even if that failed, is closed by model_close. */
int model_open(struct model *m, const struct cmd_line *l);
/* Options as the flags say, but for context and batch. */
int model_opts(const struct model *m, attend_llama_opts *opts);
/* Makes the model with a cache for --ctx tokens, or for the `need` tokens of `what` (0: as many as
 * it can) where that is not given; at most `batch` go through it at once. */
int model_make(struct model *m, const char *what, int64_t need, int64_t batch);
/* As --temp, --top-k, --top-p and --seed say. */
int model_sampler(const struct model *m, attend_sampler **sampler);
void model_close(struct model *m);

#endif
