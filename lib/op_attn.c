/* SPDX-License-Identifier: MIT */
/* Attention, its masks, its weights, and the merging of parts. */
#include <math.h>
#include <string.h>

#include "expr.h"
#include "op.h"

/* ---- attention ---- */

#define MAX_TOP 65536 /* weights of a row, in their order */

static void mask_inputs(attend_graph *g, const attend_mask_opts *m, int *in, struct at_visible *v)
{
    int mask = at_op_maybe(g, m->mask, "the mask");
    if (mask >= 0)
        in[g->tensor[mask].type == ATTEND_BOOL ? AT_IN_MASK : AT_IN_BIAS] = mask;
    in[AT_IN_KV_USED] = at_op_maybe(g, m->kv_used, "kv_used");
    in[AT_IN_Q_OFFSET] = at_op_maybe(g, m->q_offset, "q_offset");
    *v = (struct at_visible){.causal = m->causal != 0,
                             .align = m->align,
                             .left = m->window_left,
                             .right = m->window_right};
}

/* Checks what masks (B, H, Sq, Skv): all that AT_MASK and AT_ATTENTION share. */
static int check_visible(attend_graph *g, struct at_node *n, const int64_t *scores, bool packed)
{
    const struct at_visible *v = &n->p.attention.visible;
    int64_t out[ATTEND_MAX_RANK];
    if (v->left < -1 || v->right < -1)
        return at_graph_fail(g, n, ATTEND_EINVAL, "window %lld,%lld: wants -1 (open) or more",
                             (long long)v->left, (long long)v->right);
    if (v->align != ATTEND_ALIGN_UNSET && v->align != ATTEND_TOP_LEFT &&
        v->align != ATTEND_BOTTOM_RIGHT)
        return at_graph_fail(g, n, ATTEND_EINVAL, "align is %d, which is none", (int)v->align);
    if (n->in[AT_IN_Q_OFFSET] >= 0 && v->align != ATTEND_ALIGN_UNSET)
        return at_graph_fail(g, n, ATTEND_EINVAL, "both align and q_offset are given");
    for (int k = AT_IN_BIAS; k <= AT_IN_MASK; k++) {
        if (n->in[k] < 0)
            continue;
        const struct at_tensor *m = at_op_input(g, n, k);
        if (k == AT_IN_BIAS && at_op_want_float(g, n, k, 0) < 0)
            return -1;
        if (m->rank > 4)
            return at_graph_fail(g, n, ATTEND_EINVAL, "the mask has %d axes, wants at most 4",
                                 m->rank);
        bool fits = packed || at_op_broadcast(m->shape, m->rank, scores, 4, out);
        for (int d = 0; fits && !packed && d < 4; d++) /* packed: checked in bind */
            fits = out[d] == scores[d];
        if (!fits) {
            char got[128], want[128];
            return at_graph_fail(g, n, ATTEND_EINVAL,
                                 "the mask is %s, which does not broadcast to %s",
                                 at_shape_text(&g->dims, m->rank, m->shape, got, sizeof got),
                                 at_shape_text(&g->dims, 4, scores, want, sizeof want));
        }
    }
    for (int k = AT_IN_KV_USED; k <= AT_IN_Q_OFFSET; k++) {
        const char *what = k == AT_IN_KV_USED ? "kv_used" : "q_offset";
        if (n->in[k] < 0)
            continue;
        if (at_op_want_type(g, n, k, ATTEND_I32, what) < 0 ||
            (!packed && at_op_want_shape(g, n, k, 1, scores, what) < 0))
            return -1;
        if (at_op_input(g, n, k)->rank !=
            1) /* packed: how many sequences there are is seen in bind */
            return at_graph_fail(g, n, ATTEND_EINVAL, "%s has rank %d, wants one entry a sequence",
                                 what, at_op_input(g, n, k)->rank);
    }
    bool matters = v->causal || v->left >= 0 || v->right >= 0 || n->in[AT_IN_ALIBI] >= 0;
    if (matters && v->align == ATTEND_ALIGN_UNSET && n->in[AT_IN_Q_OFFSET] < 0 && !packed &&
        scores[2] >= 0 && scores[3] >= 0 && scores[2] != scores[3] && n->in[AT_IN_KV_USED] < 0)
        return at_graph_fail(g, n, ATTEND_EINVAL,
                             "align is not set, and %lld query rows are not %lld keys: top-left or "
                             "bottom-right?",
                             (long long)scores[2], (long long)scores[3]);
    return 0;
}

/* A layout, as (B, H, blocks of rows, blocks of keys), covers the scores; where extents are not
 * numbers, or sequences are packed, bind looks at the last two (attn.c). */
static int check_layout(attend_graph *g, struct at_node *n, const int64_t *scores, bool packed)
{
    const struct at_layout *l = &n->p.attention.layout;
    if (!l->rows)
        return 0;
    const struct at_tensor *t = at_op_input(g, n, AT_IN_CAPTURE + l->capture);
    char got[128], want[128];
    int none = 4 - t->rank;
    bool fits = true;
    for (int d = none; fits && d < 4; d++) {
        int64_t extent = t->shape[d - none], size = d == 2 ? l->rows : d == 3 ? l->keys : 1;
        if (extent < 0 || scores[d] < 0 || (packed && d != 1))
            continue;
        fits = d < 2 ? extent == 1 || extent == scores[d] : extent == at_ceil_div(scores[d], size);
    }
    return fits ? 0
                : at_graph_fail(
                      g, n, ATTEND_EINVAL,
                      "the layout is %s, which are no blocks of %lld rows by %lld keys of scores "
                      "%s",
                      at_shape_text(&g->dims, t->rank, t->shape, got, sizeof got),
                      (long long)l->rows, (long long)l->keys,
                      at_shape_text(&g->dims, 4, scores, want, sizeof want));
}

int at_infer_mask(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    if (at_op_want_float(g, n, 0, 4) < 0)
        return -1;
    if (at_op_input(g, n, 0)->rank != 4)
        return at_graph_fail(g, n, ATTEND_EINVAL, "scores have rank %d, wants (B, H, Sq, Skv)",
                             at_op_input(g, n, 0)->rank);
    if (check_visible(g, n, at_op_input(g, n, 0)->shape, false) < 0)
        return -1;
    if (at_op_result(g, n, ATTEND_F32, 4, at_op_input(g, n, 0)->shape) < 0)
        return -1;
    at_op_order_like(g, n, 0);
    return 0;
}

void attend_mask_opts_init(attend_mask_opts *opts)
{
    *opts = (attend_mask_opts){.size = sizeof *opts,
                               .window_left = -1,
                               .window_right = -1,
                               .mask = attend_none(),
                               .kv_used = attend_none(),
                               .q_offset = attend_none()};
}

attend_tensor attend_graph_mask(attend_graph *g, attend_tensor scores, const attend_mask_opts *opts)
{
    attend_mask_opts o;
    int in[AT_IN_COUNT];
    union at_params p = {0};
    memset(in, -1, sizeof in);
    attend_mask_opts_init(&o);
    at_opts_take(&g->err, "attend_mask_opts", &o, sizeof o, opts);
    in[AT_IN_Q] = at_graph_use(g, scores, "scores of mask");
    mask_inputs(g, &o, in, &p.attention.visible);
    p.attention.scale = 1;
    return at_op_append(g, AT_MASK, in, AT_IN_COUNT, &p, NULL);
}

/* An optional vector: a number a head, or a channel. */
static int vector(attend_graph *g, struct at_node *n, int k, int64_t count, const char *what)
{
    return n->in[k] < 0 ? 0
           : at_op_want_type(g, n, k, ATTEND_F32, what) < 0 ||
                   at_op_want_shape(g, n, k, 1, &count, what) < 0
               ? -1
               : 0;
}

/* Keys by pages: a sequence has as many as its row of the table can name. */
static int check_pages(attend_graph *g, struct at_node *n, bool packed, int64_t *scores)
{
    const struct at_tensor *table = at_op_input(g, n, AT_IN_TABLE);
    int64_t page = scores[3];
    if (at_op_want_type(g, n, AT_IN_TABLE, ATTEND_I32, "block_table") < 0)
        return -1;
    if (table->rank != 2 || (!packed && table->shape[0] != scores[0]))
        return at_op_misfit(g, n, table, at_op_input(g, n, AT_IN_Q),
                            "wants a block_table (B, pages)");
    if (n->in[AT_IN_KV_USED] < 0)
        return at_graph_fail(g, n, ATTEND_EINVAL, "block_table is given without kv_used");
    if (page < 1)
        return at_graph_fail(g, n, ATTEND_EINVAL, "pages hold %lld keys, wants 1 or more",
                             (long long)page);
    scores[3] = at_graph_form(g, table->shape[1], page, 0);
    return g->err.status;
}

/* The numbers of the mode, of which ROWS are among `rows`. */
static int check_weights(attend_graph *g, struct at_node *n, int64_t rows)
{
    const struct at_weights *p = &n->p.attention.weights;
    int64_t most = at_dim_min(&g->dims, rows);
    if (p->mode == ATTEND_WEIGHTS_ROWS && (p->first < 0 || p->end < p->first || p->end > most))
        return at_graph_fail(g, n, ATTEND_EINVAL, "rows %lld to %lld of %lld", (long long)p->first,
                             (long long)p->end, (long long)most);
    if (p->mode == ATTEND_WEIGHTS_TOPK && (p->k < 1 || p->k > MAX_TOP))
        return at_graph_fail(g, n, ATTEND_EINVAL, "the largest %lld of a row, wants 1 to %d",
                             (long long)p->k, MAX_TOP);
    if (p->mode == ATTEND_WEIGHTS_POOL &&
        (p->rows < 1 || p->cols < 1 || p->rows > INT32_MAX || p->cols > INT32_MAX))
        return at_graph_fail(g, n, ATTEND_EINVAL, "a map of %lld x %lld cells, wants 1 or more",
                             (long long)p->rows, (long long)p->cols);
    if ((int)p->mode < 0 || p->mode > ATTEND_WEIGHTS_POOL)
        return at_graph_fail(g, n, ATTEND_EINVAL, "mode %d of weights, which is none",
                             (int)p->mode);
    return 0;
}

/* What is kept of weights, once q and k are checked as attention's: (B, H, Sq, Skv) = scores, or of
 * packed sequences (H, T, Skv), of which pools, and columns of pages, are a sequence's own. */
static int weights_results(attend_graph *g, struct at_node *n, bool packed, const int64_t *scores)
{
    const struct at_weights *p = &n->p.attention.weights;
    int64_t out[4], lse[3];
    int skip = packed ? 1 : 0, entries = n->in[AT_IN_Q_LENS];
    memcpy(out, scores, sizeof out);
    memcpy(lse, scores, sizeof lse);
    if (n->in[AT_IN_LSE] >= 0 &&
        (at_op_want_type(g, n, AT_IN_LSE, ATTEND_F32, "lse") < 0 ||
         at_op_want_shape(g, n, AT_IN_LSE, 3 - skip, lse + skip, "lse") < 0))
        return -1;
    if (check_weights(g, n, scores[2]) < 0)
        return -1;
    bool own = packed && (p->mode == ATTEND_WEIGHTS_POOL ||
                          (p->mode == ATTEND_WEIGHTS_COLUMNS && n->in[AT_IN_TABLE] >= 0));
    if (own) {
        out[0] = at_graph_form(g, g->tensor[entries].shape[0], 1, -1);
        skip = 0;
    }
    if (g->err.status)
        return -1;
    if (p->mode == ATTEND_WEIGHTS_COLUMNS) {
        out[2] = scores[3];
        return at_op_result(g, n, ATTEND_F32, 3 - skip, out + skip);
    }
    if (p->mode == ATTEND_WEIGHTS_ROWS) {
        out[2] = p->end - p->first;
    } else if (p->mode == ATTEND_WEIGHTS_TOPK) {
        out[3] = p->k;
    } else if (p->mode == ATTEND_WEIGHTS_POOL) {
        out[2] = p->rows;
        out[3] = p->cols;
    }
    int kept = at_op_result(g, n, ATTEND_F32, 4 - skip, out + skip);
    return kept >= 0 && p->mode == ATTEND_WEIGHTS_TOPK
               ? at_op_result(g, n, ATTEND_I32, 4 - skip, out + skip)
               : kept;
}

int at_infer_attention(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *q = at_op_input(g, n, AT_IN_Q), *k = at_op_input(g, n, AT_IN_K),
                           *v = at_op_input(g, n, n->op == AT_WEIGHTS ? AT_IN_K : AT_IN_V);
    bool packed = n->in[AT_IN_Q_LENS] >= 0, paged = n->in[AT_IN_TABLE] >= 0;
    int rank = packed ? 3 : 4, krank = packed && !paged ? 3 : 4, heads = 1, row = packed ? 0 : 2,
        krow = krank == 3 ? 0 : 2, last = rank - 1;
    if ((packed && !paged) != (n->in[AT_IN_KV_LENS] >= 0))
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s",
                             paged ? "both kv_lens and block_table are given"
                                   : "only one of q_lens and kv_lens is given");
    if (at_op_want_float(g, n, AT_IN_Q, 0) < 0)
        return -1;
    if (!at_op_is_float(k->type) && k->type != ATTEND_Q8_0 && k->type != ATTEND_Q4_0 &&
        k->type != ATTEND_F8)
        return at_graph_fail(g, n, ATTEND_EINVAL, "k is %s, wants f32, f16, bf16, q8_0, q4_0 or f8",
                             attend_type_name(k->type));
    if (q->rank != rank || k->rank != krank || v->rank != krank)
        return at_graph_fail(g, n, ATTEND_EINVAL, "q, k and v have ranks %d, %d and %d, want %s",
                             q->rank, k->rank, v->rank,
                             paged    ? "a pool (P, G, page, D)"
                             : packed ? "(T, H, D)"
                                      : "(B, H, S, D)");
    if (k->type != v->type && n->in[AT_IN_ADDITIVE] < 0) /* additive: k is a projection */
        return at_graph_fail(g, n, ATTEND_EINVAL, "k is %s but v is %s", attend_type_name(k->type),
                             attend_type_name(v->type));
    int64_t nh = q->shape[heads], ng = k->shape[heads], dk = q->shape[last],
            dv = v->shape[krank - 1];
    if (dk != k->shape[krank - 1])
        return at_graph_fail(g, n, ATTEND_EINVAL, "q has head size %lld but k has %lld",
                             (long long)dk, (long long)k->shape[krank - 1]);
    if (dk < 1 || dk > AT_MAX_HEAD || dv < 1 || dv > AT_MAX_HEAD)
        return at_graph_fail(g, n, ATTEND_ELIMIT, "head sizes %lld and %lld, wants 1 to %d",
                             (long long)dk, (long long)dv, AT_MAX_HEAD);
    if (v->shape[heads] != ng || v->shape[krow] != k->shape[krow] || v->shape[0] != k->shape[0] ||
        (!packed && !paged && k->shape[0] != q->shape[0]))
        return at_op_misfit(g, n, k, v,
                            packed ? "wants k and v (T, G, D)"
                                   : "wants q, k and v of one batch, k and v of equal length");
    if (ng < 1 || nh < 1 || nh % ng)
        return at_graph_fail(g, n, ATTEND_EINVAL,
                             "%lld query heads are not a multiple of %lld KV heads", (long long)nh,
                             (long long)ng);
    int64_t scores[] = {packed ? -1 : q->shape[0], nh, q->shape[row], k->shape[krow]};
    if (paged && check_pages(g, n, packed, scores) < 0)
        return -1;
    if (at_op_want_scale(g, n, AT_IN_K_SCALE, k, "k_scale") < 0 ||
        at_op_want_scale(g, n, AT_IN_V_SCALE, v, "v_scale") < 0)
        return -1;
    if (vector(g, n, AT_IN_ALIBI, nh, "alibi") < 0 || vector(g, n, AT_IN_SINKS, nh, "sinks") < 0)
        return -1;
    if (vector(g, n, AT_IN_ADDITIVE, dk, "additive") < 0)
        return -1;
    if (packed) {
        int other = paged ? AT_IN_Q_LENS : AT_IN_KV_LENS;
        const struct at_tensor *a = at_op_input(g, n, AT_IN_Q_LENS), *b = at_op_input(g, n, other);
        if (at_op_want_type(g, n, AT_IN_Q_LENS, ATTEND_I32, "q_lens") < 0 ||
            at_op_want_type(g, n, other, ATTEND_I32, "kv_lens") < 0)
            return -1;
        if (a->rank != 1 || b->rank != 1 || a->shape[0] != b->shape[0] || a->shape[0] == 0)
            return at_op_misfit(g, n, a, b, "wants q_lens and kv_lens of N + 1 entries");
    }
    if (check_visible(g, n, scores, packed) < 0 || check_layout(g, n, scores, packed) < 0)
        return -1;
    struct at_attention *p = &n->p.attention;
    if (isnan(p->scale))
        p->scale = n->in[AT_IN_ADDITIVE] >= 0 ? 1 : (float)(1 / sqrt((double)dk));
    if (!isfinite(p->scale) || !isfinite(p->softcap) || p->softcap < 0)
        return at_graph_fail(g, n, ATTEND_EINVAL, "scale is %g and softcap %g, want finite numbers",
                             (double)p->scale, (double)p->softcap);
    if (!(p->dropout >= 0 && p->dropout < 1))
        return at_graph_fail(g, n, ATTEND_EINVAL, "dropout is %g, wants 0 or more and less than 1",
                             (double)p->dropout);
    if (n->in[AT_IN_DRAW] >= 0 &&
        (at_op_want_type(g, n, AT_IN_DRAW, ATTEND_I32, "draw") < 0 ||
         at_op_want_shape(g, n, AT_IN_DRAW, 1, (const int64_t[]){1}, "draw") < 0))
        return -1;
    if (n->op == AT_WEIGHTS)
        return weights_results(g, n, packed, scores);
    int64_t o[4], l[3];
    memcpy(o, q->shape, sizeof o);
    o[last] = dv;
    if (at_op_result(g, n, ATTEND_F32, rank, o) < 0)
        return -1;
    at_op_order_like(g, n, AT_IN_Q);
    q = at_op_input(g, n, AT_IN_Q);
    if (packed)
        l[0] = nh, l[1] = q->shape[0];
    else
        memcpy(l, q->shape, sizeof l);
    return at_op_result(g, n, ATTEND_F32, rank - 1, l);
}

/* Pairs of a row and a key, about. */
static double pairs(const attend_graph *g, const struct at_node *n, const int64_t *sym)
{
    const struct at_tensor *q = at_op_input(g, n, AT_IN_Q), *k = at_op_input(g, n, AT_IN_K);
    double keys = (double)at_dim_eval(&g->dims, k->shape[k->rank == 3 ? 0 : 2], sym);
    if (n->in[AT_IN_TABLE] >= 0)
        keys *= (double)at_dim_eval(&g->dims, at_op_input(g, n, AT_IN_TABLE)->shape[1], sym);
    double rows = at_op_product(g, n->in[AT_IN_Q], sym) / (double)q->shape[q->rank - 1];
    return rows * keys * (n->p.attention.visible.causal ? 0.5 : 1);
}

double at_flops_attention(const attend_graph *g, const struct at_node *n, const int64_t *sym)
{
    const struct at_tensor *q = at_op_input(g, n, AT_IN_Q);
    double d = (double)(q->shape[q->rank - 1] + g->tensor[n->out[0]].shape[q->rank - 1]);
    return 2 * pairs(g, n, sym) * d;
}

double at_flops_weights(const attend_graph *g, const struct at_node *n, const int64_t *sym)
{
    const struct at_tensor *q = at_op_input(g, n, AT_IN_Q);
    int passes = n->in[AT_IN_LSE] < 0 ? 2 : 1;
    return 2 * passes * pairs(g, n, sym) * (double)q->shape[q->rank - 1];
}

void attend_attention_opts_init(attend_attention_opts *opts)
{
    *opts = (attend_attention_opts){.size = sizeof *opts,
                                    .scale = NAN,
                                    .alibi = attend_none(),
                                    .sinks = attend_none(),
                                    .q_lens = attend_none(),
                                    .kv_lens = attend_none(),
                                    .block_table = attend_none(),
                                    .k_scale = attend_none(),
                                    .v_scale = attend_none(),
                                    .additive = attend_none(),
                                    .layout = attend_none(),
                                    .layout_rows = 64,
                                    .layout_keys = 64,
                                    .draw = attend_none()};
    attend_mask_opts_init(&opts->mask);
}

static bool has_layout(const attend_attention_opts *o)
{
    return o->layout.graph != NULL;
}

/* The mask becomes the condition that is read from `text`, where there is one, and the layout's
 * element. */
static int add_layout(attend_graph *g, struct at_expr *x, const char *text,
                      const attend_attention_opts *o, const int *in, char *err, size_t errlen)
{
    const struct at_tensor *t = &g->tensor[in[AT_IN_CAPTURE + o->ncaptures]];
    if (t->type != ATTEND_BOOL || t->rank < 2 || t->rank > 4)
        return at_say(err, errlen, ATTEND_EINVAL,
                      "the layout is %s with %d axes, wants bool with 2 to 4",
                      attend_type_name(t->type), t->rank);
    int status = at_expr_add_capture(x, "layout", t->type, t->rank, err, errlen);
    if (status == 0 && text)
        status = at_expr_parse(x, text, err, errlen);
    if (status < 0)
        return status;
    int both = at_expr_blocks(x, o->ncaptures, t->shape, o->layout_rows, o->layout_keys);
    if (text)
        both = at_expr_op2(x, AT_X_AND, x->root, both);
    if (both < 0)
        return at_say(err, errlen, ATTEND_ELIMIT,
                      "the mask expression is too long for a layout beside it");
    at_expr_finish(x, both);
    return 0;
}

static const struct at_expr *read_expression(attend_graph *g, const struct at_node *n, bool score,
                                             const char *text, const attend_attention_opts *o,
                                             const int *in)
{
    struct at_expr x;
    char err[320];
    int status = 0;
    at_expr_init(&x, score);
    for (int k = 0; k < o->ncaptures && status == 0; k++) {
        const struct at_tensor *t = &g->tensor[in[AT_IN_CAPTURE + k]];
        status = at_expr_add_capture(&x, o->captures[k].name, t->type, t->rank, err, sizeof err);
    }
    if (status == 0 && !score && has_layout(o))
        status = add_layout(g, &x, text, o, in, err, sizeof err);
    else if (status == 0)
        status = at_expr_parse(&x, text, err, sizeof err);
    const struct at_expr *kept = status == 0 ? at_graph_expr(g, &x) : NULL;
    if (status < 0)
        at_graph_fail(g, n, status, "%s", err);
    else if (!kept)
        at_graph_fail(g, n, ATTEND_ENOMEM, "no memory for an expression");
    return kept;
}

/* The expressions of an attention to be, and the tensors that they index. */
static void read_expressions(attend_graph *g, const attend_attention_opts *o, int *in,
                             struct at_attention *p)
{
    struct at_node n = {.op = AT_ATTENTION, .label = g->label};
    if (o->ncaptures < 0 || o->ncaptures > AT_USER_CAPTURES)
        at_graph_fail(g, &n, ATTEND_ELIMIT, "%d tensors for expressions, wants at most %d",
                      o->ncaptures, AT_USER_CAPTURES);
    for (int k = 0; k < o->ncaptures && g->err.status == 0; k++)
        if (!o->captures[k].name)
            at_graph_fail(g, &n, ATTEND_EINVAL, "a tensor for expressions has no name");
        else
            in[AT_IN_CAPTURE + k] = at_graph_use(g, o->captures[k].tensor, o->captures[k].name);
    if (has_layout(o) && g->err.status == 0) {
        in[AT_IN_CAPTURE + o->ncaptures] = at_graph_use(g, o->layout, "layout");
        p->layout = (struct at_layout){o->layout_rows, o->layout_keys, o->ncaptures};
        if (o->layout_rows < 1 || o->layout_keys < 1)
            at_graph_fail(g, &n, ATTEND_EINVAL, "blocks of the layout are %lld rows by %lld keys",
                          (long long)o->layout_rows, (long long)o->layout_keys);
    }
    if (g->err.status == 0 && o->score)
        p->score = read_expression(g, &n, true, o->score, o, in);
    if (g->err.status == 0 && (o->mask_expr || has_layout(o)))
        p->mask = read_expression(g, &n, false, o->mask_expr, o, in);
}

/* The inputs of attention and weights but the third, v or lse; and their parameters. */
static union at_params attention_inputs(attend_graph *g, attend_tensor q, attend_tensor k,
                                        const attend_attention_opts *opts, int *in)
{
    attend_attention_opts o;
    attend_mask_opts mask;
    union at_params p = {0};
    attend_mask_opts_init(&mask);
    memset(in, -1, AT_IN_COUNT * sizeof *in);
    attend_attention_opts_init(&o);
    at_opts_take(&g->err, "attend_attention_opts", &o, sizeof o, opts);
    in[AT_IN_Q] = at_graph_use(g, q, "q");
    in[AT_IN_K] = at_graph_use(g, k, "k");
    in[AT_IN_ALIBI] = at_op_maybe(g, o.alibi, "alibi");
    in[AT_IN_SINKS] = at_op_maybe(g, o.sinks, "sinks");
    in[AT_IN_Q_LENS] = at_op_maybe(g, o.q_lens, "q_lens");
    in[AT_IN_KV_LENS] = at_op_maybe(g, o.kv_lens, "kv_lens");
    in[AT_IN_TABLE] = at_op_maybe(g, o.block_table, "block_table");
    in[AT_IN_K_SCALE] = at_op_maybe(g, o.k_scale, "k_scale");
    in[AT_IN_V_SCALE] = at_op_maybe(g, o.v_scale, "v_scale");
    in[AT_IN_ADDITIVE] = at_op_maybe(g, o.additive, "additive");
    in[AT_IN_DRAW] = at_op_maybe(g, o.draw, "draw");
    at_opts_take(&g->err, "attend_mask_opts", &mask, sizeof mask, &o.mask);
    mask_inputs(g, &mask, in, &p.attention.visible);
    read_expressions(g, &o, in, &p.attention);
    p.attention.scale = o.scale;
    p.attention.softcap = o.softcap;
    p.attention.dropout = o.dropout;
    p.attention.offset = o.offset;
    p.attention.seed = o.seed;
    return p;
}

attend_tensor attend_graph_attention(attend_graph *g, attend_tensor q, attend_tensor k,
                                     attend_tensor v, const attend_attention_opts *opts,
                                     attend_tensor *lse)
{
    int in[AT_IN_COUNT];
    union at_params p = attention_inputs(g, q, k, opts, in);
    in[AT_IN_V] = at_graph_use(g, v, "v");
    attend_tensor out = at_op_append(g, AT_ATTENTION, in, AT_IN_COUNT, &p, NULL);
    if (lse)
        *lse = out.graph ? (attend_tensor){g, g->node[g->nnode - 1].out[1]} : out;
    return out;
}

void attend_weights_opts_init(attend_weights_opts *opts)
{
    *opts = (attend_weights_opts){.size = sizeof *opts, .k = 1, .rows = 1, .cols = 1};
}

attend_tensor attend_graph_attention_weights(attend_graph *g, attend_tensor q, attend_tensor k,
                                             attend_tensor lse, const attend_attention_opts *opts,
                                             const attend_weights_opts *kept, attend_tensor *index)
{
    int in[AT_IN_COUNT];
    attend_weights_opts w;
    attend_weights_opts_init(&w);
    at_opts_take(&g->err, "attend_weights_opts", &w, sizeof w, kept);
    union at_params p = attention_inputs(g, q, k, opts, in);
    in[AT_IN_LSE] = at_op_maybe(g, lse, "lse");
    p.attention.weights = (struct at_weights){w.mode, w.first, w.end, w.k, w.rows, w.cols};
    attend_tensor out = at_op_append(g, AT_WEIGHTS, in, AT_IN_COUNT, &p, NULL);
    const struct at_node *n = out.graph ? &g->node[g->nnode - 1] : NULL;
    if (index)
        *index = n && n->nout > 1 ? (attend_tensor){g, n->out[1]} : attend_none();
    return out;
}

/* ---- merge ---- */

int at_infer_merge(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    static const char *const what[] = {"o1", "lse1", "o2", "lse2"};
    const struct at_tensor *o = at_op_input(g, n, 0);
    (void)shape;
    if (o->rank < 2)
        return at_graph_fail(g, n, ATTEND_EINVAL, "o1 has rank %d, wants (..., D)", o->rank);
    for (int k = 0; k < 4; k++)
        if (at_op_want_type(g, n, k, ATTEND_F32, what[k]) < 0 ||
            at_op_want_shape(g, n, k, k % 2 ? o->rank - 1 : o->rank, o->shape, what[k]) < 0)
            return -1;
    if (at_op_result(g, n, ATTEND_F32, o->rank, o->shape) < 0)
        return -1;
    at_op_order_like(g, n, 0);
    o = at_op_input(g, n, 0);
    return at_op_result(g, n, ATTEND_F32, o->rank - 1, o->shape);
}

attend_tensor attend_graph_merge(attend_graph *g, attend_tensor o1, attend_tensor lse1,
                                 attend_tensor o2, attend_tensor lse2, attend_tensor *lse)
{
    int in[] = {at_graph_use(g, o1, "o1 of merge"), at_graph_use(g, lse1, "lse1 of merge"),
                at_graph_use(g, o2, "o2 of merge"), at_graph_use(g, lse2, "lse2 of merge")};
    attend_tensor o = at_op_append(g, AT_MERGE, in, 4, NULL, NULL);
    if (lse)
        *lse = o.graph ? (attend_tensor){g, g->node[g->nnode - 1].out[1]} : o;
    return o;
}
