/* SPDX-License-Identifier: MIT */
/* attend sdpa: one attention on tensors from files. */
#include "cmd.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cmd_flag flags[] = {
    {"--q",            "Q.npy",                 "queries: batch, heads, rows, head size",                         NULL                        },
    {"--k",            "K.npy",                 "keys",                                                           NULL                        },
    {"--v",            "V.npy",                 "values",                                                         NULL                        },
    {"-o",             "O.npy",                 "where the result goes, f32 in the layout of Q",                  NULL                        },
    {"--lse",          "L.npy",                 "log-sum-exp of each row: B,H,Sq (packed: H,T)",                  NULL                        },
    {"--layout",       "bhsd|bshd",             "the order of the 4 axes (bhsd)",                                 NULL                        },
    {"--heads",        "HQ,HKV",                "of 3-D tensors: batch, rows, heads times head size",             NULL                        },
    {"--dtype",        "f32|f16|bf16",          "Q, K and V are rounded to this type first (f32)",                NULL                        },
    {"--kv-type",      "TYPE",                  "K and V are then converted to f32, f16 or bf16",                 NULL                        },
    {"--scale",        "X",                     "of the scores (1/sqrt of the head size)",                        NULL                        },
    {"--causal",       NULL,                    "row i sees key j only when j <= i + off",                        NULL                        },
    {"--align",        "top-left|bottom-right", "off is 0, or keys less rows",                                    NULL                        },
    {"--window",       "L,R",                   "row i sees keys i + off - L to i + off + R; -1: no end",         NULL                        },
    {"--mask",         "M.npy",                 "bool (true: visible) or float (added); broadcast to B,H,Sq,Skv", NULL                        },
    {"--alibi",        "SLOPES.npy|standard",   "a slope a head: score -= slope * |i + off - j|",                 NULL                        },
    {"--softcap",      "C",                     "score = C * tanh(score / C)",                                    NULL                        },
    {"--sinks",        "S.npy",                 "a logit a head that joins the denominator",                      NULL                        },
    {"--q-lens",       "CU.npy",                "packed: exclusive prefix sums of rows; tensors are T,H,D",       NULL                        },
    {"--kv-lens",      "CU.npy",                "packed: those of keys",                                          NULL                        },
    {"--kv-used",      "N.npy",                 "how many keys are in use, one a batch entry",                    NULL                        },
    {"--precision",    "exact|tf32|int8|f16_p", "of products and sums (exact)",                                   NULL                        },
    {"--block-table",  "T.npy",                 "paged keys and values",                                          "read paged keys and values"},
    {"--block-size",   "N",                     "keys in a page",                                                 "read paged keys and values"},
    {"--score",        "EXPR",                  "a score function",                                               "evaluate score functions"  },
    {"--mask-expr",    "EXPR",                  "a mask function",                                                "evaluate mask functions"   },
    {"--let",          "NAME=FILE.npy",         "a tensor of expressions",                                        "evaluate expressions"      },
    {"--additive",     "WQ.npy,WK.npy,VA.npy",  "additive scores",                                                "do additive attention"     },
    {"--weights",      "W.npy",                 "the weights",                                                    "write attention weights"   },
    {"--weights-rows", "I0:I1",                 "some rows of them",                                              "write attention weights"   },
    {"--weights-topk", "K",                     "the largest of them",                                            "write attention weights"   },
    {"--weights-pool", "R,C",                   "their means over blocks",                                        "write attention weights"   },
    {"--dout",         "DO.npy",                "the gradient of O",                                              "compute gradients"         },
    {"--grads",        "PREFIX",                "where gradients go",                                             "compute gradients"         },
    {"--dropout",      "P",                     "dropout",                                                        "do dropout"                },
    {"--seed",         "N",                     "of dropout",                                                     "do dropout"                },
    {NULL,             NULL,                    NULL,                                                             NULL                        },
};

/* The tensors, inputs first, with the names that they have in the graph. */
enum { Q, K, V, MASK, ALIBI, SINKS, Q_LENS, KV_LENS, KV_USED, INPUTS, O = INPUTS, LSE, TENSORS };
static const struct {
    const char *flag, *name;
} tensors[TENSORS] = {
    [Q] = {"--q",       "q"      },
    [K] = {"--k",       "k"      },
    [V] = {"--v",       "v"      },
    [MASK] = {"--mask",    "mask"   },
    [ALIBI] = {"--alibi",   "alibi"  },
    [SINKS] = {"--sinks",   "sinks"  },
    [Q_LENS] = {"--q-lens",  "q_lens" },
    [KV_LENS] = {"--kv-lens", "kv_lens"},
    [KV_USED] = {"--kv-used", "kv_used"},
    [O] = {"-o",        "o"      },
    [LSE] = {"--lse",     "lse"    },
};

/* A tensor as its file has it (absent: file is NULL), and as the graph has it. */
struct tensor {
    const char *file;
    attend_array a;
    attend_shape shape; /* of q, k and v: (B, H, S, D), or (T, H, D) */
    bool strided;       /* the axes of the file are in another order than those of `shape` */
    int64_t stride[4];  /* then of each axis of `shape` */
};

struct sdpa {
    const struct cmd_line *l;
    struct tensor t[TENSORS];
    attend_attention_opts opts;
    attend_type type, kv_type; /* of the computation */
    bool bshd, packed;
    int64_t heads[2]; /* of 3-D tensors; 0: not given */
};

/* "2 x 3 x 4"; one buffer a call of printf is enough for two shapes. */
struct text {
    char text[128];
};

static struct text shape_text(const attend_shape *s)
{
    struct text t = {"a number"};
    size_t length = 0;
    for (int d = 0; d < s->rank; d++)
        length += (size_t)snprintf(t.text + length, sizeof t.text - length, "%s%lld",
                                   d ? " x " : "", (long long)s->dim[d]);
    return t;
}

/* ---- the flags ---- */

static int read_numbers(struct sdpa *s)
{
    static const char *const layouts[] = {"bhsd", "bshd", NULL};
    static const char *const aligns[] = {"top-left", "bottom-right", NULL};
    static const char *const types[] = {"f32", "f16", "bf16", NULL};
    static const char *const kv_types[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "fp8", NULL};
    static const char *const precisions[] = {"exact", "tf32", "int8", "f16_p", NULL};
    const struct cmd_line *l = s->l;
    int layout = 0, align = -1, type = ATTEND_F32, precision = 0;
    int64_t window[2] = {-1, -1};
    attend_attention_opts_init(&s->opts);
    if (!cmd_choice(l, "--layout", layouts, &layout) || !cmd_choice(l, "--align", aligns, &align) ||
        !cmd_choice(l, "--dtype", types, &type) ||
        !cmd_choice(l, "--precision", precisions, &precision) ||
        !cmd_ints(l, "--heads", 1, INT32_MAX, s->heads) ||
        !cmd_ints(l, "--window", -1, INT64_MAX - 1, window) ||
        !cmd_float(l, "--scale", -1e30f, 1e30f, &s->opts.scale) ||
        !cmd_float(l, "--softcap", 0, 1e30f, &s->opts.softcap))
        return CMD_WRONG;
    s->type = (attend_type)type;
    int kv_type = type;
    if (!cmd_choice(l, "--kv-type", kv_types, &kv_type))
        return CMD_WRONG;
    s->kv_type = (attend_type)kv_type;
    s->bshd = layout == 1;
    s->opts.mask.causal = cmd_has(l, "--causal");
    s->opts.mask.align = align == 0   ? ATTEND_TOP_LEFT
                         : align == 1 ? ATTEND_BOTTOM_RIGHT
                                      : ATTEND_ALIGN_UNSET;
    s->opts.mask.window_left = window[0];
    s->opts.mask.window_right = window[1];
    if (kv_type > ATTEND_BF16)
        return cmd_fail(l, NULL, "--kv-type: this version cannot keep keys and values as %s",
                        kv_types[kv_type]);
    if (precision > 0)
        return cmd_fail(l, NULL, "--precision: this version cannot compute in %s",
                        precisions[precision]);
    return CMD_DONE;
}

static int check_flags(struct sdpa *s)
{
    const struct cmd_line *l = s->l;
    if (l->narg > 0)
        return cmd_wrong(l, "what is \"%s\"? Files follow flags, such as --q", l->arg[0]);
    for (int i = Q; i <= V; i++)
        if (!cmd_has(l, tensors[i].flag))
            return cmd_wrong(l, "%s is missing", tensors[i].flag);
    if (!l->plan && !cmd_has(l, "-o"))
        return cmd_wrong(l, "-o is missing: where does the result go?");
    if (cmd_has(l, "--q-lens") != cmd_has(l, "--kv-lens"))
        return cmd_wrong(l, "--q-lens and --kv-lens need each other");
    s->packed = cmd_has(l, "--q-lens");
    if (s->packed && (cmd_has(l, "--layout") || cmd_has(l, "--heads")))
        return cmd_wrong(l, "packed sequences take neither --layout nor --heads");
    if (cmd_has(l, "--heads") && cmd_has(l, "--layout"))
        return cmd_wrong(l, "--heads is for 3-D tensors, --layout for 4-D ones");
    if (cmd_has(l, "-o") && cmd_has(l, "--lse") &&
        strcmp(cmd_value(l, "-o"), cmd_value(l, "--lse")) == 0)
        return cmd_wrong(l, "-o and --lse are the same file");
    return CMD_DONE;
}

/* ---- the files ---- */

static int read_file(struct sdpa *s, int i)
{
    char err[320];
    struct tensor *t = &s->t[i];
    t->file = cmd_value(s->l, tensors[i].flag);
    if (!t->file || (i == ALIBI && strcmp(t->file, "standard") == 0))
        return CMD_DONE;
    if (attend_npy_read(t->file, &t->a, err, sizeof err) < 0)
        return cmd_fail(s->l, t->file, "%s", err);
    t->shape = t->a.shape;
    return CMD_DONE;
}

/* Replaces the data of t by the same numbers in another type. */
static int convert(struct sdpa *s, struct tensor *t, attend_type type)
{
    int64_t n = t->a.bytes / (int64_t)attend_type_size(t->a.type);
    int64_t bytes = n * (int64_t)attend_type_size(type);
    if (t->a.type == type)
        return CMD_DONE;
    void *data = malloc((size_t)bytes + 1); /* an empty tensor has an address, too */
    if (!data)
        return cmd_fail(s->l, t->file, "no memory for %lld bytes", (long long)bytes);
    if (attend_convert(type, data, t->a.type, t->a.data, n) < 0) {
        free(data);
        return cmd_fail(s->l, t->file, "%s cannot be converted to %s", attend_type_name(t->a.type),
                        attend_type_name(type));
    }
    attend_free(t->a.data);
    t->a.data = data;
    t->a.bytes = bytes;
    t->a.type = type;
    return CMD_DONE;
}

static bool is_float(attend_type type)
{
    return type == ATTEND_F32 || type == ATTEND_F16 || type == ATTEND_F64 || type == ATTEND_BF16;
}

/* Floating point of any size, rounded to `type`.  bf16 comes as uint16, which only --dtype bf16
 * makes a number. */
static int want_float(struct sdpa *s, struct tensor *t, attend_type type)
{
    if (t->a.type == ATTEND_BF16 && s->type != ATTEND_BF16)
        return cmd_fail(s->l, t->file, "uint16 is read as bf16 only with --dtype bf16");
    if (!is_float(t->a.type))
        return cmd_fail(s->l, t->file, "the type is %s, want f16, f32 or f64",
                        attend_type_name(t->a.type));
    return convert(s, t, type);
}

static int want_ints(struct sdpa *s, struct tensor *t)
{
    if (t->a.type != ATTEND_I32)
        return cmd_fail(s->l, t->file, "the type is %s, want int32", attend_type_name(t->a.type));
    if (t->a.shape.rank != 1)
        return cmd_fail(s->l, t->file, "the shape is %s, want one axis",
                        shape_text(&t->a.shape).text);
    return CMD_DONE;
}

/* 2^(-8 (h + 1) / n) for n heads, a power of two; otherwise those of the power of two below, then
 * every other one of the power of two above (Press et al. 2022). */
static float standard_slope(int64_t h, int64_t n)
{
    int64_t below = 1;
    while (2 * below <= n)
        below *= 2;
    double step = h < below ? (double)(h + 1) / (double)below
                            : (double)(2 * (h - below) + 1) / (double)(2 * below);
    return (float)exp2(-8 * step);
}

static int standard_alibi(struct sdpa *s)
{
    struct tensor *t = &s->t[ALIBI];
    int64_t n = s->t[Q].shape.dim[1];
    float *slope = malloc((size_t)n * sizeof *slope + 1);
    if (!slope)
        return cmd_fail(s->l, NULL, "no memory for %lld slopes", (long long)n);
    for (int64_t h = 0; h < n; h++)
        slope[h] = standard_slope(h, n);
    t->shape = ATTEND_SHAPE(n);
    t->a = (attend_array){
        .type = ATTEND_F32, .shape = t->shape, .data = slope, .bytes = n * (int64_t)sizeof *slope};
    return CMD_DONE;
}

/* ---- shapes ---- */

/* A file with rows before heads: (B, S, H, D), or (B, S, H * D). */
static void swap_axes(struct tensor *t, int64_t heads)
{
    const int64_t *d = t->a.shape.dim;
    int64_t size = t->a.shape.rank == 4 ? d[3] : d[2] / heads;
    const int64_t stride[4] = {d[1] * heads * size, size, heads * size, 1};
    t->shape = ATTEND_SHAPE(d[0], heads, d[1], size);
    t->strided = true;
    memcpy(t->stride, stride, sizeof stride);
}

/* The shape of q, k or v as the graph has it. */
static int place(struct sdpa *s, int i)
{
    struct tensor *t = &s->t[i];
    const attend_shape *file = &t->a.shape;
    int64_t heads = s->heads[i != Q];
    const char *want = s->packed ? "total rows, heads, head size"
                       : heads   ? "batch, rows, heads times head size"
                                 : "4 axes (or 3 with --heads)";
    if (file->rank != (s->packed || heads ? 3 : 4))
        return cmd_fail(s->l, t->file, "the shape is %s, want %s", shape_text(file).text, want);
    if (heads && file->dim[2] % heads != 0)
        return cmd_fail(s->l, t->file, "the last axis of %s cannot hold %lld heads",
                        shape_text(file).text, (long long)heads);
    if (heads || s->bshd)
        swap_axes(t, heads ? heads : file->dim[2]);
    return CMD_DONE;
}

/* Where shapes of files do not fit each other, says which extent of which. */
static int fits(const struct sdpa *s, int i, int axis, int other, int other_axis)
{
    static const char *const dense[] = {"batch", "heads", "rows", "head size"};
    static const char *const packed[] = {"rows", "heads", "head size"};
    int64_t got = s->t[i].shape.dim[axis], want = s->t[other].shape.dim[other_axis];
    if (got == want)
        return CMD_DONE;
    return cmd_fail(s->l, s->t[i].file, "%s: %lld in shape %s, but %lld in %s of %s",
                    (s->packed ? packed : dense)[axis], (long long)got,
                    shape_text(&s->t[i].a.shape).text, (long long)want,
                    shape_text(&s->t[other].a.shape).text, s->t[other].file);
}

static int check_rows(const struct sdpa *s)
{
    int rows = s->packed ? 0 : 2, size = rows + (s->packed ? 2 : 1), status = CMD_DONE;
    const int64_t heads = s->t[Q].shape.dim[1], groups = s->t[K].shape.dim[1];
    if (!s->packed && (status = fits(s, K, 0, Q, 0)) == CMD_DONE)
        status = fits(s, V, 0, K, 0);
    if (status == CMD_DONE)
        status = fits(s, K, size, Q, size);
    if (status == CMD_DONE)
        status = fits(s, V, rows, K, rows);
    if (status == CMD_DONE)
        status = fits(s, V, 1, K, 1);
    if (status == CMD_DONE && (groups == 0 || heads % groups != 0))
        status = cmd_fail(s->l, s->t[K].file, "%lld heads do not divide the %lld of %s",
                          (long long)groups, (long long)heads, s->t[Q].file);
    return status;
}

/* Right-aligned, each extent 1 or that of the scores.  Those of packed ones are not known here. */
static int check_mask(const struct sdpa *s)
{
    const struct tensor *m = &s->t[MASK];
    const int64_t *q = s->t[Q].shape.dim;
    attend_shape scores = ATTEND_SHAPE(q[0], q[1], q[2], s->t[K].shape.dim[2]);
    bool good = m->shape.rank <= 4;
    for (int d = 1; good && d <= m->shape.rank; d++) {
        int64_t extent = m->shape.dim[m->shape.rank - d];
        good = extent == 1 || extent == scores.dim[4 - d];
    }
    if (good)
        return CMD_DONE;
    return cmd_fail(s->l, m->file, "shape %s does not broadcast to B,H,Sq,Skv = %s",
                    shape_text(&m->shape).text, shape_text(&scores).text);
}

static int check_vector(const struct sdpa *s, int i, int64_t want, const char *what)
{
    const attend_shape *shape = &s->t[i].shape;
    if (!s->t[i].file || (shape->rank == 1 && shape->dim[0] == want))
        return CMD_DONE;
    return cmd_fail(s->l, s->t[i].file, "the shape is %s, want %lld, one a %s",
                    shape_text(shape).text, (long long)want, what);
}

/* ---- reading all of it ---- */

static int read_rows(struct sdpa *s)
{
    int status = CMD_DONE;
    for (int i = Q; i <= V && status == CMD_DONE; i++) {
        status = want_float(s, &s->t[i], s->type);
        if (status == CMD_DONE && i != Q)
            status = convert(s, &s->t[i], s->kv_type);
        if (status == CMD_DONE)
            status = place(s, i);
    }
    return status == CMD_DONE ? check_rows(s) : status;
}

static int read_mask(struct sdpa *s)
{
    struct tensor *m = &s->t[MASK];
    if (!m->file)
        return CMD_DONE;
    int status = m->a.type == ATTEND_BOOL ? CMD_DONE : want_float(s, m, ATTEND_F32);
    return status == CMD_DONE && !s->packed ? check_mask(s) : status;
}

static int read_vectors(struct sdpa *s)
{
    int status = CMD_DONE;
    for (int i = ALIBI; i <= SINKS && status == CMD_DONE; i++)
        if (s->t[i].a.data)
            status = want_float(s, &s->t[i], ATTEND_F32);
    for (int i = Q_LENS; i <= KV_USED && status == CMD_DONE; i++)
        if (s->t[i].file)
            status = want_ints(s, &s->t[i]);
    if (status == CMD_DONE && s->t[ALIBI].file && !s->t[ALIBI].a.data)
        status = standard_alibi(s);
    for (int i = ALIBI; i <= SINKS && status == CMD_DONE; i++)
        status = check_vector(s, i, s->t[Q].shape.dim[1], "query head");
    if (status == CMD_DONE && !s->packed)
        status = check_vector(s, KV_USED, s->t[Q].shape.dim[0], "batch entry");
    return status;
}

static int read_all(struct sdpa *s)
{
    int status = CMD_DONE;
    for (int i = 0; i < INPUTS && status == CMD_DONE; i++)
        status = read_file(s, i);
    if (status == CMD_DONE)
        status = read_rows(s);
    if (status == CMD_DONE)
        status = read_mask(s);
    if (status == CMD_DONE)
        status = read_vectors(s);
    return status;
}

/* ---- the run ---- */

static attend_tensor input(attend_graph *g, const struct sdpa *s, int i)
{
    const struct tensor *t = &s->t[i];
    return t->file ? attend_graph_input(g, tensors[i].name, t->a.type, t->shape) : attend_none();
}

static void build(attend_graph *g, struct sdpa *s)
{
    attend_attention_opts *o = &s->opts;
    attend_tensor q = input(g, s, Q), k = input(g, s, K), v = input(g, s, V), lse;
    o->mask.mask = input(g, s, MASK);
    o->mask.kv_used = input(g, s, KV_USED);
    o->alibi = input(g, s, ALIBI);
    o->sinks = input(g, s, SINKS);
    o->q_lens = input(g, s, Q_LENS);
    o->kv_lens = input(g, s, KV_LENS);
    bool want_lse = cmd_has(s->l, "--lse");
    attend_tensor out = attend_graph_attention(g, q, k, v, o, want_lse ? &lse : NULL);
    attend_graph_output(g, "o", out);
    if (want_lse)
        attend_graph_output(g, "lse", lse);
}

static int make_output(struct sdpa *s, int i, const attend_shape *shape)
{
    struct tensor *t = &s->t[i];
    int64_t n = 1;
    for (int d = 0; d < shape->rank; d++)
        n *= shape->dim[d];
    t->file = cmd_value(s->l, tensors[i].flag);
    t->a = (attend_array){.type = ATTEND_F32, .shape = *shape, .bytes = n * (int64_t)sizeof(float)};
    t->a.data = malloc((size_t)t->a.bytes + 1);
    if (!t->a.data)
        return cmd_fail(s->l, t->file, "no memory for %lld bytes", (long long)t->a.bytes);
    return CMD_DONE;
}

/* O has the axes of Q's file, but the head size of V. */
static int make_outputs(struct sdpa *s)
{
    const attend_shape *q = &s->t[Q].shape, *v = &s->t[V].shape;
    int64_t heads = q->dim[1], size = v->dim[v->rank - 1];
    struct tensor *o = &s->t[O];
    attend_shape shape = s->t[Q].a.shape;
    shape.dim[shape.rank - 1] = s->heads[0] ? heads * size : size;
    int status = make_output(s, O, &shape);
    if (status == CMD_DONE && s->t[Q].strided)
        swap_axes(o, heads);
    if (status != CMD_DONE || !cmd_has(s->l, "--lse"))
        return status;
    attend_shape lse =
        s->packed ? ATTEND_SHAPE(heads, q->dim[0]) : ATTEND_SHAPE(q->dim[0], heads, q->dim[2]);
    return make_output(s, LSE, &lse);
}

static int run_exec(struct sdpa *s, attend_exec *exec)
{
    attend_binding bind[TENSORS];
    int n = 0;
    int status = make_outputs(s);
    for (int i = 0; i < TENSORS; i++) {
        struct tensor *t = &s->t[i];
        if (t->file)
            bind[n++] = (attend_binding){.name = tensors[i].name,
                                         .data = t->a.data,
                                         .bytes = t->a.bytes,
                                         .stride = t->strided ? t->stride : NULL};
    }
    if (status == CMD_DONE && (attend_bind(exec, bind, n) < 0 || attend_run(exec) < 0))
        status = cmd_fail(s->l, NULL, "%s", attend_exec_error(exec));
    return status;
}

static int run_plan(struct sdpa *s, attend_plan *plan)
{
    attend_exec *exec;
    if (s->l->plan)
        return cmd_print_plan(s->l, plan);
    int made = attend_exec_new(plan, &exec);
    if (made < 0)
        return cmd_fail(s->l, NULL, "cannot prepare a run: %s", attend_status_name(made));
    int status = run_exec(s, exec);
    attend_exec_free(exec);
    return status;
}

static int run_graph(struct sdpa *s, attend_ctx *ctx)
{
    attend_plan *plan;
    attend_graph *g = attend_graph_new(ctx);
    if (!g)
        return cmd_fail(s->l, NULL, "no memory");
    build(g, s);
    int status = cmd_compile(s->l, g, &plan);
    attend_graph_free(g);
    if (status != CMD_DONE)
        return status;
    status = run_plan(s, plan);
    attend_plan_free(plan);
    return status;
}

static void print_json(const struct sdpa *s)
{
    const attend_shape *o = &s->t[O].a.shape;
    printf("{\"type\": \"f32\", \"shape\": [");
    for (int d = 0; d < o->rank; d++)
        printf("%s%lld", d ? ", " : "", (long long)o->dim[d]);
    printf("]}\n");
}

static int write_outputs(struct sdpa *s)
{
    char err[320];
    for (int i = O; i <= LSE; i++) {
        const struct tensor *t = &s->t[i];
        if (t->file && attend_npy_write(t->file, &t->a, err, sizeof err) < 0)
            return cmd_fail(s->l, t->file, "%s", err);
    }
    if (cmd_has(s->l, "--json"))
        print_json(s);
    return CMD_DONE;
}

static int run_all(struct sdpa *s)
{
    attend_ctx *ctx;
    int status = read_all(s);
    if (status == CMD_DONE)
        status = cmd_context(s->l, &ctx);
    if (status != CMD_DONE)
        return status;
    status = run_graph(s, ctx);
    attend_ctx_free(ctx);
    return status == CMD_DONE && !s->l->plan ? write_outputs(s) : status;
}

static int run(const struct cmd_line *l)
{
    struct sdpa s = {.l = l};
    int status = check_flags(&s);
    if (status == CMD_DONE)
        status = read_numbers(&s);
    if (status == CMD_DONE)
        status = run_all(&s);
    for (int i = 0; i < TENSORS; i++)
        attend_free(s.t[i].a.data);
    return status;
}

const struct cmd_verb cmd_sdpa = {
    "sdpa",
    "--q Q.npy --k K.npy --v V.npy -o O.npy [flags]",
    "one attention on tensors from .npy files",
    flags,
    run,
    true,
};
