/* SPDX-License-Identifier: MIT */
/* Attention and rotary embedding of ONNX, and ONNX Runtime's multi-head and group-query attention,
 * as one attention of the graph.
 *
 * ONNX counts key positions from the first cached key: row i stands at i + offset, where offset is
 * the length of the cache before the new keys, or (a cache kept outside) the number of keys in use
 * less the number of rows, or 0. */
#include "onnx.h"

#include <math.h>
#include <string.h>

/* What is attended to what, with heads as an axis: q (B, H, S, D), k and v (B, G, T, D). */
struct problem {
    attend_tensor q, k, v;
    attend_type type; /* of q and of the result, for ONNX */
    attend_attention_opts opts;
    bool joined; /* the result is (B, S, H * D) */
};

/* ---- heads ---- */

/* (B, S, heads * D) as (B, heads, S, D). */
static attend_tensor split_heads(struct onnx_node *n, attend_tensor t, int64_t heads)
{
    attend_shape s = attend_tensor_shape(t);
    if (s.rank != 3 || heads < 1 || s.dim[2] % heads) {
        at_onnx_fail(n, ATTEND_EINVAL, "%lld heads do not fit in a last axis of %lld of %d",
                     (long long)heads, (long long)(s.rank ? s.dim[s.rank - 1] : 0), s.rank);
        return t;
    }
    s = ATTEND_SHAPE(s.dim[0], s.dim[1], heads, s.dim[2] / heads);
    return at_onnx_permute4(n, attend_graph_reshape(n->g, t, s), 0, 2, 1, 3);
}

static attend_tensor join_heads(struct onnx_node *n, attend_tensor t)
{
    attend_shape s = attend_tensor_shape(t);
    t = at_onnx_permute4(n, t, 0, 2, 1, 3);
    return attend_graph_reshape(n->g, t, ATTEND_SHAPE(s.dim[0], s.dim[2], s.dim[1] * s.dim[3]));
}

/* Input k as (B, heads, S, D), whichever of the two it is. */
static attend_tensor heads_of(struct onnx_node *n, int k, int64_t heads, bool rounded)
{
    const attend_shape *s = &n->in[k]->shape;
    attend_tensor t = rounded ? at_onnx_use_rounded(n, k) : at_onnx_use(n, k);
    if (s->rank != 3 && s->rank != 4)
        at_onnx_fail(n, ATTEND_EINVAL, "input %d has rank %d, wants 3 or 4", k, s->rank);
    else if (s->rank == 4 && heads && s->dim[1] != heads)
        at_onnx_fail(n, ATTEND_EINVAL, "input %d has %lld heads, but the attributes say %lld", k,
                     (long long)s->dim[1], (long long)heads);
    return s->rank == 3 && !at_onnx_failed(n) ? split_heads(n, t, heads) : t;
}

/* ---- the attention, and its scores where they are asked for ---- */

/* k and v of one type, as the operator wants them. */
static void one_type(struct onnx_node *n, struct problem *p)
{
    if (attend_tensor_type(p->k) == attend_tensor_type(p->v))
        return;
    p->k = at_onnx_cast(n, p->k, ATTEND_F32);
    p->v = at_onnx_cast(n, p->v, ATTEND_F32);
}

static void give_attention(struct onnx_node *n, struct problem *p)
{
    if (at_onnx_failed(n))
        return;
    one_type(n, p);
    attend_tensor o = attend_graph_attention(n->g, p->q, p->k, p->v, &p->opts, NULL);
    at_onnx_give(n, 0, p->joined && !at_onnx_failed(n) ? join_heads(n, o) : o, p->type);
}

/* scale q k' by head: heads of a group are an axis of their own, along which k repeats. */
static attend_tensor raw_scores(struct onnx_node *n, const struct problem *p)
{
    attend_shape q = attend_tensor_shape(p->q), k = attend_tensor_shape(p->k);
    int64_t nb = q.dim[0], nh = q.dim[1], ng = k.dim[1], per = ng ? nh / ng : 0;
    float scale = p->opts.scale;
    if (isnan(scale))
        scale = (float)(1 / sqrt((double)q.dim[3]));
    attend_tensor a =
        attend_graph_reshape(n->g, p->q, ATTEND_SHAPE(nb, ng, per, q.dim[2], q.dim[3]));
    attend_tensor b = attend_graph_reshape(n->g, p->k, ATTEND_SHAPE(nb, ng, 1, k.dim[2], k.dim[3]));
    attend_tensor s = attend_graph_scale(n->g, attend_graph_matmul_nt(n->g, a, b), scale);
    return attend_graph_reshape(n->g, s, ATTEND_SHAPE(nb, nh, q.dim[2], k.dim[2]));
}

/* Output 3: the scores as they are 0 at first, 1 after softcap, 2 with masks and bias, 3 as
 * weights. They are worked out beside the attention, whose result does not need them. */
static void give_scores(struct onnx_node *n, const struct problem *p)
{
    int64_t mode = at_onnx_int(n, "qk_matmul_output_mode", 0);
    float cap = p->opts.softcap;
    if (mode < 0 || mode > 3) {
        at_onnx_fail(n, ATTEND_EFORMAT, "qk_matmul_output_mode is %lld, wants 0 to 3",
                     (long long)mode);
        return;
    }
    attend_tensor s = raw_scores(n, p);
    if (mode >= 1 && cap > 0) {
        s = attend_graph_tanh(n->g, attend_graph_scale(n->g, s, 1 / cap));
        s = attend_graph_scale(n->g, s, cap);
    }
    if (mode >= 2)
        s = attend_graph_mask(n->g, s, &p->opts.mask);
    if (mode == 3)
        s = attend_graph_softmax(n->g, s);
    at_onnx_give(n, 3, s, p->type);
}

/* ---- positions and masks ---- */

/* Row i of every sequence stands at key i + offset. */
static void set_offset(struct onnx_node *n, struct problem *p, int64_t offset)
{
    p->opts.mask.align = ATTEND_TOP_LEFT;
    if (offset == 0)
        return;
    attend_shape batch = ATTEND_SHAPE(attend_tensor_shape(p->q).dim[0]);
    p->opts.mask.align = ATTEND_ALIGN_UNSET;
    p->opts.mask.q_offset = at_onnx_fill(n, ATTEND_I32, batch, (double)offset);
}

/* The mask of input k for `total` keys: a shorter one hides the keys that it does not have. */
static attend_tensor mask_of(struct onnx_node *n, int k, int64_t total)
{
    attend_shape s = n->in[k]->shape;
    attend_tensor mask = at_onnx_use_rounded(n, k);
    attend_type type = attend_tensor_type(mask);
    if (!at_onnx_failed(n) && (type == ATTEND_I32 || s.rank < 1))
        at_onnx_fail(n, ATTEND_EINVAL, "the mask is %s of rank %d, wants bool or float, at least 1",
                     attend_type_name(n->in[k]->type), s.rank);
    if (at_onnx_failed(n) || s.dim[s.rank - 1] >= total)
        return mask;
    s.dim[s.rank - 1] = total - s.dim[s.rank - 1];
    attend_tensor hidden = at_onnx_fill(n, type, s, type == ATTEND_BOOL ? 0 : -(double)INFINITY);
    return at_onnx_concat2(n, mask, hidden, s.rank - 1);
}

/* ---- ONNX: Attention ---- */

enum { Q, K, V, MASK, PAST_K, PAST_V, NONPAD };

/* Heads of q and of k and v, which rank 3 cannot do without. */
static bool head_counts(struct onnx_node *n, int64_t *heads, int64_t *groups)
{
    *heads = at_onnx_int(n, "q_num_heads", 0);
    *groups = at_onnx_int(n, "kv_num_heads", 0);
    if (n->in[Q]->shape.rank == 3 && (*heads < 1 || *groups < 1))
        at_onnx_fail(n, ATTEND_EINVAL,
                     "inputs of rank 3 need q_num_heads and kv_num_heads, not %lld and %lld",
                     (long long)*heads, (long long)*groups);
    return !at_onnx_failed(n);
}

static void attention_masks(struct onnx_node *n, struct problem *p)
{
    attend_mask_opts *m = &p->opts.mask;
    int64_t total = attend_tensor_shape(p->k).dim[2];
    m->causal = at_onnx_int(n, "is_causal", 0) != 0;
    m->window_left = at_onnx_int(n, "left_window_size", -1);
    m->window_right = at_onnx_int(n, "right_window_size", -1);
    if (at_onnx_given(n, MASK))
        m->mask = mask_of(n, MASK, total);
    if (at_onnx_given(n, NONPAD)) {
        m->kv_used = at_onnx_use(n, NONPAD);
        m->align = ATTEND_BOTTOM_RIGHT; /* offset: keys in use less rows */
    } else {
        set_offset(n, p, at_onnx_given(n, PAST_K) ? n->in[PAST_K]->shape.dim[2] : 0);
    }
}

static bool check_caches(struct onnx_node *n)
{
    bool past = at_onnx_given(n, PAST_K);
    if (past != at_onnx_given(n, PAST_V))
        at_onnx_fail(n, ATTEND_EINVAL, "only one of past_key and past_value is given");
    else if (past && at_onnx_given(n, NONPAD))
        at_onnx_fail(n, ATTEND_EINVAL, "both past_key and nonpad_kv_seqlen are given");
    else if (past && (n->in[PAST_K]->shape.rank != 4 || n->in[PAST_V]->shape.rank != 4))
        at_onnx_fail(n, ATTEND_EINVAL, "past_key and past_value have ranks %d and %d, want 4",
                     n->in[PAST_K]->shape.rank, n->in[PAST_V]->shape.rank);
    return !at_onnx_failed(n);
}

void at_onnx_attention(struct onnx_node *n)
{
    struct problem p = {.type = n->in[Q]->type, .joined = n->in[Q]->shape.rank == 3};
    int64_t heads, groups;
    if (!head_counts(n, &heads, &groups) || !check_caches(n))
        return;
    bool past = at_onnx_given(n, PAST_K);
    attend_attention_opts_init(&p.opts);
    p.opts.scale = at_onnx_float(n, "scale", NAN);
    p.opts.softcap = at_onnx_float(n, "softcap", 0);
    p.q = heads_of(n, Q, heads, false);
    p.k = heads_of(n, K, groups, past);
    p.v = heads_of(n, V, groups, past);
    if (past && !at_onnx_failed(n)) {
        p.k = at_onnx_concat2(n, at_onnx_use_rounded(n, PAST_K), p.k, 2);
        p.v = at_onnx_concat2(n, at_onnx_use_rounded(n, PAST_V), p.v, 2);
    }
    if (at_onnx_failed(n))
        return;
    at_onnx_give(n, 1, p.k, n->in[K]->type);
    at_onnx_give(n, 2, p.v, n->in[V]->type);
    attention_masks(n, &p);
    give_attention(n, &p);
    if (at_onnx_wanted(n, 3) && !at_onnx_failed(n))
        give_scores(n, &p);
}

/* ---- rotary embedding ---- */

/* Half of each pair of channels: (B, H, S, pairs), from channels that are pairs or two halves. */
static attend_tensor half_of(struct onnx_node *n, attend_tensor x, int half, bool interleaved,
                             attend_shape s, int64_t pairs)
{
    if (!interleaved)
        return attend_graph_slice(n->g, x, 3, half * pairs, pairs);
    x = attend_graph_slice(n->g, x, 3, 0, 2 * pairs);
    x = attend_graph_reshape(n->g, x, ATTEND_SHAPE(s.dim[0], s.dim[1], s.dim[2], pairs, 2));
    x = attend_graph_slice(n->g, x, 4, half, 1);
    return attend_graph_reshape(n->g, x, ATTEND_SHAPE(s.dim[0], s.dim[1], s.dim[2], pairs));
}

static attend_tensor join_halves(struct onnx_node *n, attend_tensor a, attend_tensor b,
                                 bool interleaved)
{
    attend_shape s = attend_tensor_shape(a);
    if (!interleaved)
        return at_onnx_concat2(n, a, b, 3);
    attend_shape apart = ATTEND_SHAPE(s.dim[0], s.dim[1], s.dim[2], s.dim[3], 1);
    a = at_onnx_concat2(n, attend_graph_reshape(n->g, a, apart),
                        attend_graph_reshape(n->g, b, apart), 4);
    s.dim[3] *= 2;
    return attend_graph_reshape(n->g, a, s);
}

/* x (B, H, S, D) with its first 2 * pairs channels rotated: cosine and sine are (B, S, pairs). */
static attend_tensor rotate(struct onnx_node *n, attend_tensor x, attend_tensor cosine,
                            attend_tensor sine, bool interleaved)
{
    attend_shape s = attend_tensor_shape(x), c = attend_tensor_shape(cosine);
    attend_shape d = attend_tensor_shape(sine);
    if (at_onnx_failed(n))
        return x;
    if (s.rank != 4 || c.rank != 3 || d.rank != 3 || c.dim[2] != d.dim[2] || c.dim[1] != s.dim[2] ||
        d.dim[1] != s.dim[2] || (c.dim[0] != s.dim[0] && c.dim[0] != 1) ||
        (d.dim[0] != s.dim[0] && d.dim[0] != 1) || 2 * c.dim[2] > s.dim[3]) {
        at_onnx_fail(
            n, ATTEND_EINVAL,
            "cosines and sines of %lld and %lld pairs for %lld rows do not fit %lld rows of "
            "head size %lld",
            (long long)c.dim[2], (long long)d.dim[2], (long long)c.dim[1], (long long)s.dim[2],
            (long long)s.dim[3]);
        return x;
    }
    int64_t pairs = c.dim[2], rest = s.dim[3] - 2 * pairs;
    cosine = attend_graph_reshape(n->g, cosine, ATTEND_SHAPE(c.dim[0], 1, c.dim[1], pairs));
    sine = attend_graph_reshape(n->g, sine, ATTEND_SHAPE(d.dim[0], 1, d.dim[1], pairs));
    attend_tensor a = half_of(n, x, 0, interleaved, s, pairs);
    attend_tensor b = half_of(n, x, 1, interleaved, s, pairs);
    attend_tensor minus = attend_graph_scale(n->g, attend_graph_mul(n->g, b, sine), -1);
    attend_tensor real = attend_graph_add(n->g, attend_graph_mul(n->g, a, cosine), minus);
    attend_tensor imaginary =
        attend_graph_add(n->g, attend_graph_mul(n->g, a, sine), attend_graph_mul(n->g, b, cosine));
    attend_tensor y = join_halves(n, real, imaginary, interleaved);
    if (rest == 0)
        return y;
    x = attend_graph_slice(n->g, x, 3, 2 * pairs, rest);
    return at_onnx_concat2(n, y, at_onnx_cast(n, x, ATTEND_F32), 3);
}

/* Rows of a table of cosines or sines, input k: by positions (B, S), or all of it. */
static attend_tensor angles(struct onnx_node *n, int k, attend_tensor positions)
{
    attend_tensor table = at_onnx_use(n, k);
    return positions.graph ? attend_graph_gather(n->g, table, positions) : table;
}

/* Input 0, of either form, rotated; pairs: how many the attributes ask for, 0 is whatever the
 * tables have. */
static void give_rotated(struct onnx_node *n, int64_t heads, int cosine, int sine,
                         attend_tensor positions, int64_t pairs)
{
    bool joined = n->in[0]->shape.rank == 3;
    bool interleaved = at_onnx_int(n, "interleaved", 0) != 0;
    attend_tensor x = heads_of(n, 0, joined ? heads : 0, false);
    attend_tensor c = angles(n, cosine, positions), s = angles(n, sine, positions);
    if (at_onnx_failed(n))
        return;
    attend_shape cs = attend_tensor_shape(c);
    if (pairs && cs.rank == 3 && cs.dim[2] != pairs) {
        at_onnx_fail(n, ATTEND_EINVAL, "%lld pairs are rotated, but the cosines are of %lld",
                     (long long)pairs, (long long)cs.dim[2]);
        return;
    }
    x = rotate(n, x, c, s, interleaved);
    at_onnx_give(n, 0, joined && !at_onnx_failed(n) ? join_heads(n, x) : x, n->in[0]->type);
}

void at_onnx_rotary(struct onnx_node *n)
{
    const attend_shape *s = &n->in[0]->shape;
    int64_t heads = at_onnx_int(n, "num_heads", 0),
            dims = at_onnx_int(n, "rotary_embedding_dim", 0);
    if (s->rank == 3 && (heads < 1 || s->dim[2] % heads)) {
        at_onnx_fail(n, ATTEND_EINVAL,
                     "input of rank 3 needs num_heads that divides %lld, not %lld",
                     (long long)s->dim[2], (long long)heads);
        return;
    }
    if (dims == 0)
        dims = s->rank == 3 ? s->dim[2] / heads : s->rank == 4 ? s->dim[3] : 0;
    attend_tensor positions = at_onnx_given(n, 3) ? at_onnx_use(n, 3) : attend_none();
    give_rotated(n, heads, 1, 2, positions, dims / 2);
}

/* ONNX Runtime's older one: positions come second, and may be one number where the first row is. */
void at_onnx_microsoft_rotary(struct onnx_node *n)
{
    const attend_shape *s = &n->in[0]->shape, *c = &n->in[2]->shape;
    int64_t heads = at_onnx_int(n, "num_heads", 0), start;
    attend_tensor positions;
    if (at_onnx_int(n, "is_packed_batching", 0) || at_onnx_float(n, "scale", 1) != 1 ||
        (s->rank != 3 && s->rank != 4) || c->rank != 2 || c->dim[1] < 1) {
        at_onnx_fail(n, ATTEND_EUNSUPPORTED,
                     "packed or scaled, or shapes that are not (B, S, hidden)");
        return;
    }
    if (heads < 1 && s->rank == 3)
        heads = s->dim[2] / (2 * c->dim[1]);
    if (n->in[1]->shape.rank == 1) {
        if (!at_onnx_known_one(n, 1, &start))
            return;
        int64_t rows = s->dim[s->rank - 2];
        int32_t *at = at_onnx_alloc(n, rows, sizeof *at);
        for (int64_t i = 0; at && i < rows; i++)
            at[i] = (int32_t)(start + i);
        positions = at ? at_onnx_const(n, ATTEND_I32, ATTEND_SHAPE(1, rows), at) : attend_none();
    } else {
        positions = at_onnx_use(n, 1);
    }
    if (positions.graph)
        give_rotated(n, heads, 2, 3, positions, 0);
}

/* ---- ONNX Runtime: MultiHeadAttention ---- */

enum { BIAS = 3, KEY_PADDING = 4, SCORE_BIAS = 5, MHA_PAST_K = 6, MHA_PAST_V = 7, BEAMS = 8 };

/* Part `which` of packed heads (B, S, N, parts, D) as (B, N, S, D). */
static attend_tensor unpack(struct onnx_node *n, int k, int which)
{
    attend_shape s = n->in[k]->shape;
    attend_tensor t = attend_graph_slice(n->g, at_onnx_use_rounded(n, k), 3, which, 1);
    t = attend_graph_reshape(n->g, t, ATTEND_SHAPE(s.dim[0], s.dim[1], s.dim[2], s.dim[4]));
    return at_onnx_permute4(n, t, 0, 2, 1, 3);
}

static void multi_head_inputs(struct onnx_node *n, struct problem *p, int64_t heads)
{
    if (n->in[0]->shape.rank == 5) {
        p->q = unpack(n, 0, 0);
        p->k = unpack(n, 0, 1);
        p->v = unpack(n, 0, 2);
        return;
    }
    p->q = heads_of(n, 0, heads, false);
    if (!at_onnx_given(n, 1)) {
        at_onnx_fail(n, ATTEND_EINVAL, "the key is missing");
    } else if (n->in[1]->shape.rank == 5) {
        p->k = unpack(n, 1, 0);
        p->v = unpack(n, 1, 1);
    } else if (!at_onnx_given(n, 2)) {
        at_onnx_fail(n, ATTEND_EINVAL, "the value is missing");
    } else {
        p->k = heads_of(n, 1, heads, true);
        p->v = heads_of(n, 2, heads, true);
    }
}

/* t plus its part of the bias, (heads * D) from `start` on. */
static attend_tensor add_bias(struct onnx_node *n, attend_tensor t, int64_t *start)
{
    attend_shape s = attend_tensor_shape(t);
    int64_t length = s.dim[1] * s.dim[3];
    attend_tensor b = attend_graph_slice(n->g, at_onnx_use(n, BIAS), 0, *start, length);
    *start += length;
    b = attend_graph_reshape(n->g, b, ATTEND_SHAPE(1, s.dim[1], 1, s.dim[3]));
    return attend_graph_add(n->g, t, b);
}

static void add_biases(struct onnx_node *n, struct problem *p)
{
    int64_t start = 0;
    if (at_onnx_given(n, 1) && n->in[1]->shape.rank == 4) {
        at_onnx_fail(n, ATTEND_EUNSUPPORTED, "a bias with keys that have heads already");
        return;
    }
    p->q = add_bias(n, p->q, &start);
    p->k = add_bias(n, p->k, &start);
    p->v = add_bias(n, p->v, &start);
}

/* Lengths (B), or which keys count, (B, T) or (B, S, T). */
static void key_padding(struct onnx_node *n, struct problem *p)
{
    struct onnx_value *v = n->in[KEY_PADDING];
    attend_shape s = v->shape, q = attend_tensor_shape(p->q);
    if (s.rank == 1 && s.dim[0] == q.dim[0]) {
        p->opts.mask.kv_used = at_onnx_use(n, KEY_PADDING);
        return;
    }
    if (s.rank < 2 || s.rank > 3 || !v->data) {
        at_onnx_fail(n, ATTEND_EUNSUPPORTED,
                     "key_padding_mask is not known before the run, or has rank %d", s.rank);
        return;
    }
    int64_t count = at_onnx_count(&s);
    uint8_t *seen = at_onnx_alloc(n, count, 1);
    for (int64_t k = 0; seen && k < count; k++)
        seen[k] = at_onnx_number(v, k) != 0;
    s = ATTEND_SHAPE(s.dim[0], 1, s.rank == 3 ? s.dim[1] : 1, s.dim[s.rank - 1]);
    if (seen)
        p->opts.mask.mask = at_onnx_const(n, ATTEND_BOOL, s, seen);
}

/* The float mask, and what the bool mask hides: the operator takes one of the two. */
static void score_bias(struct onnx_node *n, struct problem *p)
{
    attend_tensor bias = at_onnx_use(n, SCORE_BIAS);
    if (p->opts.mask.mask.graph)
        bias = attend_graph_where(n->g, p->opts.mask.mask, bias, -INFINITY);
    p->opts.mask.mask = bias;
}

void at_onnx_multi_head(struct onnx_node *n)
{
    struct problem p = {.type = n->in[0]->type, .joined = true};
    int64_t heads = at_onnx_int(n, "num_heads", 0);
    bool past = at_onnx_given(n, MHA_PAST_K);
    attend_attention_opts_init(&p.opts);
    if (past != at_onnx_given(n, MHA_PAST_V) || heads < 1)
        at_onnx_fail(n, ATTEND_EINVAL,
                     "num_heads is %lld, or one of past_key and past_value is missing",
                     (long long)heads);
    if (at_onnx_given(n, BEAMS) || at_onnx_given(n, BEAMS + 1))
        at_onnx_fail(n, ATTEND_EUNSUPPORTED, "caches shared between beams");
    if (!at_onnx_failed(n))
        multi_head_inputs(n, &p, heads);
    if (at_onnx_given(n, BIAS) && !at_onnx_failed(n))
        add_biases(n, &p);
    if (at_onnx_failed(n))
        return;
    if (past) {
        attend_type type = attend_tensor_type(p.k);
        p.k = at_onnx_concat2(n, at_onnx_cast(n, at_onnx_use(n, MHA_PAST_K), type), p.k, 2);
        p.v = at_onnx_concat2(n, at_onnx_cast(n, at_onnx_use(n, MHA_PAST_V), type), p.v, 2);
    }
    at_onnx_give(n, 1, p.k, p.type);
    at_onnx_give(n, 2, p.v, p.type);
    if (at_onnx_float(n, "scale", 0) != 0)
        p.opts.scale = at_onnx_float(n, "scale", 0);
    p.opts.mask.causal = at_onnx_int(n, "unidirectional", 0) != 0;
    if (at_onnx_failed(n))
        return;
    set_offset(n, &p, attend_tensor_shape(p.k).dim[2] - attend_tensor_shape(p.q).dim[2]);
    if (at_onnx_given(n, KEY_PADDING))
        key_padding(n, &p);
    if (at_onnx_given(n, SCORE_BIAS) && !at_onnx_failed(n))
        score_bias(n, &p);
    give_attention(n, &p);
}

/* ---- ONNX Runtime: GroupQueryAttention ---- */

enum { GQA_PAST_K = 3, GQA_PAST_V, LENGTHS, TOTAL, COS, SIN, POSITIONS, GQA_BIAS, SINK, SCALES };

/* The sequences: how many keys each has in the cache before the new ones. */
struct caches {
    int64_t batch, rows, total, present; /* present: the length of the cache that results */
    int64_t before[ONNX_MAX_INTS];
    bool equal;
};

static bool read_caches(struct onnx_node *n, const struct problem *p, struct caches *c)
{
    int64_t last[ONNX_MAX_INTS], room = 0;
    attend_shape q = attend_tensor_shape(p->q);
    c->batch = q.dim[0];
    c->rows = q.dim[2];
    if (at_onnx_given(n, GQA_PAST_K) != at_onnx_given(n, GQA_PAST_V))
        at_onnx_fail(n, ATTEND_EINVAL, "only one of past_key and past_value is given");
    if (at_onnx_given(n, GQA_PAST_K))
        room = n->in[GQA_PAST_K]->shape.rank == 4 ? n->in[GQA_PAST_K]->shape.dim[2] : -1;
    if (!at_onnx_known_one(n, TOTAL, &c->total) || at_onnx_known(n, LENGTHS, last) != c->batch ||
        room < 0) {
        at_onnx_fail(n, ATTEND_EINVAL,
                     "seqlens_k, total_sequence_length or past_key is of a wrong shape");
        return false;
    }
    c->present = room > c->total ? room : c->total;
    c->equal = true;
    for (int64_t b = 0; b < c->batch; b++) {
        c->before[b] = c->total == c->rows ? 0 : last[b] + 1 - c->rows;
        c->equal = c->equal && c->before[b] == c->before[0];
        if (c->before[b] < 0 || c->before[b] > room || c->before[b] + c->rows > c->present)
            at_onnx_fail(n, ATTEND_EINVAL,
                         "sequence %lld has %lld keys and %lld new ones, in a cache of %lld",
                         (long long)b, (long long)c->before[b], (long long)c->rows,
                         (long long)c->present);
    }
    return !at_onnx_failed(n);
}

/* The caches of some sequences (all with `before` keys) with the new keys behind them, and what the
 * cache held further on, or zeros. */
static attend_tensor put_behind(struct onnx_node *n, const struct caches *c, attend_tensor past,
                                attend_tensor fresh, int64_t before)
{
    attend_shape s = attend_tensor_shape(fresh);
    int64_t end = before + c->rows, room = past.graph ? attend_tensor_shape(past).dim[2] : 0;
    if (before > 0)
        fresh = at_onnx_concat2(n, attend_graph_slice(n->g, past, 2, 0, before), fresh, 2);
    if (end < room)
        fresh = at_onnx_concat2(n, fresh, attend_graph_slice(n->g, past, 2, end, room - end), 2);
    end = end > room ? end : room;
    s.dim[2] = c->present - end;
    if (s.dim[2] > 0)
        fresh = at_onnx_concat2(n, fresh, at_onnx_fill(n, attend_tensor_type(fresh), s, 0), 2);
    return fresh;
}

static attend_tensor update_cache(struct onnx_node *n, const struct caches *c, int past_input,
                                  attend_tensor fresh)
{
    attend_tensor past = attend_none(), all = attend_none();
    if (at_onnx_given(n, past_input))
        past = at_onnx_cast(n, at_onnx_use(n, past_input), attend_tensor_type(fresh));
    if (c->equal)
        return put_behind(n, c, past, fresh, c->batch ? c->before[0] : 0);
    for (int64_t b = 0; b < c->batch; b++) {
        attend_tensor mine = past.graph ? attend_graph_slice(n->g, past, 0, b, 1) : past;
        attend_tensor one =
            put_behind(n, c, mine, attend_graph_slice(n->g, fresh, 0, b, 1), c->before[b]);
        all = b ? at_onnx_concat2(n, all, one, 0) : one;
    }
    return all;
}

/* q, k and v by heads; without a key input they lie behind each other in the query. */
static void group_query_inputs(struct onnx_node *n, struct problem *p, int64_t heads,
                               int64_t groups)
{
    attend_shape s = n->in[0]->shape;
    int64_t size = s.dim[2] / (heads + 2 * groups);
    if (at_onnx_given(n, 1) && at_onnx_given(n, 2)) {
        p->q = heads_of(n, 0, heads, false);
        p->k = heads_of(n, 1, groups, true);
        p->v = heads_of(n, 2, groups, true);
        return;
    }
    attend_tensor all = split_heads(n, at_onnx_use_rounded(n, 0), heads + 2 * groups);
    if (at_onnx_failed(n) || size < 1)
        return;
    p->q = attend_graph_slice(n->g, all, 1, 0, heads);
    p->k = attend_graph_slice(n->g, all, 1, heads, groups);
    p->v = attend_graph_slice(n->g, all, 1, heads + groups, groups);
}

static void group_query_rotary(struct onnx_node *n, struct problem *p, const struct caches *c)
{
    bool interleaved = at_onnx_int(n, "rotary_interleaved", 0) != 0;
    attend_tensor positions;
    if (!at_onnx_given(n, COS) || !at_onnx_given(n, SIN)) {
        at_onnx_fail(n, ATTEND_EINVAL, "do_rotary without cos_cache and sin_cache");
        return;
    }
    if (at_onnx_given(n, POSITIONS)) {
        positions = at_onnx_use(n, POSITIONS);
    } else {
        int32_t *at = at_onnx_alloc(n, c->batch, c->rows * (int64_t)sizeof *at);
        for (int64_t k = 0; at && k < c->batch * c->rows; k++)
            at[k] = (int32_t)(c->before[k / c->rows] + k % c->rows);
        if (!at)
            return;
        positions = at_onnx_const(n, ATTEND_I32, ATTEND_SHAPE(c->batch, c->rows), at);
    }
    attend_type type = attend_tensor_type(p->k);
    attend_tensor cosine = angles(n, COS, positions), sine = angles(n, SIN, positions);
    p->q = rotate(n, p->q, cosine, sine, interleaved);
    p->k = at_onnx_cast(n, rotate(n, p->k, cosine, sine, interleaved), type);
}

/* A logit that joins each row's sum: the given ones, or 0. */
static void group_query_sinks(struct onnx_node *n, struct problem *p, int64_t heads)
{
    if (at_onnx_given(n, SINK))
        p->opts.sinks = at_onnx_cast(n, at_onnx_use(n, SINK), ATTEND_F32);
    else if (at_onnx_int(n, "smooth_softmax", 0) > 0)
        p->opts.sinks = at_onnx_fill(n, ATTEND_F32, ATTEND_SHAPE(heads), 0);
}

static void group_query_masks(struct onnx_node *n, struct problem *p, const struct caches *c)
{
    int64_t window = at_onnx_int(n, "local_window_size", -1);
    int32_t *offset = at_onnx_alloc(n, c->batch, sizeof *offset);
    for (int64_t b = 0; offset && b < c->batch; b++)
        offset[b] = (int32_t)c->before[b];
    if (!offset)
        return;
    p->opts.mask.causal = 1;
    p->opts.mask.window_left = window > 0 ? window - 1 : -1; /* it counts the row's own key */
    p->opts.mask.q_offset = at_onnx_const(n, ATTEND_I32, ATTEND_SHAPE(c->batch), offset);
    if (at_onnx_given(n, GQA_BIAS))
        p->opts.mask.mask = at_onnx_use(n, GQA_BIAS);
}

void at_onnx_group_query(struct onnx_node *n)
{
    struct problem p = {.type = n->in[0]->type, .joined = true};
    struct caches c;
    int64_t heads = at_onnx_int(n, "num_heads", 0), groups = at_onnx_int(n, "kv_num_heads", 0);
    attend_attention_opts_init(&p.opts);
    if (!at_onnx_given(n, LENGTHS) || !at_onnx_given(n, TOTAL))
        at_onnx_fail(n, ATTEND_EFORMAT, "seqlens_k or total_sequence_length is missing");
    if (heads < 1 || heads > INT32_MAX || groups < 1 || groups > INT32_MAX ||
        n->in[0]->shape.rank != 3)
        at_onnx_fail(n, ATTEND_EINVAL, "num_heads %lld, kv_num_heads %lld, query of rank %d",
                     (long long)heads, (long long)groups, n->in[0]->shape.rank);
    for (int k = SCALES; k < n->nin; k++)
        if (at_onnx_given(n, k))
            at_onnx_fail(n, ATTEND_EUNSUPPORTED, "quantised caches");
    if (!at_onnx_failed(n))
        group_query_inputs(n, &p, heads, groups);
    if (at_onnx_failed(n) || !read_caches(n, &p, &c))
        return;
    if (at_onnx_int(n, "do_rotary", 0))
        group_query_rotary(n, &p, &c);
    if (at_onnx_failed(n))
        return;
    p.k = update_cache(n, &c, GQA_PAST_K, p.k);
    p.v = update_cache(n, &c, GQA_PAST_V, p.v);
    at_onnx_give(n, 1, p.k, p.type);
    at_onnx_give(n, 2, p.v, p.type);
    p.k = attend_graph_slice(n->g, p.k, 2, 0, c.total);
    p.v = attend_graph_slice(n->g, p.v, 2, 0, c.total);
    if (at_onnx_float(n, "scale", 0) != 0)
        p.opts.scale = at_onnx_float(n, "scale", 0);
    p.opts.softcap = at_onnx_float(n, "softcap", 0);
    group_query_sinks(n, &p, heads);
    group_query_masks(n, &p, &c);
    give_attention(n, &p);
}
