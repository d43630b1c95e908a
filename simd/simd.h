/* SPDX-License-Identifier: MIT */
/* The CPU's micro-kernels: one table of functions per instruction set, and how to get one.
 *
 * Contract shared by all of them.  Nothing here allocates, locks, or touches memory outside what is
 * described; scratch comes from the caller, 64-byte aligned, sized by the functions below, and what
 * is packed in it is private to the table that wrote it.  Rows of tensors need only the alignment
 * of their element; nothing is read or written past the last element (or block) of a row.  Sizes
 * may be 0 where a loop over nothing makes sense.  Strides count elements, and blocks for
 * q8_0/q4_0/q4_1. Each output element is computed in an order that depends on the sizes of the
 * whole problem only, so dividing rows, columns or heads over threads does not change a bit.
 *
 * Attention, panel shape (many rows): a panel is rows_per_panel *packed rows* (query row and head
 * of one KV group, in any order the caller likes).  A lane of a vector is a row, so keys are
 * uniform and nothing is reduced across lanes.  For one (sequence, KV head, set of panels):
 *
 *     for each panel:           pack_q(qp[p], ...);  memset(state[p], 0, ...);
 *     for each block of keys:   K as f32 rows (in place, or pack_k);  odd = pack_v(vp, ...)
 *         for each panel:       [a, b) visible to some row, [fa, fb) to all rows, in this block
 *             partial [a, fa):  scores(st, a, ...); hide in st; softmax_step(st, a, ...)
 *             full [fa, fb):    scores_softmax(st, fa, ...)
 *             partial [fb, b):  as the first
 *             accumulate(state[p], ..., a, b, odd && some partial)
 *     for each panel:           finish(state[p], ...)
 *
 * Decode shape (`dots`: few rows, lanes are channels): the same steps on row-major K and V of any
 * type.
 *
 * The one layout that callers share is the score block st[key][row], f32: row stride st_rows
 * (panel: rows_per_panel; dots: at_simd_dots_stride(rows)), scores after `scores`, weights after
 * softmax_step.  There a caller scales, adds bias, applies expressions, and hides (row, key) pairs
 * by *storing* -INFINITY, never by adding it: a NaN score from a hidden key must not survive.
 * Dropout multiplies weights between softmax_step and accumulate (l keeps the undropped sum).
 *
 * `scale` of softmax_step, scores_softmax, merge and finish, the same for all of a row: the natural
 * logit that one unit of a score is worth, above 0.  A weight is 2^((s - m) scale log2 e), of which
 * nothing is rounded before m is taken away; so plain q . k with a scale here keeps digits of large
 * scores that a scaled q would lose.
 *
 * State (m, l, acc) of a row: m is a reference, not the maximum: finite, moved only when a weight
 * would pass 2^24.  All zero is "no key seen yet", and so l == 0 exactly when nothing was visible:
 * output 0, lse -inf.  A NaN score, or +inf, makes that row NaN and no other.
 */
#ifndef AT_SIMD_H
#define AT_SIMD_H

#include <stddef.h>
#include <stdint.h>

/* What rows are made of.  Quantised rows are ceil(width / 32) blocks of lib/quant.h, zero-padded.
 */
enum at_elem {
    AT_ELEM_F32,
    AT_ELEM_F16,
    AT_ELEM_BF16,
    AT_ELEM_Q8_0,
    AT_ELEM_Q4_0,
    AT_ELEM_Q4_1,
    AT_ELEM_COUNT
};

/* Bytes of one element, or of one block of 32. */
static inline int64_t at_elem_size(enum at_elem type)
{
    static const int8_t size[AT_ELEM_COUNT] = {4, 2, 2, 34, 18, 20};
    return size[type];
}

struct at_dropout; /* lib/philox.h */

/* What a caller gives for (row, key) pairs: that of row r and key j is element j * step of row[r].
 * A bool of 0 stands for -INFINITY, others for 0. */
enum at_pair { AT_PAIR_F32, AT_PAIR_F16, AT_PAIR_BF16, AT_PAIR_BOOL };
struct at_pairs {
    const void *const *row;
    int64_t step;
    enum at_pair type;
};

/* n rows of `width` elements; row j starts at base + j * stride * at_elem_size(type). */
struct at_rows {
    const void *base;
    int64_t stride;
    int64_t n;
    int64_t width;
    enum at_elem type;
};

/* c[m][n] = a[m][k] * b.  b is [n][k] (weights; any type) or, if b_is_kn, [k][n] (not quantised).
 * a and c are f32, f16 or bf16.  Sums are f32, in the order of k.  Where m <= few_rows the
 * dot-product form is used (b must then be [n][k], a [m][k]); it depends on m of the whole problem,
 * not on the part.  With one_form it is used for any m.
 *
 * b_packed: b is what pack_weights made of quantised [n][k]; parts of c begin at columns that are
 * multiples of 32.  Where at_simd_wants_acts, x is what pack_acts made of all of a (which is not
 * read otherwise).  int8: a is rounded to -127 .. 127 times a scale for each 32 of a row, and
 * products are integers. */
enum at_int8 { AT_INT8_NO, AT_INT8, AT_INT8_DOT };
struct at_matmul {
    const void *a, *b;
    void *c;
    int64_t a_stride, b_stride, c_stride;
    int64_t m, n, k;
    enum at_elem a_type, b_type, c_type;
    int b_is_kn, b_packed;
    int one_form; /* a row of c has the same bits whatever m is: by dot products wherever they can
                     be */
    int a_is_km;  /* a is [k][m]: the transpose of rows */
    enum at_int8 int8; /* DOT: by instructions that the CPU must have (at_simd_int8) */
    void *x;
};

/* Rows that are read or written next, n of so many bytes, and then others. */
struct at_ahead {
    const void *const *row;
    int64_t n, bytes;
    const struct at_ahead *then;
};

/* Keys that not every row of a panel sees: row r sees those from low[r] to below high[r], and every
 * row those from `full` to below full_end; all counted from the first key of the block. */
struct at_edges {
    const float *low, *high; /* [rows_per_panel], whole numbers */
    int64_t full, full_end;
};

struct at_expr_program;
struct at_expr_block;

enum at_simd_function {
    AT_SIMD_SILU,
    AT_SIMD_GELU,
    AT_SIMD_GELU_TANH,
    AT_SIMD_TANH,
    AT_SIMD_SIGMOID,
    AT_SIMD_RELU,
    AT_SIMD_FUNCTIONS
};

/* first and second: what m and v are times, for their beginning at 0; factor: of gradients. */
struct at_simd_adamw {
    float rate, decay, beta1, beta2, eps, first, second, factor;
};

struct at_simd {
    const char *name;   /* "scalar", "avx2", "avx512", "neon" */
    int vl;             /* floats in a vector */
    int rows_per_panel; /* packed rows of a panel; also the row stride of its score block */
    int keys_per_tile; /* keys that the micro-kernel computes at once: good boundaries for full keys
                        */
    int keys_per_block; /* most keys of a score block of the panel shape; a multiple of 48 */
    int dots_rows;      /* most rows of the dots shape */
    int dots_keys;      /* most keys of a score block of the dots shape */
    int few_rows;       /* matmul: at most this many rows go through the dot-product form */
    int packed_rows;    /* matmul, b_packed: at most this many go past packed weights as they are */

    /* ---- attention, panel shape ---- */

    /* rows[rows_per_panel]: pointers to dk elements (f32, f16 or bf16); NULL makes a lane of zeros.
     * Values are multiplied by scale.  qp: at_simd_q_floats. */
    void (*pack_q)(float *qp, const void *const *rows, enum at_elem type, int64_t dk, float scale);
    /* Rows of any type to f32 rows: dst[j * width + d].  f32 rows are better used in place. */
    void (*pack_k)(float *dst, const struct at_rows *k);
    /* Rows j0 .. j0 + v->n of a block, j0 + v->n <= keys_per_block; pages of a block may come by
     * several calls.  hidden[v->n], or NULL: rows marked in it (hidden from every row of all
     * panels) become zeros whatever they hold.  Returns 1 if a row that is not hidden has a NaN or
     * infinity. vp: at_simd_v_floats. */
    int (*pack_v)(float *vp, int64_t j0, const struct at_rows *v, const uint8_t *hidden);
    /* st[j0 + j][row] = scores of k's rows (f32, in place or packed), j < k->n. */
    void (*scores)(float *st, int64_t j0, const float *qp, const struct at_rows *k);
    /* The same for additive scores, sum over d of va[d] tanh(q[d] + k[d]).  qp is what pack_q left
     * there, then additive_pack_q, and has room for 2 dk: at_simd_q_floats(t, 2 * dk). */
    void (*additive_pack_q)(float *qp, int64_t dk);
    void (*additive_scores)(float *st, int64_t j0, const float *qp, const struct at_rows *k,
                            const float *va);
    /* st[j0 .. j0+n): scores to weights; -INFINITY becomes a weight of -0.0, the mark of a hidden
     * key.  Moves m, and then rescales l, acc and the weights of this block before j0, if it must.
     */
    void (*softmax_step)(float *st, int64_t j0, int64_t n, float *state, int64_t dv, float scale);
    /* scores and softmax_step in one, where scores need no more than to be hidden; no score is
     * stored.  edges: which are; NULL: none is.  ahead, or NULL: what is brought into the
     * cache meanwhile. */
    void (*scores_softmax)(float *st, int64_t j0, const float *qp, const struct at_rows *k,
                           float *state, int64_t dv, float scale, const struct at_edges *edges,
                           const struct at_ahead *ahead);
    /* acc += weights * values over keys [j0, j1) of the block; first: acc = , whatever it was.
     * exact: select per (row, key), so that a NaN or infinite value reaches only rows that see it;
     * needed if pack_v returned 1 and some key of [j0, j1) is hidden from some row.  ahead as
     * above. */
    void (*accumulate)(float *state, int64_t dv, const float *st, const float *vp, int64_t j0,
                       int64_t j1, int first, int exact, const struct at_ahead *ahead);
    /* st[j][r] += what p has for row r of n, in either shape, and j < keys.  -INFINITY there hides:
     * it is stored, whatever the score was. */
    void (*bias)(float *st, int64_t stride, int n, int64_t keys, const struct at_pairs *p);
    /* Weights of keys [j0, j1), the first at st, times what dropout says (lib/philox.h); row r of
     * n, in either shape, is query row i[r] of head bh[r].  Comes after the last softmax_step of a
     * block; marks of hidden keys stay. */
    void (*dropout)(float *st, int64_t stride, int n, int64_t j0, int64_t j1,
                    const struct at_dropout *d, const uint32_t *i, const uint32_t *bh);
    /* st[j0 .. j0+n): scores to weights e^(scale s - lse[row]), and 0 for -INFINITY. */
    void (*weights)(float *st, int64_t j0, int64_t n, const float *lse, float scale);
    /* The same by the m that softmax_step left of these scores: by[row] e^(scale (s - m[row])). */
    void (*shares)(float *st, int64_t j0, int64_t n, const float *m, const float *by, float scale);
    /* The first key of [j, end) with a score above floor[row] in some row, or end. */
    int64_t (*next_above)(const float *st, int64_t j, int64_t end, const float *floor);
    /* Folds `other` (keys after those of state) into state. */
    void (*merge)(float *state, const float *other, int64_t dv, float scale);
    /* out[r][0 .. dv) = acc / l, for each out[r] that is not NULL; type f32, f16 or bf16.  sink, or
     * NULL: natural logit of each row.  lse, or NULL: [rows_per_panel], natural. */
    void (*finish)(const float *state, int64_t dv, const float *sink, void *const *out,
                   enum at_elem type, float *lse, float scale);

    /* ---- attention, backward, panel shape ----
     *
     * For a group of back_group panels and a block of back_keys keys, weights
     * st[panel][back_keys][row]:
     *
     *     each panel: back_weights (or scores, hide, weights); then dV's sums by back_keys
     *     each panel: back_scores, weights to gradients of scores; then dK's sums by back_keys, and
     *                 dQ's by accumulate, K being what pack_v packed
     *
     * A weight of 0 stands for a hidden key. */
    int back_group, back_block;
    /* Asks for rows [from, to), of those that there are, to come into the cache. */
    void (*bring)(const struct at_rows *rows, int64_t from, int64_t to);
    /* n rows (NULL: zeros) to dst[width / R][room][R], the first of them at dst. */
    void (*back_pack_rows)(float *dst, int64_t room, const void *const *rows, int n,
                           enum at_elem type, int64_t width);
    /* st[j0 + j][row] = e^(scale s - lse[row]) of one panel, for keys that every row sees.  A row
     * that is not there has lse +INFINITY. */
    void (*back_weights)(float *st, int64_t j0, const float *qp, const struct at_rows *k,
                         const float *lse, float scale);
    /* st = st (v . dO - delta[row]); op is what pack_q made of rows of dO.  masked: where st is 0,
     * the result is the mark of hidden keys, -0.0, whatever v holds. */
    void (*back_scores)(float *st, int64_t j0, const float *op, const struct at_rows *v,
                        const float *delta, int masked);
    /* st = st (dp - delta[row]) over n keys, masked; dp is a score block of v . dO. */
    void (*back_combine)(float *st, const float *dp, const float *delta, int64_t n);
    /* st = st (1 - tanh^2(by raw)) over n keys, where st is not 0. */
    void (*back_softcap)(float *st, const float *raw, float by, int64_t n);
    /* sum[width / R][back_block][R] += st^T rows, for keys [j0, j1) of the block and all panels;
     * rows are those of the panels' back_pack_rows. */
    void (*back_keys)(float *sum, const float *st, int panels, int64_t j0, int64_t j1,
                      const float *rows, int64_t room, int64_t width);
    /* Instead of back_keys and accumulate, where scores are additive: gradients of one panel's and
     * k's rows, of scores st[j0 .. j0 + k->n), to sums of keys, to the panel's state and to
     * dva[dk].  qp as additive_scores wants it.  exact: keys whose st is 0 give nothing, whatever
     * they hold. */
    void (*additive_back)(float *sum, float *state, double *dva, const float *st, int64_t j0,
                          const float *qp, const struct at_rows *k, const float *va, int exact);
    /* n rows of sums, times `by`, stored or added to rows of f32. */
    void (*back_store)(float *dst, int64_t stride, const float *sum, int64_t n, int64_t width,
                       float by, int add);
    /* out[r][0 .. width) = acc[.][r] scale, of a state as accumulate leaves it. */
    void (*back_finish)(const float *state, int64_t width, float scale, void *const *out);

    /* ---- attention, dots shape: n rows, 1 <= n <= dots_rows ---- */

    /* As pack_q, for n rows.  qd: at_simd_dots_q_floats. */
    void (*dots_pack_q)(float *qd, const void *const *rows, int n, enum at_elem type, int64_t dk,
                        float scale);
    /* st[j][row] for k->n <= dots_keys keys of any type but q4_1.  ahead, or NULL: rows that will
     * be read next (the values of these keys), prefetched meanwhile. */
    void (*dots_scores)(float *st, const float *qd, int n, const struct at_rows *k,
                        const struct at_rows *ahead);
    /* The whole block st[0 .. keys), marks as in softmax_step. */
    void (*dots_softmax_step)(float *st, int64_t keys, int n, float *state, int64_t dv,
                              float scale);
    /* acc += weights * v.  exact: skip hidden (row, key) pairs, for blocks with any hidden key.
     * ahead: as in dots_scores (the keys of the next block). */
    void (*dots_accumulate)(float *state, int n, const float *st, const struct at_rows *v,
                            int exact, const struct at_rows *ahead);
    void (*dots_merge)(float *state, const float *other, int n, int64_t dv, float scale);
    void (*dots_finish)(const float *state, int n, int64_t dv, const float *sink, void *const *out,
                        enum at_elem type, float *lse, float scale);

    /* ---- matrix product ---- */

    /* Rows [i0, i1) and columns [n0, n1) of c.  scratch: at_simd_matmul_floats(table, mm). */
    void (*matmul)(const struct at_matmul *mm, int64_t i0, int64_t i1, int64_t n0, int64_t n1,
                   float *scratch);
    /* Quantised rows to dst, 64-byte aligned, of at_simd_weights_bytes. */
    void (*pack_weights)(void *dst, const struct at_rows *w);
    /* Rows [i0, i1) of a to mm->x. */
    void (*pack_acts)(const struct at_matmul *mm, int64_t i0, int64_t i1);

    /* ---- rows of n elements; y may be x (or a, b) ---- */

    /* Any type to f32, f16 or bf16 (nearest, ties to even). */
    void (*convert)(void *y, enum at_elem ytype, const void *x, enum at_elem xtype, int64_t n);
    void (*add)(float *y, const float *a, const float *b, int64_t n);
    void (*mul)(float *y, const float *a, const float *b, int64_t n);
    void (*scale)(float *y, const float *x, float by, int64_t n);
    void (*silu)(float *y, const float *x, int64_t n);
    void (*silu_mul)(float *y, const float *a, const float *b, int64_t n); /* silu(a) * b */
    void (*gelu)(float *y, const float *x, int64_t n);                     /* exact, by erf */
    void (*gelu_tanh)(float *y, const float *x, int64_t n);
    void (*tanh)(float *y, const float *x, int64_t n);
    void (*softmax)(float *y, const float *x, int64_t n); /* a row of -inf gives zeros */
    /* w, or NULL: weight; bias likewise. */
    void (*rms_norm)(float *y, const float *x, const float *w, int64_t n, float eps);
    void (*layer_norm)(float *y, const float *x, const float *w, const float *bias, int64_t n,
                       float eps);
    /* Rotates pairs.  half: (i, i + half), by cos[half], sin[half]; interleaved: (2i, 2i + 1) of n
     * elements, each with its own cos and sin, of which the first of a pair has the sine's negative.
     */
    void (*rope_half)(float *y, const float *x, const float *cos, const float *sin, int64_t half);
    void (*rope_interleaved)(float *y, const float *x, const float *cos, const float *sin,
                             int64_t n);

    /* ---- rows, in training ---- */

    float (*dot)(const float *a, const float *b, int64_t n);
    float (*sum)(const float *a, int64_t n);
    float (*lse)(const float *x, int64_t n);                                /* ln sum e^x */
    void (*exp)(float *y, const float *x, float less, float by, int64_t n); /* by e^(x - less) */
    void (*function_grad)(enum at_simd_function f, float *dx, const float *x, const float *dy,
                          int64_t n);
    void (*softmax_grad)(float *dx, const float *y, const float *dy,
                         int64_t n); /* y (dy - y . dy) */
    /* Of rms_norm, or (centred) layer_norm.  w may be NULL; dw, where not NULL, is added to. */
    void (*norm_grad)(float *dx, float *dw, const float *x, const float *w, const float *dy,
                      int64_t n, float eps, int centred);
    void (*adamw)(float *w, float *m, float *v, const float *g, int64_t n,
                  const struct at_simd_adamw *p);

    /* ---- expressions (expr.h): scratch has the size that the program states ---- */

    void (*expr)(const struct at_expr_program *p, const struct at_expr_block *block, void *scratch);

    /* ---- ceilings, for benchmarks; sink[vl] takes what keeps the work from being left out ---- */

    /* `rounds` of independent multiply-adds and nothing else; how many operations that were. */
    int64_t (*probe_fma)(float *sink, int64_t rounds);
    /* Reads memory in order: whole vectors of it. */
    void (*probe_read)(float *sink, const void *from, int64_t bytes);
};

/* ---- sizes of scratch, in floats: every one is a multiple of 16, so that arrays of them stay
 * 64-byte aligned.  dk, dv: 1 .. AT_SIMD_MAX_HEAD ---- */

#define AT_SIMD_MAX_HEAD 576

static inline int64_t at_simd_round(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}
static inline int64_t at_simd_q_floats(const struct at_simd *t, int64_t dk)
{
    return at_simd_round(dk * t->rows_per_panel, 16);
}
static inline int64_t at_simd_state_floats(const struct at_simd *t, int64_t dv)
{
    return at_simd_round((dv + 2) * t->rows_per_panel, 16);
}
static inline int64_t at_simd_block_floats(const struct at_simd *t)
{
    return at_simd_round((int64_t)t->keys_per_block * t->rows_per_panel, 16);
}
static inline int64_t at_simd_k_floats(const struct at_simd *t, int64_t dk)
{
    return at_simd_round(t->keys_per_block * dk, 16);
}
static inline int64_t at_simd_v_floats(const struct at_simd *t, int64_t dv)
{
    return at_simd_round(t->keys_per_block * at_simd_round(dv, t->keys_per_tile), 16);
}
/* Row stride of the dots score block: the power of two that is not under n. */
static inline int64_t at_simd_dots_stride(int n)
{
    return n <= 1 ? 1 : n <= 2 ? 2 : n <= 4 ? 4 : n <= 8 ? 8 : 16;
}
static inline int64_t at_simd_dots_q_floats(int n, int64_t dk)
{
    return at_simd_dots_stride(n) * at_simd_round(dk, 32);
}
static inline int64_t at_simd_dots_state_floats(int n, int64_t dv)
{
    return 32 + n * at_simd_round(dv, 32);
}
static inline int64_t at_simd_dots_block_floats(const struct at_simd *t, int n)
{
    return at_simd_round(t->dots_keys * at_simd_dots_stride(n), 16);
}
/* Scratch of matmul, for any part of mm. */
int64_t at_simd_matmul_floats(const struct at_simd *t, const struct at_matmul *mm);
/* Bytes of packed weights [n][k]. */
int64_t at_simd_weights_bytes(const struct at_simd *t, enum at_elem type, int64_t n, int64_t k);
/* Is mm, with b_packed, of packed activations; and their bytes. */
static inline int at_simd_wants_acts(const struct at_simd *t, const struct at_matmul *mm)
{
    return mm->b_packed && (mm->int8 || mm->one_form || mm->m <= t->packed_rows);
}
int64_t at_simd_acts_bytes(const struct at_matmul *mm);
/* The best way of integer products that this CPU has for the code of t. */
enum at_int8 at_simd_int8(const struct at_simd *t);

/* ---- the list of instruction sets (select.c) ---- */

/* One line of the list, lowest first.  table is NULL where it cannot run here, and why says so: not
 * in this build, not in this CPU, not enabled by the system, or masked by ATTEND_ISA (which names
 * the highest one to use). */
struct at_simd_isa {
    const char *name;
    const struct at_simd *table;
    const char *why;
};
#define AT_SIMD_ISAS 4
void at_simd_list(struct at_simd_isa list[AT_SIMD_ISAS]);
/* What ATTEND_ISA says, where that is the name of none of them; else NULL. */
const char *at_simd_unknown(void);
/* The table of that name if it can run here, or NULL. */
const struct at_simd *at_simd_find(const char *name);
/* The last table of the list that can run; NULL where a build has none for this CPU. */
const struct at_simd *at_simd_best(void);

#endif
