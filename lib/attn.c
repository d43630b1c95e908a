/* SPDX-License-Identifier: MIT */
/* One attention problem from the bound tensors of a step: views, sequences, and every check of
 * lengths and offsets that the host can see. */
#include <math.h>
#include <stdio.h>

#include "core.h"

/* What is being resolved, and how errors name it. */
struct resolve {
    struct attend_exec *x;
    const struct at_step *s;
    char label[96];
};

static void label(struct resolve *r)
{
    const struct at_node *n = &r->x->plan->graph->node[r->s->node];
    if (n->label)
        snprintf(r->label, sizeof r->label, "%s '%s'", at_ops[n->op].name, n->label);
    else
        snprintf(r->label, sizeof r->label, "%s %d", at_ops[n->op].name, r->s->node);
}

static int refuse(const struct resolve *r, const char *what)
{
    return at_fail(&r->x->err, ATTEND_EINVAL, "%s: %s", r->label, what);
}

/* ---- views ---- */

/* v as (B, H, S, D): right-aligned where it has fewer axes, a broadcast axis with stride 0. Absent:
 * all zero, so data is NULL. */
static struct at_view rank4(const struct at_view *v)
{
    if (!v)
        return (struct at_view){0};
    struct at_view w = {.type = v->type, .rank = 4, .data = v->data};
    for (int d = 0; d < 4; d++) {
        int e = d - (4 - v->rank);
        w.shape[d] = e < 0 ? 1 : v->shape[e];
        w.stride[d] = e < 0 || v->shape[e] == 1 ? 0 : v->stride[e];
    }
    return w;
}

/* Packed rows (T, H, D) as (1, H, T, D). */
static struct at_view packed4(const struct at_view *v)
{
    return (struct at_view){
        .type = v->type,
        .rank = 4,
        .data = v->data,
        .shape = {1, v->shape[1],  v->shape[0],  v->shape[2] },
        .stride = {0, v->stride[1], v->stride[0], v->stride[2]}
    };
}

/* Queries, keys, values or outputs, of either form. */
static struct at_view rows4(const struct at_view *v, bool packed)
{
    return v && packed ? packed4(v) : rank4(v);
}

/* LSE as (B, H, S); packed it is (H, T). */
static struct at_view lse3(const struct at_view *v)
{
    if (!v || v->rank == 3)
        return v ? *v : (struct at_view){0};
    return (struct at_view){
        .type = v->type,
        .rank = 3,
        .data = v->data,
        .shape = {1, v->shape[0],  v->shape[1] },
        .stride = {0, v->stride[0], v->stride[1]}
    };
}

/* Scales of f8 values, (P, G); one for all entries has stride 0. */
static struct at_view entry_scale(const struct at_view *v)
{
    struct at_view w = v ? *v : (struct at_view){0};
    if (w.shape[0] == 1)
        w.stride[0] = 0;
    return w;
}

bool at_attn_sees(const struct attend_exec *x, const struct at_step *s, int k)
{
    const attend_graph *g = x->plan->graph;
    if (k >= s->nin || s->in[k] < 0)
        return false;
    enum at_class class = g->tensor[g->tensor[s->in[k]].root].class;
    return class == AT_INPUT || class == AT_CONST;
}

/* One float a head or channel, which kernels read as an array.  Of slopes and sinks one that makes
 * every row NaN is a mistake; a sink of -inf is none. */
static int vector(const struct resolve *r, int input, const char *name, const float **out)
{
    const struct at_view *v = at_in(r->x, r->s, input);
    *out = v ? v->data : NULL;
    if (v && v->shape[0] > 1 && v->stride[0] != 1)
        return refuse(r, "alibi slopes, sink logits and the additive vector must be contiguous");
    if (!v || input == AT_IN_ADDITIVE || !at_attn_sees(r->x, r->s, input))
        return 0;
    for (int64_t h = 0; h < v->shape[0]; h++) {
        float value = (*out)[h];
        if (!isfinite(value) && !(input == AT_IN_SINKS && value < 0))
            return at_fail(&r->x->err, ATTEND_EINVAL, "%s: %s[%lld] is %g", r->label, name,
                           (long long)h, (double)value);
    }
    return 0;
}

/* ---- sequences ---- */

static int64_t entry(const struct at_view *v, int64_t n)
{
    return ((const int32_t *)v->data)[n * v->stride[0]];
}

/* Exclusive prefix sums: from 0, never falling, within the rows that there are. */
static int check_sums(const struct resolve *r, const struct at_view *v, const char *name,
                      int64_t rows)
{
    int64_t count = v->shape[0];
    if (count < 1)
        return at_fail(&r->x->err, ATTEND_EINVAL,
                       "%s: %s is empty; for n sequences it has n + 1 entries", r->label, name);
    if (entry(v, 0) != 0)
        return at_fail(&r->x->err, ATTEND_EINVAL, "%s: %s[0] is %lld; prefix sums begin with 0",
                       r->label, name, (long long)entry(v, 0));
    for (int64_t n = 1; n < count; n++)
        if (entry(v, n) < entry(v, n - 1))
            return at_fail(&r->x->err, ATTEND_EINVAL,
                           "%s: %s[%lld] is %lld, below the %lld before it", r->label, name,
                           (long long)n, (long long)entry(v, n), (long long)entry(v, n - 1));
    if (entry(v, count - 1) > rows)
        return at_fail(&r->x->err, ATTEND_EINVAL, "%s: %s[%lld] is %lld but there are %lld rows",
                       r->label, name, (long long)(count - 1), (long long)entry(v, count - 1),
                       (long long)rows);
    return 0;
}

static int dense_seqs(struct at_attn *a, int64_t nk, struct at_seq *seq)
{
    a->nseq = a->q.shape[0];
    for (int64_t n = 0; n < a->nseq; n++)
        seq[n] = (struct at_seq){.qb = n, .nq = a->q.shape[2], .kb = n, .nk = nk};
    return 0;
}

static int packed_seqs(const struct resolve *r, struct at_attn *a, int64_t nk, struct at_seq *seq)
{
    const struct at_view *ql = at_in(r->x, r->s, AT_IN_Q_LENS);
    const struct at_view *kl = at_in(r->x, r->s, AT_IN_KV_LENS);
    int status = check_sums(r, ql, "q_lens", a->q.shape[2]);
    if (status == 0 && kl)
        status = check_sums(r, kl, "kv_lens", a->k.shape[2]);
    if (status < 0)
        return status;
    if (kl && ql->shape[0] != kl->shape[0])
        return at_fail(&r->x->err, ATTEND_EINVAL,
                       "%s: q_lens has %lld entries but kv_lens has %lld", r->label,
                       (long long)ql->shape[0], (long long)kl->shape[0]);
    a->nseq = a->sums = ql->shape[0] - 1;
    for (int64_t n = 0; n < a->nseq; n++)
        seq[n] = (struct at_seq){.q0 = entry(ql, n),
                                 .nq = entry(ql, n + 1) - entry(ql, n),
                                 .kb = kl ? 0 : n,
                                 .k0 = kl ? entry(kl, n) : 0,
                                 .nk = kl ? entry(kl, n + 1) - entry(kl, n) : nk};
    return 0;
}

static int check_count(const struct resolve *r, const struct at_view *v, const char *name,
                       int64_t nseq)
{
    if (!v || v->shape[0] == nseq)
        return 0;
    return at_fail(&r->x->err, ATTEND_EINVAL, "%s: %s has %lld entries for %lld sequences",
                   r->label, name, (long long)v->shape[0], (long long)nseq);
}

/* The pages that visible keys need are in the pool. */
static int check_table(const struct resolve *r, const struct at_attn *a, const struct at_seq *seq)
{
    int status = check_count(r, at_in(r->x, r->s, AT_IN_TABLE), "block_table", a->nseq);
    for (int64_t n = 0; status == 0 && n < a->nseq; n++) {
        struct at_keys keys = at_key_range(&a->visible, &seq[n], 0, seq[n].nq);
        for (int64_t p = keys.first / a->page; p * a->page < keys.end; p++) {
            int64_t page = a->table[seq[n].kb * a->table_stride + p];
            if (page < 0 || page >= a->k.shape[0])
                return at_fail(
                    &r->x->err, ATTEND_EINVAL,
                    "%s: block_table[%lld, %lld] is %lld, outside the pool of %lld pages", r->label,
                    (long long)n, (long long)p, (long long)page, (long long)a->k.shape[0]);
        }
    }
    return status;
}

/* Rows of q past the last sequence belong to none: they see nothing, and are written. */
static void unused_rows(struct at_attn *a, struct at_seq *seq)
{
    const struct at_seq *last = a->nseq > 0 ? &seq[a->nseq - 1] : NULL;
    int64_t used = last ? last->q0 + last->nq : 0;
    if (used < a->q.shape[2])
        seq[a->nseq++] = (struct at_seq){.q0 = used, .nq = a->q.shape[2] - used};
}

static int use_lengths(const struct resolve *r, const struct at_attn *a, struct at_seq *seq)
{
    const struct at_view *used = at_in(r->x, r->s, AT_IN_KV_USED);
    int status = check_count(r, used, "kv_used", a->nseq);
    for (int64_t n = 0; used && status == 0 && n < a->nseq; n++) {
        int64_t nk = entry(used, n);
        if (nk < 0 || nk > seq[n].nk)
            status =
                at_fail(&r->x->err, ATTEND_EINVAL, "%s: kv_used[%lld] is %lld, outside [0, %lld]",
                        r->label, (long long)n, (long long)nk, (long long)seq[n].nk);
        else
            seq[n].nk = nk;
    }
    return status;
}

/* Where rows stand among keys: q_offset, or as `align` says, or at 0 where nothing asks. */
static int use_offsets(const struct resolve *r, const struct at_attn *a, struct at_seq *seq)
{
    const struct at_visible *v = &a->visible;
    const struct at_view *given = at_in(r->x, r->s, AT_IN_Q_OFFSET);
    bool matters = v->causal || v->left >= 0 || v->right >= 0 || a->alibi;
    int status = check_count(r, given, "q_offset", a->nseq);
    for (int64_t n = 0; status == 0 && n < a->nseq; n++) {
        int64_t nq = seq[n].nq, nk = seq[n].nk;
        if (given)
            seq[n].off = entry(given, n);
        else if (v->align == ATTEND_BOTTOM_RIGHT)
            seq[n].off = nk - nq;
        else if (v->align == ATTEND_ALIGN_UNSET && matters && nq != nk)
            status =
                at_fail(&r->x->err, ATTEND_EINVAL,
                        "%s: sequence %lld has %lld query rows and %lld keys, so causal, window "
                        "and alibi need align (top-left or bottom-right) or q_offset",
                        r->label, (long long)n, (long long)nq, (long long)nk);
    }
    return status;
}

/* A bias or mask spans (or broadcasts over) every sequence. */
static int check_mask(const struct resolve *r, const struct at_attn *a, const struct at_view *m,
                      int64_t nk)
{
    int64_t need[4] = {a->nseq, a->nh, 0, nk};
    for (int64_t n = 0; n < a->nseq; n++) {
        need[2] = at_max(need[2], a->seq[n].nq);
        need[3] = at_max(need[3], a->seq[n].nk);
    }
    for (int d = 0; m->data && d < 4; d++)
        if (m->shape[d] != 1 && m->shape[d] < need[d])
            return at_fail(
                &r->x->err, ATTEND_EINVAL,
                "%s: axis %d of the mask, as (B, H, Sq, Skv), has extent %lld but %lld are "
                "needed",
                r->label, d, (long long)m->shape[d], (long long)need[d]);
    return 0;
}

/* A layout has a block for every row and key, or for all batch entries at once. */
static int check_layout(const struct resolve *r, const struct at_attn *a)
{
    const struct at_layout *l = &r->s->p->attention.layout;
    const struct at_view *v = l->rows ? &a->capture[l->capture] : NULL;
    for (int64_t n = 0; v && n < a->nseq; n++) {
        const int64_t *have = &v->shape[v->rank - 2];
        int64_t rows = at_ceil_div(a->seq[n].nq, l->rows),
                keys = at_ceil_div(a->seq[n].nk, l->keys);
        int64_t entries = v->rank == 4 ? v->shape[0] : 1;
        if (entries != 1 && n >= entries)
            return at_fail(&r->x->err, ATTEND_EINVAL,
                           "%s: the layout has %lld entries for %lld sequences", r->label,
                           (long long)entries, (long long)a->nseq);
        if (have[0] < rows || have[1] < keys)
            return at_fail(
                &r->x->err, ATTEND_EINVAL,
                "%s: the layout has %lld x %lld blocks, but sequence %lld needs %lld x %lld",
                r->label, (long long)have[0], (long long)have[1], (long long)n, (long long)rows,
                (long long)keys);
    }
    return 0;
}

/* ---- the problem ---- */

static int resolve_seqs(const struct resolve *r, struct at_attn *a, bool packed, int64_t nk,
                        struct at_seq *seq)
{
    int status = packed ? packed_seqs(r, a, nk, seq) : dense_seqs(a, nk, seq);
    if (status == 0)
        status = use_lengths(r, a, seq);
    if (status == 0)
        status = use_offsets(r, a, seq);
    if (status == 0 && a->table)
        status = check_table(r, a, seq);
    if (status == 0)
        status = check_mask(r, a, &a->bias, packed ? 0 : nk);
    if (status == 0)
        status = check_mask(r, a, &a->mask, packed ? 0 : nk);
    if (status == 0)
        status = check_layout(r, a);
    if (status == 0 && packed)
        unused_rows(a, seq);
    return status;
}

int at_attn_resolve(struct attend_exec *x, const struct at_step *s, struct at_attn *a,
                    struct at_seq *seq)
{
    struct resolve r = {.x = x, .s = s};
    label(&r);
    const struct at_attention *p = &s->p->attention;
    const struct at_view *table = at_in(x, s, AT_IN_TABLE);
    bool packed = at_in(x, s, AT_IN_Q_LENS) != NULL;

    *a = (struct at_attn){
        .visible = p->visible, .scale = p->scale, .softcap = p->softcap, .sums = -1, .seq = seq};
    const struct at_view *draw = at_in(x, s, AT_IN_DRAW);
    uint32_t drawn = draw ? (uint32_t)entry(draw, 0) : 0;
    a->dropout = at_dropout_of(p->dropout, p->seed, p->offset + drawn);
    a->q = rows4(at_in(x, s, AT_IN_Q), packed);
    a->k = rows4(at_in(x, s, AT_IN_K), packed && !table);
    if (s->op == AT_WEIGHTS) {
        a->lse = lse3(at_in(x, s, AT_IN_LSE));
    } else if (s->op == AT_ATTENTION_GRAD) {
        a->v = rows4(at_in(x, s, AT_IN_V), packed);
        a->lse = lse3(at_in(x, s, AT_IN_GRAD_LSE));
    } else {
        a->v = rows4(at_in(x, s, AT_IN_V), packed && !table);
        a->o = rows4(at_out(x, s, 0), packed);
        a->lse = lse3(at_out(x, s, 1));
    }
    a->bias = rank4(at_in(x, s, AT_IN_BIAS));
    a->mask = rank4(at_in(x, s, AT_IN_MASK));
    a->score_expr = p->score;
    a->mask_expr = p->mask;
    for (int k = 0; k < AT_MAX_CAPTURES; k++)
        if (at_in(x, s, AT_IN_CAPTURE + k))
            a->capture[k] = *at_in(x, s, AT_IN_CAPTURE + k);
    a->nh = a->q.shape[1];
    a->ng = a->k.shape[1];
    a->dk = a->q.shape[3];
    a->dv = a->v.shape[3];
    a->k_scale = entry_scale(at_in(x, s, AT_IN_K_SCALE));
    a->v_scale = entry_scale(at_in(x, s, AT_IN_V_SCALE));
    if (isnan(a->scale))
        a->scale = 1 / sqrtf((float)a->dk);

    int status = vector(&r, AT_IN_ALIBI, "alibi", &a->alibi);
    if (status == 0)
        status = vector(&r, AT_IN_SINKS, "sinks", &a->sinks);
    if (status == 0)
        status = vector(&r, AT_IN_ADDITIVE, "additive", &a->additive);
    int64_t nk = s->op == AT_MASK || s->op == AT_MASK_GRAD ? a->q.shape[3] : a->k.shape[2];
    if (table) {
        a->table = table->data;
        a->table_stride = table->stride[0];
        a->page = nk;
        a->pages = table->shape[1];
        nk *= table->shape[1];
        if (status == 0 && table->shape[1] > 1 && table->stride[1] != 1)
            status = refuse(&r, "a row of block_table must be contiguous");
    }
    return status < 0 ? status : resolve_seqs(&r, a, packed, nk, seq);
}

struct at_view at_weights_view(const struct attend_exec *x, const struct at_step *s, int k)
{
    const struct at_view *v = at_out(x, s, k);
    struct at_view w = {0};
    if (!v)
        return w;
    bool columns = s->p->attention.weights.mode == ATTEND_WEIGHTS_COLUMNS;
    w = (struct at_view){
        .type = v->type, .rank = 4, .data = v->data, .shape = {1, 1, 1, 1}
    };
    for (int d = 3, e = v->rank - 1; e >= 0; d--) { /* columns have no rows */
        d -= columns && d == 2;
        w.shape[d] = v->shape[e];
        w.stride[d] = v->stride[e--];
    }
    return w;
}

static void clear(const struct at_view *v)
{
    for (int64_t b = 0; b < v->shape[0]; b++)
        for (int64_t h = 0; h < v->shape[1]; h++)
            for (int64_t r = 0; r < v->shape[2]; r++)
                for (int64_t j = 0; j < v->shape[3]; j++)
                    *(float *)at_view_at(v, b * v->stride[0] + h * v->stride[1] + r * v->stride[2] +
                                                j * v->stride[3]) = 0;
}

int64_t at_weights_begin(const struct at_attn *a, struct at_weights *p, const struct at_view *out)
{
    bool sum = p->mode == ATTEND_WEIGHTS_COLUMNS || p->mode == ATTEND_WEIGHTS_POOL;
    if (p->mode != ATTEND_WEIGHTS_ROWS) {
        p->first = 0;
        p->end = a->q.shape[2];
    }
    if (sum && a->sums >= 0 && out)
        clear(out);
    return sum && a->sums >= 0 ? a->sums : a->nseq;
}

int at_attn_grad_resolve(struct attend_exec *x, const struct at_step *s, struct at_attn_grad *d,
                         struct at_seq *seq)
{
    static const struct at_view none;
    bool packed = at_in(x, s, AT_IN_Q_LENS) != NULL;
    d->dout = rows4(at_in(x, s, AT_IN_GRAD_O), packed);
    d->delta = lse3(at_in(x, s, AT_IN_GRAD_DELTA));
    d->dq = rows4(at_out(x, s, AT_OUT_Q), packed);
    d->dk = rows4(at_out(x, s, AT_OUT_K), packed);
    d->dv = rows4(at_out(x, s, AT_OUT_V), packed);
    d->dbias = rank4(at_out(x, s, AT_OUT_BIAS));
    d->dalibi = at_out(x, s, AT_OUT_ALIBI) ? *at_out(x, s, AT_OUT_ALIBI) : none;
    d->dsinks = at_out(x, s, AT_OUT_SINKS) ? *at_out(x, s, AT_OUT_SINKS) : none;
    d->dadditive = at_out(x, s, AT_OUT_ADDITIVE) ? *at_out(x, s, AT_OUT_ADDITIVE) : none;
    for (int k = 0; k < AT_MAX_CAPTURES; k++)
        d->dcapture[k] =
            at_out(x, s, AT_OUT_CAPTURE + k) ? *at_out(x, s, AT_OUT_CAPTURE + k) : none;
    return at_attn_resolve(x, s, &d->a, seq);
}

int64_t at_attn_max_seqs(const struct attend_plan *plan, const struct at_step *s)
{
    bool packed = s->nin > AT_IN_Q_LENS && s->in[AT_IN_Q_LENS] >= 0;
    if (packed) /* n + 1 sums, and the rows that belong to no sequence */
        return at_plan_range(plan, s->rows, s->in[AT_IN_Q_LENS], 0).max;
    int q = s->in[AT_IN_Q];
    return plan->graph->tensor[q].rank < 4 ? 1 : at_plan_range(plan, s->rows, q, 0).max;
}
