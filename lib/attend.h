/* SPDX-License-Identifier: MIT */
/* libattend: attention on whatever this machine has.
 *
 * The order here is the order of use: a context, a graph of operators, a plan for the graph on this
 * machine's devices, an exec that binds buffers and runs.  (One attention of arrays in memory, and
 * no graph: attend_sdpa, below.)
 *
 *     attend_ctx_new(NULL, &ctx);
 *     attend_graph *g = attend_graph_new(ctx);
 *     int64_t S = attend_graph_dim(g, "S", 1, 4096);
 *     attend_tensor q = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(1, 8, S, 64));
 *     ... k and v likewise ...
 *     attend_graph_output(g, "o", attend_graph_attention(g, q, k, v, NULL, NULL));
 *     attend_compile(g, NULL, &plan);
 *     attend_exec_new(plan, &exec);
 *     attend_binding b[] = {{.name = "S", .value = 100},
 *                           {.name = "q", .data = rows, .bytes = sizeof rows}, ... k, v and o};
 *     attend_bind(exec, b, 5);
 *     attend_run(exec);
 *
 * Conventions, for every function unless it says otherwise:
 *   - A function that can fail returns 0 or a negative ATTEND_E... status, leaves its outputs NULL
 *     and its inputs as they were, and keeps one sentence in the object of the call
 *     (attend_graph_error, attend_exec_error, attend_kv_error) or writes it to its err.  Where
 * x_new fails there is no object yet: the status is all.  ATTEND_CHECK marks those whose status
 * must be looked at.
 *   - x_new makes an object on the heap, x_free ends it; freeing NULL is fine.  Free execs before
 *     their plan, plans and graphs before their context.
 *   - Options are a struct that x_opts_init must set up: all of it, and options inside it, to the
 *     defaults (written beside each field).  Then change what you need.  One that was cleared or
 *     filled by hand instead is refused.  NULL instead of options means the defaults.
 *   - Strings and arrays that are passed in are copied, but for the data of constants and bindings,
 *     which are borrowed.
 *   - Sizes and strides are int64_t.  Strides count elements (for block-quantised types: blocks).
 *   - A context and a plan may be shared by threads.  A graph, an exec and a KV cache belong to one
 *     thread at a time.
 *   - (B, H, S, D) after a tensor is its shape: batch, heads, sequence, channels.
 */
#ifndef ATTEND_H
#define ATTEND_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32) && !defined(ATTEND_STATIC)
#    ifdef ATTEND_BUILDING
#        define ATTEND_API __declspec(dllexport)
#    else
#        define ATTEND_API __declspec(dllimport)
#    endif
#elif defined(__GNUC__)
#    define ATTEND_API __attribute__((visibility("default")))
#else
#    define ATTEND_API
#endif
#ifdef __GNUC__
#    define ATTEND_CHECK __attribute__((warn_unused_result))
#else
#    define ATTEND_CHECK
#endif

/* ---- Version and status ------------------------------------------------------------------- */

#define ATTEND_VERSION_MAJOR 0
#define ATTEND_VERSION_MINOR 1

/* "0.1.0": of the library that runs.  Before 1.0 header and library are of one release: structs
 * without a size may change between two. */
ATTEND_API const char *attend_version(void);

enum attend_status {
    ATTEND_OK = 0,
    ATTEND_EINVAL = -1,       /* an argument, shape or type that the call refuses */
    ATTEND_ENOMEM = -2,       /* memory could not be had */
    ATTEND_EIO = -3,          /* a file could not be opened, read or written */
    ATTEND_EFORMAT = -4,      /* a file whose content is wrong */
    ATTEND_ELIMIT = -5,       /* above a limit of this library, named in the sentence */
    ATTEND_EUNSUPPORTED = -6, /* meaningful, but nothing here can do it; the sentence says why */
    ATTEND_ESTATE = -7,       /* the object is in no state for this call (say, a failed exec) */
    ATTEND_ECANCELLED = -8,   /* the caller's cancel flag was seen */
    ATTEND_EDEVICE = -9       /* a device or driver failed */
};

/* "ATTEND_EINVAL" for -1; "ATTEND_E?" for a value that is not a status. */
ATTEND_API const char *attend_status_name(int status);

/* ---- Element types ------------------------------------------------------------------------ */

/* Values are part of the ABI. */
typedef enum attend_type {
    ATTEND_F32 = 0,
    ATTEND_F16 = 1,  /* IEEE 754 binary16 */
    ATTEND_BF16 = 2, /* the upper half of an f32 */
    ATTEND_F64 = 3,  /* inputs of files only; no operator computes in it */
    ATTEND_I8 = 4,
    ATTEND_I32 = 5,
    ATTEND_I64 = 6,
    ATTEND_U8 = 7,
    ATTEND_BOOL = 8, /* one byte, 0 or 1; any other value is read as true */
    ATTEND_Q8_0 = 9, /* 32 elements a block: f16 scale, 32 int8 (GGUF) */
    ATTEND_Q4_0 =
        10, /* 32 elements a block: f16 scale, 32 x 4 bits, value (q - 8) * scale (GGUF) */
    ATTEND_Q4_1 = 11, /* 32 elements a block: f16 scale, f16 minimum, 32 x 4 bits (GGUF) */
    ATTEND_F8 = 12,   /* fp8 e4m3, largest 448, no infinity (OCP OFP8): KV caches, with scales */
    ATTEND_TYPE_COUNT
} attend_type;

/* "f32", "q8_0"; "?" for a value that is not a type. */
ATTEND_API const char *attend_type_name(attend_type type);
/* Elements in a block (1, or 32) and bytes of a block; 0 for a value that is not a type. */
ATTEND_API int64_t attend_type_block(attend_type type);
ATTEND_API size_t attend_type_size(attend_type type);
/* Bytes of n contiguous elements along the last axis (a row of a quantised type is padded to whole
 * blocks), or -1 where n is negative, the type unknown or the result above INT64_MAX. */
ATTEND_API int64_t attend_type_row_bytes(attend_type type, int64_t n);

/* ---- Context ------------------------------------------------------------------------------ */

typedef struct attend_ctx attend_ctx;

/* Memory of the caller's.  alloc returns memory aligned to `align` (a power of two) or NULL. */
typedef struct attend_allocator {
    void *(*alloc)(void *arg, size_t bytes, size_t align);
    void (*free)(void *arg, void *p, size_t bytes);
    void *arg;
} attend_allocator;

/* Threads of the caller's.  parallel_for calls fn(fn_arg, item, slot) once for each item in [0, n),
 * in any order, on any number of threads, and returns when all are done.  Two calls of fn that
 * overlap in time have different slots; 0 <= slot < slots.  It may be called by several threads at
 * once only if slots then still differ, so give each context an executor of its own. */
typedef struct attend_executor {
    void (*parallel_for)(void *arg, int64_t n, void (*fn)(void *fn_arg, int64_t item, int slot),
                         void *fn_arg);
    void *arg;
    int slots;
} attend_executor;

/* What a run did, from `begin` to `end`, in nanoseconds of one clock: a step of the plan as the
 * host walked it, one of its work items (a tile, or a range of rows) as a thread did it, or a step
 * as a device's own clock saw it (OpenCL and CUDA), the copies before it included. */
typedef enum attend_span_kind {
    ATTEND_SPAN_STEP,
    ATTEND_SPAN_ITEM,
    ATTEND_SPAN_DEVICE
} attend_span_kind;
typedef struct attend_span {
    size_t size; /* sizeof(attend_span) of the library: what is new comes at its end */
    attend_span_kind kind;
    int step, thread;     /* of the plan; of items: 0 is the caller's */
    int64_t item;         /* -1: it is no item */
    int64_t begin, end;   /* ns */
    const char *op, *row; /* operator and kernel row, as attend_plan_describe has them */
    const char *device;   /* as attend_device_get names it */
    const char *label;    /* attend_graph_label's, or NULL */
    const void *exec;     /* whose run it is */
} attend_span;

typedef struct attend_ctx_opts {
    size_t size;                /* sizeof(attend_ctx_opts); set by init */
    int threads;                /* 0: ATTEND_THREADS, else the processors this process may use */
    attend_allocator allocator; /* alloc == NULL: the C library's */
    attend_executor executor;   /* parallel_for == NULL: a pool of `threads` owned by the context */
    void (*log)(void *arg, const char *line); /* NULL: nothing is logged */
    void *log_arg;
    /* NULL, or called after each span of every run, by the thread that did it, several at a time;
     * those of a device come when the run is waited for.  Strings live as long as the plan. */
    void (*trace)(void *arg, const attend_span *span);
    void *trace_arg;
} attend_ctx_opts;

/* Sets all fields to the defaults. */
ATTEND_API void attend_ctx_opts_init(attend_ctx_opts *opts);
/* A context: devices, threads, memory.  opts NULL means the defaults.  There is no global state:
 * two contexts share nothing.  On failure *out is NULL and the status says why. */
ATTEND_API int attend_ctx_new(const attend_ctx_opts *opts, attend_ctx **out) ATTEND_CHECK;
/* Its plans and graphs must have been freed. */
ATTEND_API void attend_ctx_free(attend_ctx *ctx);
/* How many threads work in it, the caller's among them. */
ATTEND_API int attend_ctx_threads(const attend_ctx *ctx);

/* A device, present or not.  Strings live as long as the context. */
typedef struct attend_device_info {
    const char *name;   /* what `device` options take: "ref", "simd:avx2" */
    const char *detail; /* what it is, for people */
    int present;        /* 0: cannot be used here; `detail` says why */
    int chosen;         /* 1: what "auto" takes */
} attend_device_info;
/* How many there are, absent ones too: i of attend_device_get is from 0 to below it. */
ATTEND_API int attend_device_count(const attend_ctx *ctx);
/* ATTEND_EINVAL where i is not below the count. */
ATTEND_API int attend_device_get(const attend_ctx *ctx, int i, attend_device_info *out);

/* Makes an OpenCL device work in a context of the caller's, on a queue of the caller's: memory of
 * that context can be bound (on_device of a binding), and what was enqueued before a run is done
 * before it.  context is a cl_context, queue a cl_command_queue that is in order.  One may be NULL:
 * the queue has its context; of a context alone it is the first device, and each exec makes a
 * queue. Both are retained until ctx is freed.  Before the device is first used, else
 * ATTEND_ESTATE. *device is its name, such as "opencl:0", and lives as long as ctx.
 * ATTEND_EUNSUPPORTED: no OpenCL, or not this device; ATTEND_EINVAL, and the log says why: none is
 * given, they do not belong together, or the queue is out of order. */
ATTEND_API int attend_ctx_use_opencl(attend_ctx *ctx, void *context, void *queue,
                                     const char **device) ATTEND_CHECK;
/* Makes CUDA device number `index` work on a stream of the caller's, a CUstream or cudaStream_t
 * (NULL is the default stream): what was enqueued there before a run is done before it.  The
 * context is the device's primary one, that of CUDA's runtime API, whose device pointers can be
 * bound (on_device of a binding).  The stream stays the caller's and must outlive ctx.  Before the
 * device's first plan, else ATTEND_ESTATE.  *device is its name, such as "cuda:0", and lives as
 * long as ctx. ATTEND_EUNSUPPORTED: no such device; ATTEND_EINVAL: the stream is of another
 * context; the log says more. */
ATTEND_API int attend_ctx_use_cuda(attend_ctx *ctx, int index, void *stream,
                                   const char **device) ATTEND_CHECK;

/* ---- Graph: tensors ----------------------------------------------------------------------- */

typedef struct attend_graph attend_graph;

/* A handle, valid for the graph that made it.  {NULL, -1} is "no tensor" (attend_none()): what a
 * failed call returns, and what an unused option holds. */
typedef struct attend_tensor {
    attend_graph *graph;
    int32_t id;
} attend_tensor;

#define ATTEND_MAX_RANK 6

typedef struct attend_shape {
    int rank;
    int64_t dim[ATTEND_MAX_RANK]; /* slowest first */
} attend_shape;

/* ATTEND_SHAPE(2, 8, 128, 64): one to six extents. */
#define ATTEND_NARGS_(a, b, c, d, e, f, n, ...) n
#define ATTEND_NARGS(...) ATTEND_NARGS_(__VA_ARGS__, 6, 5, 4, 3, 2, 1, 0)
#ifdef __cplusplus
#    define ATTEND_SHAPE(...)                                                                      \
        attend_shape                                                                               \
        {                                                                                          \
            ATTEND_NARGS(__VA_ARGS__),                                                             \
            {                                                                                      \
                __VA_ARGS__                                                                        \
            }                                                                                      \
        }
#else
#    define ATTEND_SHAPE(...) ((attend_shape){ATTEND_NARGS(__VA_ARGS__), {__VA_ARGS__}})
#endif

/* An empty graph.  NULL only when memory is out.  Errors are sticky: after the first bad call every
 * later one does nothing and returns no tensor, and attend_compile returns the first error; so user
 * code may stay linear and look once. */
ATTEND_API attend_graph *attend_graph_new(attend_ctx *ctx) ATTEND_CHECK;
/* A graph may be freed once it is compiled. */
ATTEND_API void attend_graph_free(attend_graph *g);
/* The first error ("attention 'l3': q has head size 96 but k has 128"), or "". */
ATTEND_API const char *attend_graph_error(const attend_graph *g);
/* Its status, or 0. */
ATTEND_API int attend_graph_status(const attend_graph *g);

static inline attend_tensor attend_none(void)
{
    attend_tensor t;
    t.graph = NULL;
    t.id = -1;
    return t;
}

/* A named extent that changes from run to run, min <= value <= max, as a value to use in shapes
 * (a negative number that stands for it: no arithmetic on it).  Its value is bound, as buffers are,
 * and one plan serves all values.  The first one declared is the graph's row dimension: plans hold
 * variants for ranges of it. */
ATTEND_API int64_t attend_graph_dim(attend_graph *g, const char *name, int64_t min, int64_t max);

/* Bound before each run; its buffer is read only.  Strides may be given when it is bound. */
ATTEND_API attend_tensor attend_graph_input(attend_graph *g, const char *name, attend_type type,
                                            attend_shape shape);
/* Known now and for ever: weights.  data (contiguous, rows of quantised types in whole blocks) is
 * borrowed and must outlive the plan; it may be a mapped file.  bytes is the size of data, checked.
 */
ATTEND_API attend_tensor attend_graph_const(attend_graph *g, const char *name, attend_type type,
                                            attend_shape shape, const void *data, int64_t bytes);
/* A buffer of the caller's that persists between runs (a KV cache), bound to each exec.  Only
 * attend_graph_append writes it: each write returns the next version of the tensor, and reading a
 * version that has been superseded is an error. */
ATTEND_API attend_tensor attend_graph_state(attend_graph *g, const char *name, attend_type type,
                                            attend_shape shape);
/* Names t as a result, to be bound under that name.  It is written contiguously, or with the
 * strides given when it is bound. */
ATTEND_API void attend_graph_output(attend_graph *g, const char *name, attend_tensor t);
/* Nodes appended from now on carry this label in errors and plans ("l3"), until the next call. */
ATTEND_API void attend_graph_label(attend_graph *g, const char *label);

/* F32 for no tensor. */
ATTEND_API attend_type attend_tensor_type(attend_tensor t);
/* Extents; a dynamic one is the negative value that attend_graph_dim or an operator gave. */
ATTEND_API attend_shape attend_tensor_shape(attend_tensor t);

/* ---- Graph: operators ---------------------------------------------------------------------
 *
 * Broadcasting is NumPy's: right-aligned, extents equal or 1.  Arithmetic is in f32 whatever the
 * stored types; results are f32 unless an operator says otherwise. */

/* c[..., m, n] = sum_k a[..., m, k] * b[..., k, n]; batch axes broadcast.  b may be f32, f16 or
 * bf16. */
ATTEND_API attend_tensor attend_graph_matmul(attend_graph *g, attend_tensor a, attend_tensor b);
/* c[..., m, n] = sum_k a[..., m, k] * b[..., n, k]: b by rows, as weights of linear layers are
 * kept. b may also be q8_0, q4_0 or q4_1; it is read as its dequantised values. */
ATTEND_API attend_tensor attend_graph_matmul_nt(attend_graph *g, attend_tensor a, attend_tensor b);

/* a + b, and a * b, element by element. */
ATTEND_API attend_tensor attend_graph_add(attend_graph *g, attend_tensor a, attend_tensor b);
ATTEND_API attend_tensor attend_graph_mul(attend_graph *g, attend_tensor a, attend_tensor b);
/* a * factor */
ATTEND_API attend_tensor attend_graph_scale(attend_graph *g, attend_tensor a, float factor);
/* cond ? a : other; cond is bool and broadcasts with a, other is a number (-INFINITY hides scores)
 */
ATTEND_API attend_tensor attend_graph_where(attend_graph *g, attend_tensor cond, attend_tensor a,
                                            float other);
/* cond ? a : b, all three broadcasting; what is not taken may be NaN */
ATTEND_API attend_tensor attend_graph_select(attend_graph *g, attend_tensor cond, attend_tensor a,
                                             attend_tensor b);
/* Along the last axis.  A row that is all -inf gives zeros. */
ATTEND_API attend_tensor attend_graph_softmax(attend_graph *g, attend_tensor a);

/* y = a / sqrt(mean(a^2) + eps) * weight, over the last axis (Zhang & Sennrich 2019).  weight: f32,
 * f16 or bf16 [D], or no tensor. */
ATTEND_API attend_tensor attend_graph_rms_norm(attend_graph *g, attend_tensor a,
                                               attend_tensor weight, float eps);
/* y = (a - mean) / sqrt(variance + eps) * weight + bias, over the last axis (Ba et al. 2016).
 * weight and bias: [D], or no tensor. */
ATTEND_API attend_tensor attend_graph_layer_norm(attend_graph *g, attend_tensor a,
                                                 attend_tensor weight, attend_tensor bias,
                                                 float eps);
/* Element by element: a / (1 + exp(-a)) (Elfwing et al. 2018). */
ATTEND_API attend_tensor attend_graph_silu(attend_graph *g, attend_tensor a);
/* a * Phi(a), by erf; and its tanh approximation (Hendrycks & Gimpel 2016) */
ATTEND_API attend_tensor attend_graph_gelu(attend_graph *g, attend_tensor a);
ATTEND_API attend_tensor attend_graph_gelu_tanh(attend_graph *g, attend_tensor a);
/* Element by element, as in <math.h>; sigmoid is 1 / (1 + exp(-a)), relu max(a, 0). */
ATTEND_API attend_tensor attend_graph_tanh(attend_graph *g, attend_tensor a);
ATTEND_API attend_tensor attend_graph_sigmoid(attend_graph *g, attend_tensor a);
ATTEND_API attend_tensor attend_graph_relu(attend_graph *g, attend_tensor a);
ATTEND_API attend_tensor attend_graph_erf(attend_graph *g, attend_tensor a);
/* a to a power that is a number: -1 for a reciprocal, 0.5 for a root. */
ATTEND_API attend_tensor attend_graph_pow(attend_graph *g, attend_tensor a, float exponent);

/* Rotary position embedding (Su et al. 2021) of a (B, H, S, D) by positions: int32 (S) or (B, S).
 * pairing has no default: HALF rotates (d, d + dims/2), INTERLEAVED rotates (2d, 2d + 1).
 * dims: how many leading channels are rotated, even, 0 = D.  Angle of pair p: pos *
 * base^(-2p/dims), divided by factors[p] (f32 [dims/2]) where that tensor is given. */
typedef enum attend_rope_pairing {
    ATTEND_ROPE_HALF = 1,
    ATTEND_ROPE_INTERLEAVED = 2
} attend_rope_pairing;
typedef struct attend_rope_opts {
    size_t size;
    attend_rope_pairing pairing; /* must be set */
    int64_t dims;                /* 0 */
    float base;                  /* 10000 */
    attend_tensor factors;       /* none */
} attend_rope_opts;
/* Sets all fields to the defaults, which leave pairing unset. */
ATTEND_API void attend_rope_opts_init(attend_rope_opts *opts);
/* a (B, H, S, D), rotated: f32 of its shape. */
ATTEND_API attend_tensor attend_graph_rope(attend_graph *g, attend_tensor a,
                                           attend_tensor positions, const attend_rope_opts *opts);

/* Rows of table (N, D) by index: out[..., :] = table[index[...], :], f32.  table may be quantised.
 * An index outside [0, N) fails the run with its value and place. */
ATTEND_API attend_tensor attend_graph_gather(attend_graph *g, attend_tensor table,
                                             attend_tensor index);
/* Writes rows (B, G, S, D) into the state pool (P, G, page, D): row (b, :, s) goes to slot
 * slots[b, s] = p * page + r, slots int32 (B, S); -1 writes nothing.  Converts to the type of the
 * state.  Returns the next version of the state.  A slot outside fails the run; rows with equal
 * slots may mix.
 *
 * A pool with an entry a sequence, as long as a sequence can get, is a plain KV cache (B, G, most,
 * D): position s of sequence b is slot b * most + s, and attention to the next version wants
 * kv_used, the lengths after this write, and no block_table.  One plan with a dynamic S, causal and
 * ATTEND_BOTTOM_RIGHT serves prompts and single tokens. */
ATTEND_API attend_tensor attend_graph_append(attend_graph *g, attend_tensor state,
                                             attend_tensor rows, attend_tensor slots);
/* The same into an f8 state, of rows / scale[p, g]; scale is f32 (P, G), or (1, G) for all pages.
 * What passes 448 after that is stored as 448. */
ATTEND_API attend_tensor attend_graph_append_scaled(attend_graph *g, attend_tensor state,
                                                    attend_tensor rows, attend_tensor slots,
                                                    attend_tensor scale);
/* The parts one after the other along an axis: one type, other axes of equal extents. */
ATTEND_API attend_tensor attend_graph_concat(attend_graph *g, const attend_tensor *parts, int n,
                                             int axis);
/* Rounds to nearest even; between floating types only. */
ATTEND_API attend_tensor attend_graph_cast(attend_graph *g, attend_tensor a, attend_type type);

/* In the place of one extent of a reshape: what the others leave. */
#define ATTEND_INFER INT64_MIN
/* Views, of any type: no copy by themselves.  reshape: the same number of elements in the same
 * order. */
ATTEND_API attend_tensor attend_graph_reshape(attend_graph *g, attend_tensor a, attend_shape shape);
/* Axis d of the result is axis perm[d] of a. */
ATTEND_API attend_tensor attend_graph_permute(attend_graph *g, attend_tensor a, const int *perm);
/* Elements [start, start + length) of an axis.  Quantised types: only at multiples of 32 in the
 * last axis. */
ATTEND_API attend_tensor attend_graph_slice(attend_graph *g, attend_tensor a, int axis,
                                            int64_t start, int64_t length);
/* Repeats axes of extent 1, without memory. */
ATTEND_API attend_tensor attend_graph_expand(attend_graph *g, attend_tensor a, attend_shape shape);

/* ---- Graph: attention --------------------------------------------------------------------- */

/* How row i of a sequence's queries stands to its keys: `off` is 0 (TOP_LEFT), or Skv_b - Sq_b
 * (BOTTOM_RIGHT), Skv_b being the used length where one is given; it may be negative and is not
 * clamped.  Unset is an error as soon as causal, window or alibi is used and Sq_b differs from
 * Skv_b: when the node is made, or when dynamic extents are bound. */
typedef enum attend_align {
    ATTEND_ALIGN_UNSET = 0,
    ATTEND_TOP_LEFT = 1,
    ATTEND_BOTTOM_RIGHT = 2
} attend_align;

/* What is visible, of which all conditions intersect. */
typedef struct attend_mask_opts {
    size_t size;
    int causal;                        /* key j visible to row i only when j <= i + off */
    attend_align align;                /* what off is */
    int64_t window_left, window_right; /* i + off - left <= j <= i + off + right; -1: open */
    attend_tensor mask; /* bool (true: visible) or float (added), broadcasts to (B, H, Sq, Skv) */
    attend_tensor kv_used;  /* int32 (B): keys j >= kv_used[b] are hidden; 0 <= kv_used[b] <= Skv */
    attend_tensor q_offset; /* int32 (B): off itself, instead of align */
} attend_mask_opts;
/* Nothing is hidden. */
ATTEND_API void attend_mask_opts_init(attend_mask_opts *opts);

/* Scores (B, H, Sq, Skv) with what is hidden set to -inf and a float mask added: the mask of a
 * composed attention, matmul_nt -> scale -> mask -> softmax -> matmul.  Such a chain becomes one
 * attention when the graph is compiled, and then no (Sq, Skv) matrix exists. */
ATTEND_API attend_tensor attend_graph_mask(attend_graph *g, attend_tensor scores,
                                           const attend_mask_opts *opts);

/* A tensor that expressions index by a name: letters, digits and _, no word of the language. */
typedef struct attend_capture {
    const char *name;
    attend_tensor tensor; /* 1 to 4 axes */
} attend_capture;

/* Attention, in this order: s = scale * q . k in f32, softcap * tanh(s / softcap), ALiBi
 * -slope[h] * |i + off - j|, float mask, score expression; then the masks hide; then softmax with
 * the sink's logit in the denominator; then the weighted sum of v.  A row with nothing visible
 * gives O = 0 and LSE = -inf (the sink's logit where there is one).  Hidden keys and values may
 * hold anything, NaN too, and never show.  (Vaswani et al. 2017; Dao et al. 2022 for the method;
 * ALiBi: Press et al. 2022; FlashAttention's conventions for alignment and LSE; additive scores:
 * Bahdanau et al. 2015.)
 *
 * Dropout keeps weight (b, h, i, j) where word j % 4 of Philox 4x32-10 (Salmon et al. 2011) under
 * key `seed` and counter {j / 4, i, b * H + h, offset + draw[0]} is at least floor(p * 2^32): the
 * same ones on every device, forward and backward; b, i and j are those of the sequence. */
typedef struct attend_attention_opts {
    size_t size;
    attend_mask_opts mask;
    float scale;           /* NaN: 1 / sqrt(Dqk), additive 1 */
    float softcap;         /* 0: none */
    attend_tensor alibi;   /* f32 (H): slopes */
    attend_tensor sinks;   /* f32 (H): logits */
    attend_tensor q_lens;  /* int32 (N + 1), exclusive prefix sums: packed sequences, q (T, H, D) */
    attend_tensor kv_lens; /* int32 (N + 1): of k and v, (T, G, D); both or neither */
    attend_tensor block_table;      /* int32 (B, pages of a sequence): k and v are paged, below */
    attend_tensor k_scale, v_scale; /* f32 (P, G) or (1, G): k and v are times these, below */
    const char *score;              /* an expression that replaces the score; NULL: none */
    const char *mask_expr; /* a condition: key j is visible to row i where it holds; NULL: none */
    const attend_capture *captures; /* what the two index; at most 8 */
    int ncaptures;
    attend_tensor additive; /* f32 (Dqk): va of s = scale * va . tanh(q + k), in place of q . k */
    float dropout; /* 0: none; p < 1: the weights that are left are times 1 / (1 - p), LSE stays */
    uint32_t
        offset; /* of the random bits, with seed: another for each layer and step of training */
    uint64_t seed;
    attend_tensor layout; /* block-sparse: bool (B, H, blocks of rows, blocks of keys), where the
                           * first two may be 1 or absent: key j is visible to row i of its sequence
                           * only where layout[b, h, i / layout_rows, j / layout_keys] */
    int64_t layout_rows, layout_keys; /* of a block: 64 */
    attend_tensor draw; /* int32 (1): added to `offset` when it is bound, so that a plan that was
                         * compiled once draws anew in each step of training */
} attend_attention_opts;
/* Sets all fields to the defaults: nothing is hidden, scale 1 / sqrt(Dqk), and no tensors. */
ATTEND_API void attend_attention_opts_init(attend_attention_opts *opts);

/* Expressions are C's, over score, b, h, i, j, sq, skv (of the sequence: i and j count from its
 * first row and key) and captured tensors NAME[e, ...]:
 *
 *     mask_expr = "doc[i] == doc[j] && j <= i"          score = "score + bias[h, i - j + 128]"
 *
 *   - ?:  ||  &&  == !=  < <= > >=  + -  * / %  - !  numbers  true  false  inf;
 *     abs(x) min(x, y) max(x, y); in scores also float exp log sqrt tanh floor.
 *   - A mask expression is made of integers and conditions alone, so that all devices agree on
 * every key, and so that whole blocks of keys are left out without looking at their points.
 *   - Integers are 64-bit and wrap.  / and % of integers floor; by 0 they give 0.  With a float
 * beside it an integer becomes one, an f32.
 *   - A tensor indexed outside its extents is 0, or false.  bool tensors are conditions.
 *   - 4096 bytes, 512 operations and a nesting of 64 at most.
 *
 * They can be made by calls, too.  Each gives text that lives as long as the graph, for the options
 * above and for further calls; any text may be an argument.  After an error, which the graph keeps,
 * and of an argument that is NULL they give NULL. */
ATTEND_API const char *attend_expr_int(attend_graph *g, int64_t value);
ATTEND_API const char *attend_expr_float(attend_graph *g, double value);
/* op of n arguments: "-" or "!" of one; "+", "<=", "&&" ... of two; "?:" of three; a function by
 * its name; a captured tensor by its name, of its indices. */
ATTEND_API const char *attend_expr_call(attend_graph *g, const char *op, const char *const *args,
                                        int n);
/* q (B, H, Sq, Dqk), k (B, G, Skv, Dqk), v (B, G, Skv, Dv) -> f32 (B, H, Sq, Dv).  H % G == 0 and
 * head h reads group h / (H / G).  1 <= Dqk, Dv <= 576.  Types f32, f16, bf16; k and v of one type.
 * opts NULL: the defaults.  lse, where not NULL, receives f32 (B, H, Sq) (packed: (H, T)), natural
 * logarithm.
 *
 * k and v may also be q8_0 or q4_0, read as their dequantised values, or f8, read as value *
 * scale[p, g], where p is the entry of axis 0 of k and v (a page of a pool); without k_scale,
 * v_scale that is 1.
 *
 * Paged: with block_table, k is a pool (P, G, page, Dqk) and v (P, G, page, Dv), and key j of
 * sequence b is row j % page of pool entry block_table[b, j / page].  kv_used must be given.
 * Entries that no visible key needs are not looked at; one that is needed must be in [0, P).  A
 * cache of one page per sequence is contiguous; a ring is a table whose entries come again, under a
 * window that has left them.  q may be packed (q_lens alone). */
ATTEND_API attend_tensor attend_graph_attention(attend_graph *g, attend_tensor q, attend_tensor k,
                                                attend_tensor v, const attend_attention_opts *opts,
                                                attend_tensor *lse);

/* The weights p = exp(s - lse) of an attention, from its q, k and options: all of them, or what
 * fits in memory where Sq x Skv does not.  A weight is 0 where the key is hidden; a row sums to 1,
 * to less with a sink, and to 0 where nothing is visible.  Dropout is not applied.  For some heads,
 * give slices of q and k.
 *
 * lse: none, then scores are made twice, and rows divided by their own sums, which is accurate
 * however large scores are.  Or an LSE (B, H, Sq) of these keys, which saves the first time, or of
 * these and others (attend_graph_merge); then weights share a factor of 1 +- |lse| 2^-22.
 *
 * Of packed sequences there is no axis B, rows are those of q, and keys those of k: (H, T, Tk), 0
 * between sequences; over pages they are those of the row's sequence.  A pool (N, H, rows, cols)
 * has a map of each of the N sequences, of its keys in use, and columns of pages are (N, H, Skv).
 */
typedef enum attend_weights_mode {
    ATTEND_WEIGHTS_DENSE = 0,   /* (B, H, Sq, Skv) */
    ATTEND_WEIGHTS_ROWS = 1,    /* of rows first <= i < end: (B, H, end - first, Skv) */
    ATTEND_WEIGHTS_COLUMNS = 2, /* sums over the rows, (B, H, Skv): what each key is given in all */
    ATTEND_WEIGHTS_TOPK =
        3, /* (B, H, Sq, k): the largest k of each row, falling, equal ones by key */
    ATTEND_WEIGHTS_POOL = 4 /* (B, H, rows, cols): a map of rows x cols cells, below */
} attend_weights_mode;
typedef struct attend_weights_opts {
    size_t size;
    attend_weights_mode mode;
    int64_t first, end; /* of ROWS */
    int64_t k;          /* of TOPK, at most 65536 */
    int64_t rows, cols; /* of POOL: cell (r, c) has rows from floor(r Sq / rows) up to those of cell
                         * r + 1, and keys likewise; it holds the sum over its keys of the mean over
                         * its rows, so that a row of cells sums to what a row of weights does */
} attend_weights_opts;
/* All the weights (DENSE). */
ATTEND_API void attend_weights_opts_init(attend_weights_opts *opts);
/* index, where not NULL, receives int32 (B, H, Sq, k), the keys of TOPK, and none in other modes.
 * Where a row sees fewer keys, the rest is 0 and -1. */
ATTEND_API attend_tensor attend_graph_attention_weights(attend_graph *g, attend_tensor q,
                                                        attend_tensor k, attend_tensor lse,
                                                        const attend_attention_opts *opts,
                                                        const attend_weights_opts *kept,
                                                        attend_tensor *index);

/* Additive attention (Bahdanau et al. 2015), with its projections: scores va . tanh(wq q + wk k).
 * q (B, Sq, Dq), k (B, Skv, Dk), v (B, Skv, Dv), wq (A, Dq), wk (A, Dk), va (A) -> f32 (B, Sq, Dv),
 * lse (B, 1, Sq).  With packed sequences q (T, Dq), k (T, Dk), v (T, Dv), and lse (1, T).
 * opts->additive is not looked at; scale is 1 where it is not given.  No B x Sq x Skv x A values
 * are ever in memory. */
ATTEND_API attend_tensor attend_graph_additive_attention(
    attend_graph *g, attend_tensor q, attend_tensor k, attend_tensor v, attend_tensor wq,
    attend_tensor wk, attend_tensor va, const attend_attention_opts *opts, attend_tensor *lse);

/* Two attentions of the same queries over different keys, (..., D) and their LSE (...), as if all
 * keys had been there at once; neither may have had a sink but one.  A side that saw nothing (LSE
 * -inf) adds nothing.  So a prefix that sequences share is read once: attend to it with the rows of
 * all of them, and merge.  lse, where not NULL, receives the LSE of both. */
ATTEND_API attend_tensor attend_graph_merge(attend_graph *g, attend_tensor o1, attend_tensor lse1,
                                            attend_tensor o2, attend_tensor lse2,
                                            attend_tensor *lse);

/* Multi-head attention with its projections (Vaswani et al. 2017), the layer: x (B, Sq, E), or
 * packed (T, E), to wo . heads(attention(wq x, wk c, wv c)), where c is `context` (B, Skv, Ec), or
 * x where that is no tensor.  Weights have a row an output, as linear layers keep them; any float
 * or quantised type that attend_graph_matmul_nt takes.  Biases may be absent, and so may wo: heads
 * are then side by side. */
typedef struct attend_multi_head_opts {
    size_t size;
    int64_t heads, kv_heads; /* kv_heads 0: as many as heads */
    attend_tensor wq, wk, wv, bq, bk,
        bv; /* (H Dqk, E), (G Dqk, Ec), (G Dv, Ec), and as many biases */
    attend_tensor wqkv,
        bqkv; /* or fused, of x alone: ((H + 2 G) D, E), the rows of q, then of k, then v */
    attend_tensor wo, bo;                   /* (Eo, H Dv), (Eo) */
    const attend_attention_opts *attention; /* NULL: the defaults */
} attend_multi_head_opts;
/* No tensors and no heads: both must be set. */
ATTEND_API void attend_multi_head_opts_init(attend_multi_head_opts *opts);
/* f32 (B, Sq, Eo), or packed (T, Eo).  lse as of attend_graph_attention. */
ATTEND_API attend_tensor attend_graph_multi_head(attend_graph *g, attend_tensor x,
                                                 attend_tensor context,
                                                 const attend_multi_head_opts *opts,
                                                 attend_tensor *lse);

/* ---- Training -----------------------------------------------------------------------------
 *
 * A step of training is one graph: the model, its loss, attend_grad, and an optimiser for each
 * state that holds weights. */

/* a summed (or its mean) until it has `shape`: right-aligned, each extent that of a or 1; rank 0:
 * one number. */
ATTEND_API attend_tensor attend_graph_sum(attend_graph *g, attend_tensor a, attend_shape shape);
ATTEND_API attend_tensor attend_graph_mean(attend_graph *g, attend_tensor a, attend_shape shape);
/* The mean over rows of -ln softmax(logits)[target]: logits (..., V), targets int32 (...), one
 * number. A row whose target is negative does not count; one at V or above fails the run.  No row:
 * 0. */
ATTEND_API attend_tensor attend_graph_cross_entropy(attend_graph *g, attend_tensor logits,
                                                    attend_tensor targets);
/* mean (a - b)^2, of equal shapes: one number. */
ATTEND_API attend_tensor attend_graph_square_loss(attend_graph *g, attend_tensor a,
                                                  attend_tensor b);

typedef struct attend_grad_opts {
    size_t size;
    int fuse;      /* 1: composed attention becomes attention first, so both have one gradient */
    int recompute; /* 0; 1: what the backward graph reads of the forward one is computed again, from
                    * inputs and from `keep`, say the input of each layer: time for memory */
    const attend_tensor *keep;
    int nkeep;
} attend_grad_opts;
/* Sets all fields to the defaults. */
ATTEND_API void attend_grad_opts_init(attend_grad_opts *opts);
/* Appends the backward graph: grads[i] is the gradient of inputs[i], f32 of its shape, of the sum
 * over outputs of seed * output.  seeds[i] has the shape of outputs[i]; none (or seeds NULL): 1,
 * for an output of one number.  inputs are any float tensors of the graph, states too as long as
 * nothing wrote them; one that no output depends on has zeros.  Where a row of attention sees
 * nothing, and where dropout dropped, gradients are 0.  An operator without a gradient on the way
 * (writing a state; quantised weights, paged or quantised keys) is an error that names the node. */
ATTEND_API int attend_grad(attend_graph *g, const attend_tensor *outputs,
                           const attend_tensor *seeds, int noutputs, const attend_tensor *inputs,
                           int ninputs, attend_tensor *grads, const attend_grad_opts *opts);

/* The factor, at most 1, that brings the norm of all gradients together to at most `most`: for the
 * option of the optimisers. */
ATTEND_API attend_tensor attend_graph_clip(attend_graph *g, const attend_tensor *grads, int n,
                                           float most);
typedef struct attend_update_opts {
    size_t size;
    float momentum;     /* sgd: 0 */
    float weight_decay; /* 0; sgd adds it to the gradient, adamw takes rate * it off the weights */
    float beta1, beta2; /* adamw: 0.9, 0.999 */
    float eps;          /* adamw: 1e-8 */
    attend_tensor factor; /* of all gradients, from attend_graph_clip; or none */
} attend_update_opts;
/* Sets all fields to the defaults. */
ATTEND_API void attend_update_opts_init(attend_update_opts *opts);
/* Optimisers write f32 states and return the next version of the weights.  Gradient: f32 of their
 * shape; rate and step (counted from 1) are f32 of rank 0, inputs that may differ from run to run.
 * sgd: v = momentum v + gradient + decay w, w -= rate v; velocity may be none, then v is not kept.
 * adamw: Loshchilov & Hutter 2019, with states for the first and second moment, 0 at the beginning.
 */
ATTEND_API attend_tensor attend_graph_sgd(attend_graph *g, attend_tensor weights,
                                          attend_tensor velocity, attend_tensor grad,
                                          attend_tensor rate, const attend_update_opts *opts);
ATTEND_API attend_tensor attend_graph_adamw(attend_graph *g, attend_tensor weights,
                                            attend_tensor first, attend_tensor second,
                                            attend_tensor grad, attend_tensor rate,
                                            attend_tensor step, const attend_update_opts *opts);

/* ---- KV cache: pages -----------------------------------------------------------------------
 *
 * Which page of a pool (P, G, page, D) holds which keys of which sequence.  This is bookkeeping on
 * the host, above the graph: it touches no tensor.  For each sequence attend_kv_open, and before
 * each run
 *
 *     attend_kv_extend    the slots of the new rows, for attend_graph_append
 *     attend_kv_copies    pages to copy: by you, in the buffers of K's and of V's pool
 *     attend_kv_table     the sequence's row of block_table
 *     attend_kv_length    its kv_used, the new rows included
 *     attend_bind         which reads table and lengths
 *
 * and attend_kv_close in the end.  Errors are read by attend_kv_error.  One thread at a time. */

typedef struct attend_kv attend_kv;

/* A pool of `pages` pages of `page` keys; sequences have at most `width` pages each (the width of
 * the block table), and there are at most `sequences` at a time. */
ATTEND_API int attend_kv_new(attend_ctx *ctx, int64_t pages, int64_t page, int64_t sequences,
                             int64_t width, attend_kv **out) ATTEND_CHECK;
/* Ends it and all its sequences. */
ATTEND_API void attend_kv_free(attend_kv *kv);
/* The sentence of the last failed call on it, or "". */
ATTEND_API const char *attend_kv_error(const attend_kv *kv);
/* An empty sequence: its number, 0 <= number < sequences, or a negative status. */
ATTEND_API int attend_kv_open(attend_kv *kv) ATTEND_CHECK;
/* A sequence with the keys of another, which share their pages until one of them writes; as
 * attend_kv_open. */
ATTEND_API int attend_kv_fork(attend_kv *kv, int seq) ATTEND_CHECK;
/* Ends a sequence; pages that nobody else has are free again. */
ATTEND_API void attend_kv_close(attend_kv *kv, int seq);
/* Room for n more keys: slots[n] for append, and the sequence is n longer.  A shared page that
 * would be written is replaced by a copy, which attend_kv_copies then asks for.  On failure (no
 * free page, or the table is full) nothing has changed, and it may be tried again. */
ATTEND_API int attend_kv_extend(attend_kv *kv, int seq, int64_t n, int32_t *slots) ATTEND_CHECK;
/* Cuts a sequence to `length` keys, say after a draft was refused. */
ATTEND_API int attend_kv_truncate(attend_kv *kv, int seq, int64_t length) ATTEND_CHECK;
/* Gives back the pages all of whose keys are before `first`: for windows.  Positions stay. */
ATTEND_API int attend_kv_forget(attend_kv *kv, int seq, int64_t first) ATTEND_CHECK;
/* Copies to do before the next run: page copies[2i] of the pool to page copies[2i + 1].  Returns
 * how many, and forgets them; at most `room` are given at a time. */
ATTEND_API int64_t attend_kv_copies(attend_kv *kv, int32_t *copies, int64_t room);
/* Keys of a sequence; 0 where there is none. */
ATTEND_API int64_t attend_kv_length(const attend_kv *kv, int seq);
/* Pages that no sequence has. */
ATTEND_API int64_t attend_kv_free_pages(const attend_kv *kv);
/* Row of the block table: `width` entries, -1 where there is no page. */
ATTEND_API int attend_kv_table(const attend_kv *kv, int seq, int32_t *row) ATTEND_CHECK;

/* ---- Plan --------------------------------------------------------------------------------- */

typedef struct attend_plan attend_plan;

/* What a kernel may do to products, if it is faster: exact: nothing (they are of the stored types,
 * and sums are f32); tf32: f32 operands rounded to 10 bits; int8: activations that meet quantised
 * weights rounded to 8 bits for each 32 of a row; f16_p: attention's weights in f16, or in
 * bf16 where values are.  A kernel may be more exact than it is asked to be.  The plan says which
 * kernels do what. */
typedef enum attend_precision {
    ATTEND_EXACT = 0,
    ATTEND_TF32 = 1,
    ATTEND_INT8 = 2,
    ATTEND_F16_P = 3
} attend_precision;

typedef struct attend_compile_opts {
    size_t size;
    const char *device; /* "auto", or a name as attend_device_get gives: "ref", "simd:avx2" */
    int deterministic;  /* 1: a row's bits depend neither on threads nor on the rows beside it;
                         * slower.  By  default what ATTEND_DETERMINISTIC says, else 0 */
    int fuse;           /* 1; 0 keeps composed attention as it was written, for comparison */
    attend_precision precision; /* exact */
} attend_compile_opts;
/* Sets all fields to the defaults: device "auto". */
ATTEND_API void attend_compile_opts_init(attend_compile_opts *opts);

/* Lowers g for the devices of its context.  *out is immutable, may be shared by threads (an exec
 * each) and owns all it needs but the data of constants; g may be freed.  On failure *out is NULL
 * and attend_graph_error(g) names the node. */
ATTEND_API int attend_compile(attend_graph *g, const attend_compile_opts *opts,
                              attend_plan **out) ATTEND_CHECK;
/* Its execs must have been freed. */
ATTEND_API void attend_plan_free(attend_plan *plan);

typedef enum attend_format { ATTEND_TEXT = 0, ATTEND_JSON = 1, ATTEND_DOT = 2 } attend_format;
/* The plan for people and programs: each step with its kernel, device, why better kernels refused,
 * flops, bytes; fusions; memory.  A string to free with attend_free, or NULL when memory is out. */
ATTEND_API char *attend_plan_describe(const attend_plan *plan, attend_format format);
/* Frees what this library allocated for the caller: strings and arrays.  NULL is fine. */
ATTEND_API void attend_free(void *p);
/* Steps of the variant that serves `rows` of the row dimension, and bytes of its arena. */
ATTEND_API int attend_plan_steps(const attend_plan *plan, int64_t rows);
ATTEND_API int64_t attend_plan_arena_bytes(const attend_plan *plan, int64_t rows);

/* ---- Exec --------------------------------------------------------------------------------- */

typedef struct attend_exec attend_exec;

/* What changes from run to run: arena, bindings, schedule, status. */
ATTEND_API int attend_exec_new(attend_plan *plan, attend_exec **out) ATTEND_CHECK;
/* Its bound memory is the caller's again. */
ATTEND_API void attend_exec_free(attend_exec *exec);
/* The sentence of the last failed call on this exec, or "". */
ATTEND_API const char *attend_exec_error(const attend_exec *exec);

/* One thing that a run needs: a buffer for an input, state or output, or the value of a dimension.
 */
typedef struct attend_binding {
    const char *name;
    void *data;            /* borrowed until another is bound or the exec is freed */
    int64_t bytes;         /* size of data; less than this run's shape needs is an error */
    const int64_t *stride; /* inputs and outputs: one a axis; NULL = contiguous, in the extents of
                            * this run and not in the largest ones; the last is 1 */
    int64_t value;         /* of a dimension, where data is NULL */
    int on_device; /* data is memory of the plan's device from byte `value` on: a cl_mem, or a CUDA
                    * pointer that is a multiple of 16 */
} attend_binding;

/* Sets what is named, keeps what is not, and schedules what changed.  It reads and checks lengths
 * (kv_used, q_lens, kv_lens), q_offset, block_table, bool masks, layouts, and tensors that mask
 * expressions index: after changing the contents of one of these call it again, with n = 0 if
 * nothing else changed, or the next run goes by what they were.  All other buffers are read by the
 * run.  Buffers that are written may not overlap others.  On failure the exec keeps its old
 * bindings and cannot run until a bind succeeds; one with n = 0 goes back to those. */
ATTEND_API int attend_bind(attend_exec *exec, const attend_binding *binds, int n) ATTEND_CHECK;
/* Runs the plan on what is bound, and waits.  Allocates nothing.  After a failure outputs are
 * unspecified and states may be partly written. */
ATTEND_API int attend_run(attend_exec *exec) ATTEND_CHECK;
/* A flag that the run looks at between steps and work items, borrowed; NULL: none.  Setting it to
 * nonzero from any thread ends the run with ATTEND_ECANCELLED. */
ATTEND_API void attend_exec_cancel(attend_exec *exec, const volatile int *flag);

/* A run that was submitted. */
typedef struct attend_fence {
    attend_exec *exec;
    uint64_t run;
} attend_fence;
/* attend_submit enqueues a run and attend_wait waits for it; attend_run is both.  On CPUs submit
 * does the work itself.  Until wait returns, bound memory belongs to the run. */
ATTEND_API int attend_submit(attend_exec *exec, attend_fence *fence) ATTEND_CHECK;
ATTEND_API int attend_wait(attend_fence fence) ATTEND_CHECK;

/* ---- Files -------------------------------------------------------------------------------- */

/* An array in memory, contiguous; bytes is the size of data. */
typedef struct attend_array {
    attend_type type;
    attend_shape shape;
    void *data;
    int64_t bytes;
} attend_array;
/* Reads a .npy file (NumPy's format, versions 1 to 3, C order, little endian; types f16, f32, f64,
 * i8, i32, i64, u8, bool, and u16 read as bf16).  out->data is allocated (attend_free).  err, where
 * errlen > 0, receives a sentence that names the file. */
ATTEND_API int attend_npy_read(const char *path, attend_array *out, char *err,
                               size_t errlen) ATTEND_CHECK;
/* Writes beside path and renames: the file is whole, or as it was.  bf16 is written as u16. */
ATTEND_API int attend_npy_write(const char *path, const attend_array *a, char *err,
                                size_t errlen) ATTEND_CHECK;
/* dst[i] = src[i] for n elements between any of f32, f16, bf16, f64 and from integers; quantised
 * types are whole rows of n.  Rounds to nearest even. */
ATTEND_API int attend_convert(attend_type dst_type, void *dst, attend_type src_type,
                              const void *src, int64_t n) ATTEND_CHECK;

/* ---- One attention at once ----------------------------------------------------------------- */

/* For a caller with arrays and no graph: o = attention of q, k, v (B, H, S, D), as
 * attend_graph_attention, built, run and forgotten.  mask: bool or float, broadcast to (B, H, Sq,
 * Skv), or NULL.  opts: the defaults where NULL; its tensors must be none.  o->data NULL: it is
 * allocated (attend_free) and type and shape are set; otherwise o must be f32 (B, H, Sq, Dv).  err,
 * where errlen > 0, receives the sentence of a failure.  Whoever does the same again is faster with
 * a plan. */
ATTEND_API int attend_sdpa(attend_ctx *ctx, const attend_array *q, const attend_array *k,
                           const attend_array *v, const attend_array *mask,
                           const attend_attention_opts *opts, attend_array *o, char *err,
                           size_t errlen) ATTEND_CHECK;

/* ---- DLPack ---------------------------------------------------------------------------------
 *
 * The structures by which array libraries (NumPy, PyTorch, CuPy, JAX) hand each other memory
 * without a copy: the ABI of DLPack's DLTensor and DLManagedTensor (https://dmlc.github.io/dlpack),
 * declared here so that nothing else is needed; cast pointers to those. */
typedef struct attend_dl_tensor {
    void *data;
    int32_t device_type, device_id; /* 1: memory of the CPU */
    int32_t ndim;
    uint8_t code, bits; /* code 0: int, 1: unsigned, 2: float, 4: bfloat, 6: bool */
    uint16_t lanes;     /* 1 */
    int64_t *shape;
    int64_t *strides; /* elements; NULL: contiguous */
    uint64_t byte_offset;
} attend_dl_tensor;
typedef struct attend_dl_managed {
    attend_dl_tensor tensor;
    void *manager;
    void (*deleter)(struct attend_dl_managed *self); /* called by who takes it, when done */
} attend_dl_managed;

/* Memory of somebody else's, as attend_binding wants it. */
typedef struct attend_view {
    attend_type type;
    attend_shape shape;
    int64_t stride[ATTEND_MAX_RANK]; /* elements; of an axis of one element, what contiguous has */
    void *data;
    int64_t bytes; /* from data to the end of the last element */
} attend_view;
/* What t shows, without a copy; it stays t's.  ATTEND_EUNSUPPORTED: another device than the CPU, or
 * a type that is not here; ATTEND_ELIMIT: more axes than ATTEND_MAX_RANK; ATTEND_EINVAL: extents or
 * strides below 0. */
ATTEND_API int attend_dlpack_view(const attend_dl_tensor *t, attend_view *out, char *err,
                                  size_t errlen) ATTEND_CHECK;
/* New contiguous memory, not cleared, to write results to and hand out: whoever takes it calls its
 * deleter; call it yourself where nobody does. */
ATTEND_API int attend_dlpack_new(attend_type type, attend_shape shape,
                                 attend_dl_managed **out) ATTEND_CHECK;

#ifdef __cplusplus
}
#endif
#endif
