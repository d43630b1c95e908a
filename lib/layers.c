/* SPDX-License-Identifier: MIT */
/* Layers: attention with what usually stands around it, built from the public operators alone. */
#include <string.h>

#include "core.h"

/* The user's options, of whatever size they were compiled with. */
static attend_attention_opts options(const attend_attention_opts *opts)
{
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    if (opts)
        memcpy(&o, opts, opts->size < sizeof o ? opts->size : sizeof o);
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
    attend_attention_opts o = options(opts);
    o.additive = attend_tensor_type(va) == ATTEND_F32 ? va : attend_graph_cast(g, va, ATTEND_F32);
    q = one_head(g, attend_graph_matmul_nt(g, q, wq));
    k = one_head(g, attend_graph_matmul_nt(g, k, wk));
    attend_tensor out = attend_graph_attention(g, q, k, one_head(g, v), &o, lse);
    attend_shape s = attend_tensor_shape(out);
    if (s.rank == 3)
        return attend_graph_reshape(g, out, ATTEND_SHAPE(s.dim[0], s.dim[2]));
    return attend_graph_reshape(g, out, ATTEND_SHAPE(s.dim[0], s.dim[2], s.dim[3]));
}
