/* SPDX-License-Identifier: MIT */
/* The flags and files of attend sdpa.  Whatever does not fit is named with its file and both
 * numbers before anything is computed. */
#include "sdpa.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct sdpa_name sdpa_names[SDPA_TENSORS] = {
    [SDPA_Q] = {"--q",           "q"          },
    [SDPA_K] = {"--k",           "k"          },
    [SDPA_V] = {"--v",           "v"          },
    [SDPA_MASK] = {"--mask",        "mask"       },
    [SDPA_ALIBI] = {"--alibi",       "alibi"      },
    [SDPA_SINKS] = {"--sinks",       "sinks"      },
    [SDPA_Q_LENS] = {"--q-lens",      "q_lens"     },
    [SDPA_KV_LENS] = {"--kv-lens",     "kv_lens"    },
    [SDPA_KV_USED] = {"--kv-used",     "kv_used"    },
    [SDPA_TABLE] = {"--block-table", "block_table"},
    [SDPA_WQ] = {"--additive",    "wq"         },
    [SDPA_WK] = {"--additive",    "wk"         },
    [SDPA_VA] = {"--additive",    "va"         },
    [SDPA_DOUT] = {"--dout",        "dout"       },
    [SDPA_K_SCALE] = {NULL,            "k_scale"    },
    [SDPA_V_SCALE] = {NULL,            "v_scale"    },
    [SDPA_O] = {"-o",            "o"          },
    [SDPA_LSE] = {"--lse",         "lse"        },
    [SDPA_W] = {"--weights",     "w"          },
    [SDPA_W_INDEX] = {"--weights",     "w_index"    },
};

/* "2 x 3 x 4" */
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

static int check_flags(struct sdpa *s)
{
    const struct cmd_line *l = s->l;
    if (l->narg > 0)
        return cmd_wrong(l, "what is \"%s\"? Files follow flags, such as --q", l->arg[0]);
    for (int i = SDPA_Q; i <= SDPA_V; i++)
        if (!cmd_has(l, sdpa_names[i].flag))
            return cmd_wrong(l, "%s is missing", sdpa_names[i].flag);
    if (!l->plan && !s->use && !cmd_has(l, "-o"))
        return cmd_wrong(l, "-o is missing: where does the result go?");
    s->packed = cmd_has(l, "--q-lens");
    s->paged = cmd_has(l, "--block-table");
    s->additive = cmd_has(l, "--additive");
    if (s->packed != cmd_has(l, "--kv-lens"))
        return cmd_wrong(l, "--q-lens and --kv-lens need each other");
    if (s->paged != cmd_has(l, "--block-size"))
        return cmd_wrong(l, "--block-table and --block-size need each other");
    if (s->paged && !cmd_has(l, "--kv-used"))
        return cmd_wrong(l, "--block-table needs --kv-used: how many keys each sequence has");
    if (s->packed && (s->paged || cmd_has(l, "--layout") || cmd_has(l, "--heads")))
        return cmd_wrong(l, "packed sequences take no --layout, --heads or --block-table");
    if (s->additive && (s->packed || s->paged || cmd_has(l, "--layout") || cmd_has(l, "--heads")))
        return cmd_wrong(
            l, "--additive takes tensors of batch, sequence, size: no --q-lens, --layout, "
               "--heads or --block-table");
    if (cmd_has(l, "--heads") && cmd_has(l, "--layout"))
        return cmd_wrong(l, "--heads is for 3-D tensors, --layout for 4-D ones");
    if (cmd_has(l, "-o") && cmd_has(l, "--lse") &&
        strcmp(cmd_value(l, "-o"), cmd_value(l, "--lse")) == 0)
        return cmd_wrong(l, "-o and --lse are the same file");
    return CMD_DONE;
}

/* The choices, of which each list begins with what holds when the flag is not given. */
static bool read_choices(struct sdpa *s)
{
    static const char *const layouts[] = {"bhsd", "bshd", NULL};
    static const char *const aligns[] = {"top-left", "bottom-right", NULL};
    static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "fp8", NULL};
    static const char *const dtypes[] = {"f32", "f16", "bf16", NULL};
    static const attend_type values[] = {ATTEND_F32,  ATTEND_F16,  ATTEND_BF16,
                                         ATTEND_Q8_0, ATTEND_Q4_0, ATTEND_F8};
    const struct cmd_line *l = s->l;
    int layout = 0, align = -1, type = 0;
    if (!cmd_choice(l, "--layout", layouts, &layout) || !cmd_choice(l, "--align", aligns, &align) ||
        !cmd_choice(l, "--dtype", dtypes, &type))
        return false;
    int kv_type = type;
    if (!cmd_choice(l, "--kv-type", types, &kv_type))
        return false;
    s->bshd = layout == 1;
    s->type = values[type];
    s->kv_type = values[kv_type];
    s->opts.mask.align = align == 0   ? ATTEND_TOP_LEFT
                         : align == 1 ? ATTEND_BOTTOM_RIGHT
                                      : ATTEND_ALIGN_UNSET;
    return true;
}

int sdpa_read_flags(struct sdpa *s)
{
    const struct cmd_line *l = s->l;
    int64_t window[2] = {-1, -1}, seed = 0;
    int status = check_flags(s);
    if (status != CMD_DONE)
        return status;
    attend_attention_opts_init(&s->opts);
    if (!read_choices(s) || !cmd_ints(l, "--heads", 1, INT32_MAX, s->heads) ||
        !cmd_int(l, "--block-size", 1, INT32_MAX, &s->page) ||
        !cmd_ints(l, "--window", -1, INT64_MAX - 1, window) ||
        !cmd_float(l, "--scale", -1e30f, 1e30f, &s->opts.scale) ||
        !cmd_float(l, "--softcap", 0, 1e30f, &s->opts.softcap) ||
        !cmd_float(l, "--dropout", 0, 0x1.fffffep-1f, &s->opts.dropout) ||
        !cmd_int(l, "--seed", 0, INT64_MAX - 1, &seed))
        return CMD_WRONG;
    s->opts.seed = (uint64_t)seed;
    status = sdpa_check_grads(s);
    if (status != CMD_DONE)
        return status;
    status = sdpa_read_weights(s);
    if (status != CMD_DONE)
        return status;
    s->opts.mask.causal = cmd_has(l, "--causal");
    s->opts.mask.window_left = window[0];
    s->opts.mask.window_right = window[1];
    return CMD_DONE;
}

/* ---- types ---- */

static int no_memory(const struct sdpa *s, const char *file, int64_t bytes)
{
    return cmd_fail(s->l, file, "no memory for %lld bytes", (long long)bytes);
}

static bool is_float(attend_type type)
{
    return type == ATTEND_F32 || type == ATTEND_F16 || type == ATTEND_F64 || type == ATTEND_BF16;
}

/* Replaces the data of t, rows of n elements, by the same numbers in another type. */
static int convert(const struct sdpa *s, struct sdpa_array *t, attend_type type, int64_t n)
{
    int64_t from = attend_type_row_bytes(t->a.type, n), to = attend_type_row_bytes(type, n);
    int64_t rows = from > 0 ? t->a.bytes / from : 0, bytes = rows * to;
    if (t->a.type == type)
        return CMD_DONE;
    char *data = malloc((size_t)bytes + 1); /* an empty tensor has an address, too */
    if (!data)
        return no_memory(s, t->file, bytes);
    int status = ATTEND_OK;
    for (int64_t r = 0; r < rows && status == ATTEND_OK; r++)
        status =
            attend_convert(type, data + r * to, t->a.type, (const char *)t->a.data + r * from, n);
    attend_free(t->a.data);
    t->a.data = data;
    t->a.bytes = bytes;
    if (status < 0)
        return cmd_fail(s->l, t->file, "%s cannot become %s", attend_type_name(t->a.type),
                        attend_type_name(type));
    t->a.type = type;
    return CMD_DONE;
}

/* Floating point of any size, rounded to `type`.  bf16 comes as uint16, which only --dtype bf16
 * makes a number. */
static int want_float(const struct sdpa *s, struct sdpa_array *t, attend_type type)
{
    if (t->a.type == ATTEND_BF16 && s->type != ATTEND_BF16)
        return cmd_fail(s->l, t->file, "uint16 is read as bf16 only with --dtype bf16");
    if (!is_float(t->a.type))
        return cmd_fail(s->l, t->file, "the type is %s, want f16, f32 or f64",
                        attend_type_name(t->a.type));
    return convert(s, t, type, t->a.bytes / (int64_t)attend_type_size(t->a.type));
}

static int want_ints(const struct sdpa *s, const struct sdpa_array *t, int rank)
{
    if (t->a.type != ATTEND_I32)
        return cmd_fail(s->l, t->file, "the type is %s, want int32", attend_type_name(t->a.type));
    if (t->a.shape.rank != rank)
        return cmd_fail(s->l, t->file, "the shape is %s, want %d axes",
                        shape_text(&t->a.shape).text, rank);
    return CMD_DONE;
}

/* ---- queries, keys and values ---- */

/* A file with rows before heads: (B, S, H, D), or (B, S, H * D). */
static void swap_axes(struct sdpa_array *t, int64_t heads)
{
    const int64_t *d = t->a.shape.dim;
    int64_t size = t->a.shape.rank == 4 ? d[3] : d[2] / heads;
    t->shape = ATTEND_SHAPE(d[0], heads, d[1], size);
    t->strided = true;
}

/* In elements of the type that t has now; of quantised types in blocks. */
static void set_strides(struct sdpa_array *t)
{
    const int64_t *d = t->shape.dim;
    int64_t row = attend_type_row_bytes(t->a.type, d[3]) / (int64_t)attend_type_size(t->a.type);
    const int64_t stride[4] = {d[1] * d[2] * row, row, d[1] * row, 1};
    memcpy(t->stride, stride, sizeof stride);
}

/* The shape of q, k or v as the graph has it. */
static int place(struct sdpa *s, int i)
{
    struct sdpa_array *t = &s->t[i];
    const attend_shape *file = &t->a.shape;
    bool key = i == SDPA_K || i == SDPA_V, pool = s->paged && key;
    int64_t heads = pool ? 0 : s->heads[key];
    if (s->additive && file->rank == 3) { /* one head */
        t->shape = ATTEND_SHAPE(file->dim[0], 1, file->dim[1], file->dim[2]);
        return CMD_DONE;
    }
    const char *want = s->additive ? "batch, sequence, size"
                       : s->packed ? "total rows, heads, head size"
                       : pool      ? "pages, heads, block size, head size"
                       : heads     ? "batch, rows, heads times head size"
                                   : "4 axes (or 3 with --heads)";
    if (s->additive || file->rank != (s->packed || heads ? 3 : 4))
        return cmd_fail(s->l, t->file, "the shape is %s, want %s", shape_text(file).text, want);
    if (heads && file->dim[2] % heads != 0)
        return cmd_fail(s->l, t->file, "the last axis of %s cannot hold %lld heads",
                        shape_text(file).text, (long long)heads);
    if (heads || (s->bshd && !pool))
        swap_axes(t, heads ? heads : file->dim[2]);
    return CMD_DONE;
}

/* Where shapes of files do not fit each other, says which extent of which. */
static int fits(const struct sdpa *s, int i, int other, int axis)
{
    static const char *const dense[] = {"batch", "heads", "rows", "head size"};
    static const char *const packed[] = {"rows", "heads", "head size"};
    const struct sdpa_array *a = &s->t[i], *b = &s->t[other];
    if (a->shape.dim[axis] == b->shape.dim[axis])
        return CMD_DONE;
    return cmd_fail(s->l, a->file, "%s: %lld in shape %s, but %lld in %s of %s",
                    (s->packed ? packed : dense)[axis], (long long)a->shape.dim[axis],
                    shape_text(&a->a.shape).text, (long long)b->shape.dim[axis],
                    shape_text(&b->a.shape).text, b->file);
}

static int check_rows(const struct sdpa *s)
{
    const struct sdpa_array *q = &s->t[SDPA_Q], *k = &s->t[SDPA_K];
    int size = q->shape.rank - 1, status = CMD_DONE;
    int64_t heads = q->shape.dim[1], groups = k->shape.dim[1];
    if (!s->packed && !s->paged)
        status = fits(s, SDPA_K, SDPA_Q, 0);
    if (status == CMD_DONE && !s->additive)
        status = fits(s, SDPA_K, SDPA_Q, size);
    for (int axis = 0; axis < size && status == CMD_DONE; axis++)
        status = fits(s, SDPA_V, SDPA_K, axis);
    if (status == CMD_DONE && (groups == 0 || heads % groups != 0))
        status = cmd_fail(s->l, k->file, "%lld heads do not divide the %lld of %s",
                          (long long)groups, (long long)heads, q->file);
    if (status == CMD_DONE && s->paged && k->shape.dim[2] != s->page)
        status =
            cmd_fail(s->l, k->file, "blocks of %lld keys in shape %s, but --block-size is %lld",
                     (long long)k->shape.dim[2], shape_text(&k->a.shape).text, (long long)s->page);
    return status;
}

/* fp8 holds up to 448, so it is kept with a scale for each entry of axis 0 (packed: for all) and KV
 * head, which maps the largest finite magnitude there to that. */
struct scales {
    float *value;                      /* [entries, groups] */
    int64_t entries, groups;           /* of k or v, rows of `size` numbers: */
    int64_t rows, size, rows_of_entry; /* in all, numbers, in an entry */
    int64_t rows_of_head;              /* that follow each other */
};

static float *scale_of(const struct scales *c, int64_t row)
{
    return &c->value[row / c->rows_of_entry * c->groups + row / c->rows_of_head % c->groups];
}

static void apply_scales(const struct scales *c, float *x)
{
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t d = r * c->size; d < (r + 1) * c->size; d++)
            if (isfinite(x[d]))
                *scale_of(c, r) = fmaxf(*scale_of(c, r), fabsf(x[d]));
    for (int64_t e = 0; e < c->entries * c->groups; e++)
        c->value[e] = c->value[e] > 0 ? c->value[e] / 448 : 1;
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t d = r * c->size; d < (r + 1) * c->size; d++)
            x[d] /= *scale_of(c, r);
}

static int scale_f8(struct sdpa *s, int i)
{
    struct sdpa_array *t = &s->t[i], *to = &s->t[i == SDPA_K ? SDPA_K_SCALE : SDPA_V_SCALE];
    const int64_t *n = t->shape.dim;
    struct scales c = {.entries = s->packed ? 1 : n[0], .groups = n[1]};
    c.size = n[t->shape.rank - 1];
    c.rows = c.size > 0 ? t->a.bytes / (int64_t)sizeof(float) / c.size : 0;
    c.rows_of_entry = c.entries > 0 ? c.rows / c.entries : 0;
    c.rows_of_head = t->strided || s->packed ? 1 : n[2];
    int64_t bytes = c.entries * c.groups * (int64_t)sizeof(float);
    c.value = calloc((size_t)bytes + 1, 1);
    if (!c.value)
        return no_memory(s, t->file, bytes);
    apply_scales(&c, t->a.data);
    to->shape = ATTEND_SHAPE(c.entries, c.groups);
    to->a = (attend_array){.type = ATTEND_F32, .shape = to->shape, .data = c.value, .bytes = bytes};
    return CMD_DONE;
}

static int convert_kv(struct sdpa *s, int i)
{
    struct sdpa_array *t = &s->t[i];
    int64_t size = t->shape.dim[t->shape.rank - 1];
    int status = CMD_DONE;
    if (s->kv_type == ATTEND_F8) {
        status = want_float(s, t, ATTEND_F32);
        if (status == CMD_DONE)
            status = scale_f8(s, i);
    }
    return status == CMD_DONE ? convert(s, t, s->kv_type, size) : status;
}

static int read_rows(struct sdpa *s)
{
    int status = CMD_DONE;
    for (int i = SDPA_Q; i <= SDPA_V && status == CMD_DONE; i++) {
        status = want_float(s, &s->t[i], s->type);
        if (status == CMD_DONE)
            status = place(s, i);
    }
    if (status == CMD_DONE)
        status = check_rows(s);
    for (int i = SDPA_K; i <= SDPA_V && status == CMD_DONE; i++)
        status = convert_kv(s, i);
    for (int i = SDPA_Q; i <= SDPA_V && status == CMD_DONE; i++)
        if (s->t[i].strided)
            set_strides(&s->t[i]);
    return status;
}

/* ---- what goes with them ---- */

/* Right-aligned, each extent 1 or that of the scores.  Those of packed ones are not known here. */
static int check_mask(const struct sdpa *s)
{
    const struct sdpa_array *m = &s->t[SDPA_MASK];
    const int64_t *q = s->t[SDPA_Q].shape.dim, *k = s->t[SDPA_K].shape.dim;
    int64_t keys = s->paged ? s->t[SDPA_TABLE].shape.dim[1] * s->page : k[2];
    attend_shape scores = ATTEND_SHAPE(q[0], q[1], q[2], keys);
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

static int read_mask(struct sdpa *s)
{
    struct sdpa_array *m = &s->t[SDPA_MASK];
    if (!m->a.data)
        return CMD_DONE;
    int status = m->a.type == ATTEND_BOOL ? CMD_DONE : want_float(s, m, ATTEND_F32);
    return status == CMD_DONE && !s->packed ? check_mask(s) : status;
}

static int read_lengths(struct sdpa *s)
{
    int status = CMD_DONE;
    for (int i = SDPA_Q_LENS; i <= SDPA_TABLE && status == CMD_DONE; i++)
        if (s->t[i].a.data)
            status = want_ints(s, &s->t[i], i == SDPA_TABLE ? 2 : 1);
    return status;
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
    struct sdpa_array *t = &s->t[SDPA_ALIBI];
    int64_t n = s->t[SDPA_Q].shape.dim[1], bytes = n * (int64_t)sizeof(float);
    float *slope = malloc((size_t)bytes + 1);
    if (!slope)
        return no_memory(s, NULL, bytes);
    for (int64_t h = 0; h < n; h++)
        slope[h] = standard_slope(h, n);
    t->shape = ATTEND_SHAPE(n);
    t->a = (attend_array){.type = ATTEND_F32, .shape = t->shape, .data = slope, .bytes = bytes};
    return CMD_DONE;
}

static int check_entries(const struct sdpa *s, int i, int64_t want, const char *what)
{
    const attend_shape *shape = &s->t[i].shape;
    if (!s->t[i].a.data || shape->dim[0] == want)
        return CMD_DONE;
    return cmd_fail(s->l, s->t[i].file, "the shape is %s, want %lld, one a %s",
                    shape_text(shape).text, (long long)want, what);
}

/* Slopes and sinks: a number a query head. */
static int read_heads(struct sdpa *s, int i)
{
    struct sdpa_array *t = &s->t[i];
    if (!t->a.data)
        return CMD_DONE;
    int status = want_float(s, t, ATTEND_F32);
    if (status == CMD_DONE && t->shape.rank != 1)
        status =
            cmd_fail(s->l, t->file, "the shape is %s, want one axis", shape_text(&t->shape).text);
    return status == CMD_DONE ? check_entries(s, i, s->t[SDPA_Q].shape.dim[1], "query head")
                              : status;
}

/* WQ is [A, D] of queries, WK [A, D] of keys, VA [A]. */
static int read_additive(struct sdpa *s)
{
    int64_t channels = s->t[SDPA_VA].shape.dim[0];
    for (int i = SDPA_WQ; i <= SDPA_VA; i++) {
        struct sdpa_array *t = &s->t[i];
        attend_shape want =
            ATTEND_SHAPE(channels, s->t[i == SDPA_WQ ? SDPA_Q : SDPA_K].shape.dim[3]);
        want.rank = i == SDPA_VA ? 1 : 2;
        int status = t->a.data ? want_float(s, t, ATTEND_F32) : CMD_DONE;
        if (status != CMD_DONE || !t->a.data)
            return status;
        if (t->shape.rank != want.rank || t->shape.dim[0] != want.dim[0] ||
            (want.rank == 2 && t->shape.dim[1] != want.dim[1]))
            return cmd_fail(s->l, t->file, "the shape is %s, want %s", shape_text(&t->shape).text,
                            shape_text(&want).text);
    }
    return CMD_DONE;
}

/* The gradient of O has the axes of O. */
static int read_dout(struct sdpa *s)
{
    struct sdpa_array *t = &s->t[SDPA_DOUT];
    attend_shape want = s->t[SDPA_Q].shape;
    if (!t->a.data)
        return CMD_DONE;
    want.dim[want.rank - 1] = s->t[SDPA_V].shape.dim[want.rank - 1];
    int status = want_float(s, t, ATTEND_F32);
    if (status == CMD_DONE)
        status = place(s, SDPA_DOUT);
    if (status == CMD_DONE && t->strided)
        set_strides(t);
    bool same = t->shape.rank == want.rank;
    for (int d = 0; same && d < want.rank; d++)
        same = t->shape.dim[d] == want.dim[d];
    if (status == CMD_DONE && !same)
        return cmd_fail(s->l, t->file, "the shape is %s, want %s as O has it",
                        shape_text(&t->shape).text, shape_text(&want).text);
    return status;
}

static int read_conditions(struct sdpa *s)
{
    int64_t batch = s->t[SDPA_Q].shape.dim[0];
    int status = read_lengths(s);
    if (status == CMD_DONE)
        status = read_additive(s);
    if (status == CMD_DONE)
        status = read_mask(s);
    if (status == CMD_DONE)
        status = read_dout(s);
    if (status == CMD_DONE && s->t[SDPA_ALIBI].file && !s->t[SDPA_ALIBI].a.data)
        status = standard_alibi(s);
    for (int i = SDPA_ALIBI; i <= SDPA_SINKS && status == CMD_DONE; i++)
        status = read_heads(s, i);
    for (int i = SDPA_KV_USED; i <= SDPA_TABLE && status == CMD_DONE && !s->packed; i++)
        status = check_entries(s, i, batch, "batch entry");
    return status;
}

/* ---- all of it ---- */

/* WQ.npy,WK.npy,VA.npy */
static int cut_additive(struct sdpa *s)
{
    const char *value = cmd_value(s->l, "--additive");
    if (!value)
        return CMD_DONE;
    char *rest = s->additive_files = strdup(value);
    if (!rest)
        return no_memory(s, NULL, (int64_t)strlen(value));
    for (int i = SDPA_WQ; i <= SDPA_VA; i++) {
        s->t[i].file = rest;
        char *comma = strchr(rest, ',');
        if ((comma != NULL) != (i < SDPA_VA))
            return cmd_wrong(s->l, "--additive: \"%s\" is not three files, WQ.npy,WK.npy,VA.npy",
                             value);
        if (comma) {
            *comma = 0;
            rest = comma + 1;
        }
    }
    return CMD_DONE;
}

static int read_file(struct sdpa *s, int i)
{
    char err[320];
    struct sdpa_array *t = &s->t[i];
    if (!t->file)
        t->file = cmd_value(s->l, sdpa_names[i].flag);
    if (!t->file || (i == SDPA_ALIBI && strcmp(t->file, "standard") == 0))
        return CMD_DONE;
    if (attend_npy_read(t->file, &t->a, err, sizeof err) < 0)
        return cmd_fail(s->l, t->file, "%s", err);
    t->shape = t->a.shape;
    return CMD_DONE;
}

int sdpa_read_files(struct sdpa *s)
{
    int status = cut_additive(s);
    for (int i = 0; i < SDPA_FILES && status == CMD_DONE; i++)
        status = read_file(s, i);
    if (status == CMD_DONE)
        status = read_rows(s);
    return status == CMD_DONE ? read_conditions(s) : status;
}

int sdpa_make_output(struct sdpa *s, int i, attend_type type, const attend_shape *shape)
{
    struct sdpa_array *t = &s->t[i];
    int64_t n = 1;
    for (int d = 0; d < shape->rank; d++)
        n *= shape->dim[d];
    t->file = cmd_value(s->l, sdpa_names[i].flag);
    t->a =
        (attend_array){.type = type, .shape = *shape, .bytes = n * (int64_t)attend_type_size(type)};
    t->a.data = malloc((size_t)t->a.bytes + 1);
    return t->a.data ? CMD_DONE : no_memory(s, t->file, t->a.bytes);
}

/* O has the axes of Q's file, but the head size of V. */
int sdpa_make_outputs(struct sdpa *s)
{
    const attend_shape *q = &s->t[SDPA_Q].shape, *v = &s->t[SDPA_V].shape;
    int64_t heads = q->dim[1], size = v->dim[v->rank - 1];
    struct sdpa_array *o = &s->t[SDPA_O];
    attend_shape shape = s->t[SDPA_Q].a.shape;
    shape.dim[shape.rank - 1] = s->heads[0] ? heads * size : size;
    int status = sdpa_make_output(s, SDPA_O, ATTEND_F32, &shape);
    if (status == CMD_DONE && s->t[SDPA_Q].strided) {
        swap_axes(o, heads);
        set_strides(o);
    }
    if (status == CMD_DONE)
        status = sdpa_make_weights(s);
    if (status != CMD_DONE || !cmd_has(s->l, "--lse"))
        return status;
    attend_shape lse =
        s->packed ? ATTEND_SHAPE(heads, q->dim[0]) : ATTEND_SHAPE(q->dim[0], heads, q->dim[2]);
    return sdpa_make_output(s, SDPA_LSE, ATTEND_F32, &lse);
}
