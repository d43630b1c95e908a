/* SPDX-License-Identifier: MIT */
/* What backends of devices share: the portable kernel text, and the rows that run it (gpu_*.c) on
 * whatever compiles and launches it. */
#ifndef AT_GPU_H
#define AT_GPU_H

#include "backend.h"
#include "expr.h"
#include "kernel_args.h"

#define AT_GPU_BUFFERS 26 /* most of a kernel */

/* The files of backends/portable, and those of cuda.  Each program has the prelude and the argument
 * blocks before them. */
enum at_gpu_file {
    AT_GPU_PRELUDE,
    AT_GPU_ARGS,
    AT_GPU_OPS,
    AT_GPU_GEMM,
    AT_GPU_TILE_CPU,
    AT_GPU_GEMM_CPU,
    AT_GPU_SCORE,
    AT_GPU_ATTN_LOCAL,
    AT_GPU_ATTN_NOLOCAL,
    AT_GPU_ATTN_CPU,
    AT_GPU_ATTN_MERGE,
    AT_GPU_ATTN_DECODE,
    AT_GPU_ATTN_DECODE_CPU,
    AT_GPU_ATTN_UNFUSED,
    AT_GPU_ATTN_WEIGHTS,
    AT_GPU_ATTN_MASK,
    AT_GPU_BACK,
    AT_GPU_ATTN_BACK,
    AT_GPU_ATTN_BACK_CPU,
    AT_GPU_TRAIN,
    AT_GPU_MMA,
    AT_GPU_ATTN_MMA,
    AT_GPU_BACK_MMA,
    AT_GPU_FILES
};
extern const char *const at_gpu_text[AT_GPU_FILES];

/* A program: files in their order, what is defined, and text of the user's expressions. */
struct at_gpu_source {
    unsigned files;      /* 1 << enum at_gpu_file, but for the first two, which are always there */
    char defines[256];   /* "-DDV=64 -DAT_B=0" */
    const char *printed; /* after the argument blocks; NULL: none */
};

struct at_gpu_launch {
    void *kernel;
    const void *args; /* its first argument, by value */
    size_t bytes;
    void *buffer[AT_GPU_BUFFERS]; /* the others; NULL: absent, and not looked at */
    int nbuffer;
    int64_t groups[3];
    int items;           /* of a group */
    int64_t local_bytes; /* of a group, beyond what the text declares */
};

/* c = a b, or a b^T where b is given by rows; offsets and what lies between rows count floats. */
struct at_gpu_gemm {
    int64_t m, n, k;
    void *a, *b, *c;
    int64_t a_at, b_at, c_at, a_row, b_row, c_row;
    bool b_rows, tf32; /* tf32: operands may be rounded to it */
};

/* What a backend does for the rows; device->kernels points to it. */
struct at_gpu {
    enum at_expr_dialect dialect;
    bool cpu;                 /* a work item is a core with vectors */
    int lanes;                /* floats of its vectors */
    bool slow_local;          /* local memory is no faster than the rest */
    int64_t local_bytes;      /* that a group may have */
    int64_t group_items;      /* and items */
    int tensor_cores;         /* of CUDA: the compute capability; 0: none that are used */
    int64_t most_local_bytes; /* where a launch asks for them */
    /* Compiles, or finds what was compiled.  The kernel lives as long as the context. */
    int (*kernel)(const struct at_device *d, const struct at_gpu_source *source, const char *name,
                  void **kernel, struct at_err *e);
    /* Enqueues. */
    int (*launch)(const struct at_device *d, void *stream, const struct at_gpu_launch *l,
                  struct at_err *e);
    /* Products of f32 by a library of others: 0 where it is there, right, and faster than our
     * kernel, else ATTEND_EUNSUPPORTED and why; and one, enqueued.  NULL: of no library. */
    int (*library)(const struct at_device *d, struct at_err *e);
    int (*gemm)(const struct at_device *d, void *stream, const struct at_gpu_gemm *g,
                struct at_err *e);
};
static inline const struct at_gpu *at_gpu_of(const struct at_device *d)
{
    return d->kernels;
}

/* A program's text, but for its defines: malloc'd, or NULL. */
char *at_gpu_program_text(const struct at_gpu_source *source);

/* The shape of v as six axes; its strides along them, 0 where it is broadcast. */
void at_gpu_extents(const struct at_view *v, at_i64 n[6]);
void at_gpu_strides(const struct at_view *v, at_i64 to[6]);

/* Pair number `which` of (O, LSE), its tensors or -1: into a and the buffers of l. */
void at_gpu_merge_pair(struct at_k_merge *a, struct at_gpu_launch *l, const struct attend_exec *x,
                       int which, int o, int lse);

/* The buffer of tensor t of the plan, and where its view begins, in elements or blocks. */
void *at_gpu_buffer(const struct attend_exec *x, int t, int64_t *at);
/* Launches for a step on the exec's stream. */
int at_gpu_run(struct attend_exec *x, const struct at_step *s, const struct at_gpu_launch *l);
/* May a row that is shaped for CPUs have s?  ATTEND_OPENCL_SHAPE can ask for others. */
bool at_gpu_on_cpu(const struct at_step *s, struct at_why *why);
/* The step's number, for the status words; and those. */
int at_gpu_step(const struct attend_exec *x, const struct at_step *s);
void *at_gpu_status(const struct attend_exec *x);

/* Kernels for s, from the files and defines, and the row's own block of the plan: s->packed, its
 * first member.  A name that is NULL has none. */
#define AT_GPU_KERNELS 9
struct at_gpu_kernels {
    void *kernel[AT_GPU_KERNELS];
};
int at_gpu_prepare(attend_plan *plan, struct at_step *s, const struct at_gpu_source *source,
                   const char *const *names, int n, int64_t bytes, struct at_err *e);

/* Does the row of s compute a small problem right with this kernel?  Asked once for each. */
int at_gpu_trial(attend_plan *plan, const struct at_step *s, void *kernel, struct at_err *e);

extern const struct at_row at_gpu_decode_cpu, at_gpu_decode, at_gpu_attn_cpu, at_gpu_attn_mma,
    at_gpu_decode_mma, at_gpu_attn_local, at_gpu_attn_nolocal, at_gpu_unfused, at_gpu_weights;
extern const struct at_row at_gpu_library, at_gpu_matvec_cpu, at_gpu_matmul_cpu, at_gpu_matvec,
    at_gpu_matmul;
extern const struct at_row at_gpu_add, at_gpu_mul, at_gpu_scale, at_gpu_where, at_gpu_select,
    at_gpu_silu, at_gpu_silu_mul, at_gpu_gelu, at_gpu_gelu_tanh, at_gpu_tanh, at_gpu_sigmoid,
    at_gpu_relu, at_gpu_erf, at_gpu_pow, at_gpu_cast, at_gpu_copy, at_gpu_softmax, at_gpu_rms_norm,
    at_gpu_layer_norm, at_gpu_rope, at_gpu_gather, at_gpu_append, at_gpu_concat, at_gpu_merge,
    at_gpu_mask;

extern const struct at_row at_gpu_back_cpu, at_gpu_back_mma, at_gpu_back_local, at_gpu_delta,
    at_gpu_function_grad, at_gpu_clip, at_gpu_pad, at_gpu_sum, at_gpu_square_loss,
    at_gpu_square_loss_grad, at_gpu_cross_entropy, at_gpu_cross_entropy_grad, at_gpu_sgd,
    at_gpu_adamw, at_gpu_softmax_grad, at_gpu_norm_grad, at_gpu_gather_grad, at_gpu_mask_grad,
    at_gpu_merge_grad;

/* All rows, best first, NULL at the end. */
extern const struct at_row *const at_gpu_rows[];

#endif
