/* SPDX-License-Identifier: MIT */
/* What a Llama-family file becomes: llama_graph.c makes the graph, llama.c runs it. */
#ifndef AT_LLAMA_H
#define AT_LLAMA_H

#include "models.h"
#include "say.h"

/* What the keys of the file say. */
struct llama_sizes {
    int64_t layers, width, hidden, heads, groups, dk, dv, rotated, vocabulary, context;
    float rope_base, eps;
};

/* What building goes through; like a graph, it keeps the first error. */
struct llama_build {
    const attend_gguf *file;
    attend_graph *g;
    struct llama_sizes n;
    attend_llama_opts opts;
    const char **taken; /* names of tensors that the graph has */
    int64_t ntaken;
    attend_tensor position, used;
    const attend_weights_opts *kept; /* of maps; NULL: there are none */
    int status;
    char *err;
    size_t errlen;
};

#define REFUSE(b, code, ...)                                                                       \
    ((b)->status < 0 ? (b)->status                                                                 \
                     : ((b)->status = at_say((b)->err, (b)->errlen, code, __VA_ARGS__)))

/* The sizes, from the keys of the file. */
void at_llama_read_keys(struct llama_build *b);
/* The graph, into b->g; its inputs and states are named in llama_graph.c. */
void at_llama_build_graph(struct llama_build *b);
/* The output that has the map of a layer. */
void at_llama_map_name(char name[24], int64_t layer);

#endif
