/* SPDX-License-Identifier: MIT */
/* One attention on tensors from files: what its flags and files said.  sdpa_read.c fills it,
 * cmd_sdpa.c runs it. */
#ifndef SDPA_H
#define SDPA_H

#include "cmd.h"

/* The tensors, inputs first. */
enum sdpa_tensor {
    SDPA_Q,
    SDPA_K,
    SDPA_V,
    SDPA_MASK,
    SDPA_ALIBI,
    SDPA_SINKS,
    SDPA_Q_LENS,
    SDPA_KV_LENS,
    SDPA_KV_USED,
    SDPA_TABLE,
    SDPA_WQ, /* of --additive */
    SDPA_WK,
    SDPA_VA,
    SDPA_DOUT,
    SDPA_FILES, /* the inputs so far come from files, those from here on are computed */
    SDPA_K_SCALE = SDPA_FILES,
    SDPA_V_SCALE,
    SDPA_INPUTS,
    SDPA_O = SDPA_INPUTS,
    SDPA_LSE,
    SDPA_W,
    SDPA_W_INDEX,
    SDPA_TENSORS
};

enum { SDPA_LETS = 8, SDPA_GRADS = 9 + SDPA_LETS };

struct sdpa {
    const struct cmd_line *l;
    int (*use)(void *arg,
               attend_exec *exec); /* instead of running once and writing files, or NULL */
    void *arg;
    struct sdpa_let {
        char name[32], input[40]; /* in expressions, and in the graph */
        attend_array a;
    } let[SDPA_LETS];
    int nlet;
    struct sdpa_array {
        const char *file;
        attend_array a;     /* as the file has it; data NULL: absent */
        attend_shape shape; /* of q, k and v: (B, H, S, D), or packed (T, H, D) */
        bool strided;       /* the axes of the file are in another order than those of `shape` */
        int64_t stride[4];  /* then of each axis of `shape` */
    } t[SDPA_TENSORS];
    struct sdpa_grad {
        char *file, name[48]; /* PREFIX.dq.npy; and in the graph */
        attend_array a;
        const int64_t *stride; /* NULL: contiguous */
    } grad[SDPA_GRADS];
    int ngrad;
    attend_attention_opts opts;
    attend_weights_opts weights;
    char *index_file;          /* W.idx.npy */
    attend_type type, kv_type; /* of the computation */
    bool bshd, packed, paged, additive;
    char *additive_files; /* the value of --additive, cut at its commas */
    int64_t heads[2];     /* of 3-D tensors, queries and keys; 0: not given */
    int64_t page;         /* --block-size */
};

/* The flag that names the file of a tensor, and the name of the tensor in the graph. */
extern const struct sdpa_name {
    const char *flag, *name;
} sdpa_names[SDPA_TENSORS];

/* What the flags of sdpa say, read and bound, handed to `use`, which runs it; NULL: run once and
 * written.  Returns an exit status. */
int sdpa_use(const struct cmd_line *l, int (*use)(void *arg, attend_exec *exec), void *arg);

/* Numbers and words among the flags.  Returns an exit status, and prints what is wrong, as the next
 * one. */
int sdpa_read_flags(struct sdpa *s);
/* The files: read, checked against each other, rounded and converted. */
int sdpa_read_files(struct sdpa *s);
/* Expressions, and the tensors that they index (sdpa_expr.c). */
int sdpa_read_lets(struct sdpa *s);
int sdpa_check_exprs(const struct sdpa *s, const attend_graph *g);
void sdpa_build_lets(attend_graph *g, const struct sdpa *s, attend_capture *capture);
/* Memory for O, in the layout of Q, LSE and weights. */
int sdpa_make_outputs(struct sdpa *s);
int sdpa_make_output(struct sdpa *s, int i, attend_type type, const attend_shape *shape);

/* sdpa_grads.c: what --dout and --grads ask for; `of` are the tensors of the graph by SDPA_TENSORS.
 */
int sdpa_check_grads(struct sdpa *s);
int sdpa_build_grads(attend_graph *g, struct sdpa *s, attend_tensor out, const attend_tensor *of,
                     const attend_capture *lets);
int sdpa_write_grads(const struct sdpa *s);
void sdpa_free_grads(struct sdpa *s);

/* sdpa_weights.c: flags, graph and memory of --weights. */
int sdpa_read_weights(struct sdpa *s);
void sdpa_build_weights(attend_graph *g, const struct sdpa *s, attend_tensor q, attend_tensor k,
                        const attend_attention_opts *o);
int sdpa_make_weights(struct sdpa *s);

#endif
