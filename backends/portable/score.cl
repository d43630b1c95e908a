/* SPDX-License-Identifier: MIT */
/* What all shapes of attention share: sequences, keys and their places, what is done to a score, what
 * hides a key, dropout.  Packed row r of a KV group is query row r / R of head g R + r % R. */
#define AT_LOG2E 1.4426950408889634f

#define AT_ATTN_INPUTS                                                                             \
    AT_GLOBAL const uchar *pq, AT_GLOBAL const uchar *pk, AT_GLOBAL const uchar *pv, AT_GLOBAL const uchar *pbias,        \
        AT_GLOBAL const uchar *pmask, AT_GLOBAL const uchar *palibi,                               \
        AT_GLOBAL const uchar *psinks, AT_GLOBAL const uchar *padditive,                           \
        AT_GLOBAL const uchar *ptable, AT_GLOBAL const uchar *pk_scale,                            \
        AT_GLOBAL const uchar *pv_scale, AT_GLOBAL uchar *work, AT_GLOBAL const uchar *c0,         \
        AT_GLOBAL const uchar *c1, AT_GLOBAL const uchar *c2, AT_GLOBAL const uchar *c3,           \
        AT_GLOBAL const uchar *c4, AT_GLOBAL const uchar *c5, AT_GLOBAL const uchar *c6,           \
        AT_GLOBAL const uchar *c7, AT_GLOBAL const uchar *c8
#define AT_ATTN_PARAMS AT_GLOBAL uchar *out, AT_GLOBAL uchar *lse, AT_ATTN_INPUTS

/* The tensors that functions here look at, and the sequence that a group has. */
struct at_in {
    AT_GLOBAL const uchar *q, *k, *v, *bias, *mask, *alibi, *sinks, *additive, *table, *k_scale, *v_scale;
    AT_GLOBAL const uchar *capture[9];
    AT_GLOBAL const struct at_k_capture *captures;
    int n, nq, nk, ratio;
    at_i64 qb, q0, kb, k0, off;
};

#define AT_ATTN_IN(x, number)                                                                      \
    struct at_in x;                                                                                \
    x.q = pq, x.k = pk, x.v = pv, x.bias = pbias, x.mask = pmask, x.alibi = palibi;                \
    x.sinks = psinks, x.additive = padditive, x.table = ptable;                                    \
    x.k_scale = pk_scale, x.v_scale = pv_scale;                                                    \
    x.capture[0] = c0, x.capture[1] = c1, x.capture[2] = c2, x.capture[3] = c3;                    \
    x.capture[4] = c4, x.capture[5] = c5, x.capture[6] = c6, x.capture[7] = c7, x.capture[8] = c8;                    \
    x.captures = (AT_GLOBAL const struct at_k_capture *)(work + a.captures);                       \
    at_seq_of(&x, (AT_GLOBAL const struct at_k_seq *)(work + a.seqs), (int)(number));              \
    x.ratio = a.nh / a.ng;

AT_FN void at_seq_of(struct at_in *x, AT_GLOBAL const struct at_k_seq *seqs, int n)
{
    x->n = n;
    x->qb = seqs[n].qb;
    x->q0 = seqs[n].q0;
    x->nq = (int)seqs[n].nq;
    x->kb = seqs[n].kb;
    x->k0 = seqs[n].k0;
    x->nk = (int)seqs[n].nk;
    x->off = seqs[n].off;
}

/* ---- affine visibility: lib/visible.c ---- */

struct at_keys {
    int first, full_first, full_end, end;
};

AT_FN int at_low(const struct at_k_attn *a, const struct at_in *x, at_i64 i)
{
    at_i64 low = a->left < 0 ? 0 : i + x->off - a->left;
    return (int)(low < 0 ? 0 : low > x->nk ? x->nk : low);
}

AT_FN int at_high(const struct at_k_attn *a, const struct at_in *x, at_i64 i)
{
    at_i64 end = x->nk;
    if (a->causal && i + x->off + 1 < end)
        end = i + x->off + 1;
    if (a->right >= 0 && i + x->off + a->right + 1 < end)
        end = i + x->off + a->right + 1;
    return (int)(end < 0 ? 0 : end);
}

AT_FN struct at_keys at_key_range(const struct at_k_attn *a, const struct at_in *x, int i0, int i1)
{
    struct at_keys r;
    r.first = r.full_first = r.full_end = r.end = 0;
    if (i0 >= i1)
        return r;
    r.first = at_low(a, x, i0);
    r.end = at_high(a, x, i1 - 1);
    if (r.end < r.first)
        r.end = r.first;
    r.full_first = at_low(a, x, i1 - 1);
    r.full_end = at_high(a, x, i0);
    if (r.full_first > r.end)
        r.full_first = r.end;
    if (r.full_end > r.end)
        r.full_end = r.end;
    if (r.full_end <= r.full_first)
        r.full_first = r.full_end = r.end;
    return r;
}

/* ---- rows of tensors ---- */

/* Where key j begins in k (or v), and what it is times. */
AT_FN at_i64 at_key_at(const struct at_k_attn *a, const struct at_in *x, const struct at_k_view *v, int g,
                       int j, int has_scale, const at_i64 *scale_at, AT_GLOBAL const uchar *scale,
                       float *by)
{
    at_i64 entry = x->kb, row = x->k0 + j;
    if (a->has_table) {
        entry = ((AT_GLOBAL const at_i32 *)x->table)[a->table + x->kb * a->table_stride + j / a->page];
        row = j % a->page;
    }
    *by = has_scale
              ? ((AT_GLOBAL const float *)scale)[scale_at[0] + entry * scale_at[1] + g * scale_at[2]]
              : 1.0f;
    return v->at + entry * v->stride[0] + g * v->stride[1] + row * v->stride[2];
}

AT_FN at_i64 at_k_at(const struct at_k_attn *a, const struct at_in *x, int g, int j, float *by)
{
    return at_key_at(a, x, &a->k, g, j, a->has_k_scale, a->k_scale, x->k_scale, by);
}

AT_FN at_i64 at_v_at(const struct at_k_attn *a, const struct at_in *x, int g, int j, float *by)
{
    return at_key_at(a, x, &a->v, g, j, a->has_v_scale, a->v_scale, x->v_scale, by);
}

AT_FN at_i64 at_q_at(const struct at_k_attn *a, const struct at_in *x, int g, int r)
{
    return a->q.at + x->qb * a->q.stride[0] + (g * x->ratio + r % x->ratio) * a->q.stride[1] +
           (x->q0 + r / x->ratio) * a->q.stride[2];
}

AT_FN at_i64 at_o_at(const struct at_k_attn *a, const struct at_in *x, int g, int r)
{
    return a->o.at + x->qb * a->o.stride[0] + (g * x->ratio + r % x->ratio) * a->o.stride[1] +
           (x->q0 + r / x->ratio) * a->o.stride[2];
}

AT_FN at_i64 at_lse_at(const struct at_k_attn *a, const struct at_in *x, int g, int r)
{
    return a->lse[0] + x->qb * a->lse[1] + (g * x->ratio + r % x->ratio) * a->lse[2] +
           (x->q0 + r / x->ratio) * a->lse[3];
}

/* ---- expressions ---- */

AT_FN at_i64 at_capture_at(AT_GLOBAL const struct at_k_capture *c, at_i64 i0, at_i64 i1, at_i64 i2,
                           at_i64 i3)
{
    if (i0 < 0 || i0 >= c->shape[0] || i1 < 0 || i1 >= c->shape[1] || i2 < 0 || i2 >= c->shape[2] ||
        i3 < 0 || i3 >= c->shape[3])
        return -1;
    return c->at + i0 * c->stride[0] + i1 * c->stride[1] + i2 * c->stride[2] + i3 * c->stride[3];
}

AT_FN at_i64 at_capture_int(const struct at_in *x, int which, at_i64 i0, at_i64 i1, at_i64 i2, at_i64 i3)
{
    AT_GLOBAL const struct at_k_capture *c = x->captures + which;
    AT_GLOBAL const uchar *p = x->capture[which];
    at_i64 at = at_capture_at(c, i0, i1, i2, i3);
    if (at < 0)
        return 0;
    if (c->type == AT_I32)
        return ((AT_GLOBAL const at_i32 *)p)[at];
    if (c->type == AT_I64)
        return ((AT_GLOBAL const at_i64 *)p)[at];
    if (c->type == AT_I8)
        return ((AT_GLOBAL const at_i8 *)p)[at];
    return c->type == AT_BOOL ? p[at] != 0 : p[at];
}

AT_FN float at_capture_float(const struct at_in *x, int which, at_i64 i0, at_i64 i1, at_i64 i2, at_i64 i3)
{
    AT_GLOBAL const struct at_k_capture *c = x->captures + which;
    at_i64 at = at_capture_at(c, i0, i1, i2, i3);
    return at < 0 ? 0.0f : at_load(x->capture[which], at, c->type);
}

#ifdef AT_SCORE_EXPR
AT_FN float at_score_expr(const struct at_in *x, float score, int b, int h, int i, int j, int sq, int skv);
#endif
#ifdef AT_MASK_EXPR
AT_FN int at_mask_expr(const struct at_in *x, float score, int b, int h, int i, int j, int sq, int skv);
#endif

/* ---- scores ---- */

AT_FN at_i64 at_pair(const struct at_k_view *v, int n, int h, int i, int j)
{
    return v->at + n * v->stride[0] + h * v->stride[1] + i * v->stride[2] + j * v->stride[3];
}

/* Softcap, slope and bias of q . k of packed row r and key j. */
AT_FN float at_plain(const struct at_k_attn *a, const struct at_in *x, int g, int r, int j, float dot)
{
    int i = r / x->ratio, h = g * x->ratio + r % x->ratio;
    float s = dot * a->scale, add = 0.0f;
    if (a->bias.given)
        add = at_load(x->bias, at_pair(&a->bias, x->n, h, i, j), a->bias.type);
    if (a->softcap > 0.0f)
        s = a->softcap * tanh(s / a->softcap);
    if (a->has_alibi)
        s -= ((AT_GLOBAL const float *)x->alibi)[a->alibi + h] * fabs((float)(i + x->off - j));
    return add == -AT_INF ? add : s + add; /* whatever the key holds */
}

/* What becomes of it: -inf where the key is hidden, whatever it was. */
AT_FN float at_score(const struct at_k_attn *a, const struct at_in *x, int g, int r, int j, float dot)
{
    int i = r / x->ratio, h = g * x->ratio + r % x->ratio;
    if (a->mask.given && at_load(x->mask, at_pair(&a->mask, x->n, h, i, j), a->mask.type) == 0.0f)
        return -AT_INF;
#ifdef AT_MASK_EXPR
    if (!at_mask_expr(x, 0.0f, x->n, h, i, j, x->nq, x->nk))
        return -AT_INF;
#endif
    float s = at_plain(a, x, g, r, j, dot);
#ifdef AT_SCORE_EXPR
    s = at_score_expr(x, s, x->n, h, i, j, x->nq, x->nk);
#endif
    return s;
}

AT_FN int at_visible(const struct at_k_attn *a, const struct at_in *x, int r, int j)
{
    int i = r / x->ratio;
    return j >= at_low(a, x, i) && j < at_high(a, x, i);
}

/* ---- dropout: lib/philox.h ---- */

/* What weight (r, j) is times: 0, or 1 / (1 - p). */
AT_FN float at_dropout(const struct at_k_attn *a, const struct at_in *x, int g, int r, int j)
{
    at_u32 w[4], k0 = a->seed0, k1 = a->seed1;
    int h = g * x->ratio + r % x->ratio;
    w[0] = (at_u32)j / 4;
    w[1] = (at_u32)(r / x->ratio);
    w[2] = (at_u32)(x->n * a->nh + h);
    w[3] = a->offset;
    for (int round = 0; round < 10; round++) {
        at_u32 ah = at_mul_hi(0xd2511f53u, w[0]), al = 0xd2511f53u * w[0];
        at_u32 bh = at_mul_hi(0xcd9e8d57u, w[2]), bl = 0xcd9e8d57u * w[2];
        w[0] = bh ^ w[1] ^ k0;
        w[1] = bl;
        w[2] = ah ^ w[3] ^ k1;
        w[3] = al;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    at_u32 word = j % 4 == 0 ? w[0] : j % 4 == 1 ? w[1] : j % 4 == 2 ? w[2] : w[3];
    return word < a->below ? 0.0f : a->keep;
}

AT_FN float at_exp(float x) /* of s - m, at most a little over 0 */
{
    return exp2(x * AT_LOG2E);
}

/* m as a number to take away: rows that saw nothing yet have -inf. */
AT_FN float at_reference(float m)
{
    return m == -AT_INF ? 0.0f : m;
}

/* The weight of a hidden key is -0: its value is not looked at, whereas a weight that dropout or
 * underflow made 0 makes NaN of a value that is not finite. */
#define AT_HIDDEN (-0.0f)
#define AT_DEAD(p) (at_float_bits(p) == 0x80000000u)

AT_FN float at_weight(float s, float reference)
{
    return s == -AT_INF ? AT_HIDDEN : at_exp(s - reference);
}

/* ---- finish: the sink joins, O = acc / l and LSE = m + ln l ---- */

AT_FN void at_sink(const struct at_k_attn *a, const struct at_in *x, int g, int r, float *m, float *l,
                   float *factor)
{
    *factor = 1.0f;
    if (!a->has_sinks)
        return;
    float sink = ((AT_GLOBAL const float *)x->sinks)[a->sinks + g * x->ratio + r % x->ratio];
    float top = fmax(*m, sink);
    *factor = at_exp(*m - at_reference(top));
    *l = *l * *factor + at_exp(sink - at_reference(top));
    *m = top;
}
