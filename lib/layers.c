/* SPDX-License-Identifier: MIT */
/* Layers: attention with what usually stands around it, built from the public operators alone. */
#include <string.h>

#include "core.h"

/* The user's options, of whatever size they were compiled with. */
static attend_attention_opts options(attend_graph *g, const attend_attention_opts *opts)
{
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    at_opts_take(&g->err, "attend_attention_opts", &o, sizeof o, opts);
    o.size = sizeof o;
    return o;
}

/* Rows (B, S, D), or packed (T, D), as those of one head: (B, 1, S, D), (T, 1, D). */
static attend_tensor one_head(attend_graph *g, attend_tensor a)
{
    attend_shape s = attend_tensor_shape(a);
    if (s.rank == 2)
        return attend_graph_reshape(g, a, ATTEND_SHAPE(s.dim[0], 1, s.dim[1]));
    if (s.rank == 3)
        return attend_graph_reshape(g, a, ATTEND_SHAPE(s.dim[0], 1, s.dim[1], s.dim[2]));
    return a; /* which attention refuses, unless it is one already */
}

attend_tensor attend_graph_additive_attention(attend_graph *g, attend_tensor q, attend_tensor k,
                                              attend_tensor v, attend_tensor wq, attend_tensor wk,
                                              attend_tensor va, const attend_attention_opts *opts,
                                              attend_tensor *lse)
{
    attend_attention_opts o = options(g, opts);
    o.additive = attend_tensor_type(va) == ATTEND_F32 ? va : attend_graph_cast(g, va, ATTEND_F32);
    q = one_head(g, attend_graph_matmul_nt(g, q, wq));
    k = one_head(g, attend_graph_matmul_nt(g, k, wk));
    attend_tensor out = attend_graph_attention(g, q, k, one_head(g, v), &o, lse);
    attend_shape s = attend_tensor_shape(out);
    if (s.rank == 3)
        return attend_graph_reshape(g, out, ATTEND_SHAPE(s.dim[0], s.dim[2]));
    return attend_graph_reshape(g, out, ATTEND_SHAPE(s.dim[0], s.dim[2], s.dim[3]));
}

/* ---- multi-head ---- */

void attend_multi_head_opts_init(attend_multi_head_opts *opts)
{
    const attend_tensor none = attend_none();
    *opts = (attend_multi_head_opts){.size = sizeof *opts,
                                     .wq = none,
                                     .wk = none,
                                     .wv = none,
                                     .bq = none,
                                     .bk = none,
                                     .bv = none,
                                     .wqkv = none,
                                     .bqkv = none,
                                     .wo = none,
                                     .bo = none};
}

static bool given(attend_tensor t)
{
    return t.graph != NULL;
}

static attend_tensor linear(attend_graph *g, attend_tensor x, attend_tensor w, attend_tensor b)
{
    attend_tensor y = attend_graph_matmul_nt(g, x, w);
    return given(b) ? attend_graph_add(g, y, b) : y;
}

/* (B, S, H D) as (B, H, S, D), or packed (T, H D) as (T, H, D): views. */
static attend_tensor split_heads(attend_graph *g, attend_tensor y, int64_t heads)
{
    static const int heads_first[] = {0, 2, 1, 3};
    attend_shape s = attend_tensor_shape(y);
    int64_t width = s.rank > 0 ? s.dim[s.rank - 1] : 0;
    if (heads < 1 || width % heads) {
        at_fail(&g->err, ATTEND_EINVAL, "multi_head: %lld channels are not %lld heads",
                (long long)width, (long long)heads);
        return attend_none();
    }
    if (s.rank == 2)
        return attend_graph_reshape(g, y, ATTEND_SHAPE(s.dim[0], heads, width / heads));
    y = attend_graph_reshape(g, y, ATTEND_SHAPE(s.dim[0], s.dim[1], heads, width / heads));
    return attend_graph_permute(g, y, heads_first);
}

static attend_tensor join_heads(attend_graph *g, attend_tensor o)
{
    static const int rows_first[] = {0, 2, 1, 3};
    attend_shape s = attend_tensor_shape(o);
    if (s.rank == 3)
        return attend_graph_reshape(g, o, ATTEND_SHAPE(s.dim[0], s.dim[1] * s.dim[2]));
    return attend_graph_reshape(g, attend_graph_permute(g, o, rows_first),
                                ATTEND_SHAPE(s.dim[0], s.dim[2], s.dim[1] * s.dim[3]));
}

/* One product for all three, cut where they meet. */
static void project_fused(attend_graph *g, attend_tensor x, const attend_multi_head_opts *o,
                          attend_tensor qkv[3])
{
    attend_tensor y = linear(g, x, o->wqkv, o->bqkv);
    attend_shape s = attend_tensor_shape(y);
    int64_t heads[] = {o->heads, o->kv_heads, o->kv_heads}, start = 0,
            size = s.rank > 0 ? s.dim[s.rank - 1] / (o->heads + 2 * o->kv_heads) : 0;
    if (s.rank > 0 && s.dim[s.rank - 1] != size * (o->heads + 2 * o->kv_heads))
        at_fail(&g->err, ATTEND_EINVAL, "multi_head: wqkv has %lld rows, not those of %lld heads",
                (long long)s.dim[s.rank - 1], (long long)(o->heads + 2 * o->kv_heads));
    for (int i = 0; i < 3; i++) {
        int64_t length = size * heads[i];
        qkv[i] = split_heads(g, attend_graph_slice(g, y, s.rank - 1, start, length), heads[i]);
        start += length;
    }
}

attend_tensor attend_graph_multi_head(attend_graph *g, attend_tensor x, attend_tensor context,
                                      const attend_multi_head_opts *opts, attend_tensor *lse)
{
    attend_tensor qkv[3];
    attend_multi_head_opts o;
    attend_multi_head_opts_init(&o);
    at_opts_take(&g->err, "attend_multi_head_opts", &o, sizeof o, opts);
    if (lse)
        *lse = attend_none();
    if (o.kv_heads == 0)
        o.kv_heads = o.heads;
    if (o.heads < 1 || o.kv_heads < 1 || o.heads > INT32_MAX || o.kv_heads > o.heads) {
        at_fail(&g->err, ATTEND_EINVAL, "multi_head: %lld query heads and %lld KV heads",
                (long long)o.heads, (long long)o.kv_heads);
        return attend_none();
    }
    if (given(o.wqkv) && (given(context) || given(o.wq) || given(o.wk) || given(o.wv))) {
        at_fail(&g->err, ATTEND_EINVAL, "multi_head: wqkv projects x alone, without wq, wk and wv");
        return attend_none();
    }
    if (given(o.wqkv)) {
        project_fused(g, x, &o, qkv);
    } else {
        attend_tensor c = given(context) ? context : x;
        qkv[0] = split_heads(g, linear(g, x, o.wq, o.bq), o.heads);
        qkv[1] = split_heads(g, linear(g, c, o.wk, o.bk), o.kv_heads);
        qkv[2] = split_heads(g, linear(g, c, o.wv, o.bv), o.kv_heads);
    }
    attend_tensor y = attend_graph_attention(g, qkv[0], qkv[1], qkv[2], o.attention, lse);
    y = join_heads(g, y);
    return given(o.wo) ? linear(g, y, o.wo, o.bo) : y;
}
