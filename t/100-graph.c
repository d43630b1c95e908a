/* SPDX-License-Identifier: MIT */
/* Graphs: the shapes that operators make, and for each wrong call its sentence, which stays. */
#include "graph_help.h"

#include <math.h>
#include <string.h>

/* Tensors to call operators with; n and m are dynamic. */
struct parts {
    attend_graph *g, *other;
    int64_t n, m;
    attend_tensor a, b, i, c, w, q8, x4, dyn, pool, rows, slots, foreign;
};

static struct parts begin(attend_ctx *ctx)
{
    static const uint8_t block[34 * 4];
    static const float w[3];
    struct parts p = {.g = attend_graph_new(ctx), .other = attend_graph_new(ctx)};
    attend_graph *g = p.g;
    p.n = attend_graph_dim(g, "n", 1, 9);
    p.m = attend_graph_dim(g, "m", 0, 1000);
    p.a = attend_graph_input(g, "a", ATTEND_F32, ATTEND_SHAPE(2, 3));
    p.b = attend_graph_input(g, "b", ATTEND_F32, ATTEND_SHAPE(3, 4));
    p.i = attend_graph_input(g, "i", ATTEND_I32, ATTEND_SHAPE(2));
    p.c = attend_graph_input(g, "c", ATTEND_BOOL, ATTEND_SHAPE(2, 3));
    p.w = attend_graph_const(g, "w", ATTEND_F32, ATTEND_SHAPE(3), w, sizeof w);
    p.q8 = attend_graph_const(g, "q8", ATTEND_Q8_0, ATTEND_SHAPE(2, 64), block, sizeof block);
    p.x4 = attend_graph_input(g, "x4", ATTEND_F32, ATTEND_SHAPE(1, 4, 5, 6));
    p.dyn = attend_graph_input(g, "dyn", ATTEND_F32, ATTEND_SHAPE(p.n, 3));
    p.pool = attend_graph_state(g, "pool", ATTEND_F16, ATTEND_SHAPE(7, 4, 8, 6));
    p.rows = attend_graph_input(g, "rows", ATTEND_F32, ATTEND_SHAPE(1, 4, 2, 6));
    p.slots = attend_graph_input(g, "slots", ATTEND_I32, ATTEND_SHAPE(1, 2));
    p.foreign = attend_graph_input(p.other, "a", ATTEND_F32, ATTEND_SHAPE(2, 3));
    return p;
}

static void end(struct parts *p)
{
    attend_graph_free(p->g);
    attend_graph_free(p->other);
}

/* ---- shapes ---- */

static attend_tensor rope(struct parts *p, attend_tensor t, attend_tensor pos, int pairing,
                          int64_t dims)
{
    attend_rope_opts o;
    attend_rope_opts_init(&o);
    o.pairing = (attend_rope_pairing)pairing;
    o.dims = dims;
    return attend_graph_rope(p->g, t, pos, &o);
}

static void shape_is(struct parts *p, attend_tensor t, attend_type type, const char *want,
                     const char *name)
{
    char got[100];
    attend_shape s = attend_tensor_shape(t);
    if (attend_graph_status(p->g))
        diag("%s", attend_graph_error(p->g));
    is_str(at_shape_text(&p->g->dims, s.rank, s.dim, got, sizeof got), want, "%s", name);
    is_int(attend_tensor_type(t), type, "%s: its type", name);
}

static void shapes(attend_ctx *ctx)
{
    struct parts p = begin(ctx);
    attend_graph *g = p.g;
    attend_tensor one = attend_graph_input(g, "one", ATTEND_F32, ATTEND_SHAPE(5, 1, 3)), lse;
    attend_tensor pos = attend_graph_input(g, "pos", ATTEND_I32, ATTEND_SHAPE(5));
    attend_tensor dyn4 = attend_graph_input(g, "dyn4", ATTEND_F32, ATTEND_SHAPE(p.n, 4, p.m, 6));
    attend_tensor both[] = {p.dyn, p.a}, scalar;
    attend_shape none = {0};
    shape_is(&p, attend_graph_matmul(g, p.a, p.b), ATTEND_F32, "2 x 4", "matmul");
    shape_is(&p, attend_graph_matmul(g, p.dyn, p.b), ATTEND_F32, "n x 4", "matmul of dynamic rows");
    shape_is(&p, attend_graph_matmul_nt(g, one, p.a), ATTEND_F32, "5 x 1 x 2",
             "matmul_nt broadcasts");
    shape_is(&p, attend_graph_add(g, one, p.a), ATTEND_F32, "5 x 2 x 3", "add broadcasts");
    shape_is(&p, attend_graph_mul(g, p.dyn, p.w), ATTEND_F32, "n x 3", "mul of dynamic rows");
    shape_is(&p, attend_graph_where(g, p.c, p.a, 0), ATTEND_F32, "2 x 3", "where");
    shape_is(&p, attend_graph_cast(g, p.a, ATTEND_BF16), ATTEND_BF16, "2 x 3", "cast");
    shape_is(&p, attend_graph_rms_norm(g, p.dyn, p.w, 0), ATTEND_F32, "n x 3", "rms_norm");
    shape_is(&p, rope(&p, p.x4, pos, ATTEND_ROPE_HALF, 4), ATTEND_F32, "1 x 4 x 5 x 6", "rope");
    shape_is(&p, attend_graph_gather(g, p.q8, p.slots), ATTEND_F32, "1 x 2 x 64", "gather");
    shape_is(&p, attend_graph_concat(g, both, 2, 0), ATTEND_F32, "n+2 x 3",
             "concat of dynamic rows");
    shape_is(&p, attend_graph_append(g, p.pool, p.rows, p.slots), ATTEND_F16, "7 x 4 x 8 x 6",
             "append");
    shape_is(&p, attend_graph_reshape(g, p.dyn, ATTEND_SHAPE(ATTEND_INFER)), ATTEND_F32, "3 n",
             "reshape");
    shape_is(&p, attend_graph_reshape(g, dyn4, ATTEND_SHAPE(4, p.n, 3, ATTEND_INFER)), ATTEND_F32,
             "4 x n x 3 x 2 m", "reshape of two dimensions");
    shape_is(&p, attend_graph_permute(g, dyn4, (int[]){3, 0, 2, 1}), ATTEND_F32, "6 x n x m x 4",
             "permute");
    shape_is(&p, attend_graph_slice(g, p.dyn, 0, 0, 1), ATTEND_F32, "1 x 3", "slice");
    shape_is(&p, attend_graph_slice(g, p.q8, 1, 32, 32), ATTEND_Q8_0, "2 x 32", "slice of blocks");
    shape_is(&p, attend_graph_expand(g, one, ATTEND_SHAPE(5, p.n, 3)), ATTEND_F32, "5 x n x 3",
             "expand");
    scalar = attend_graph_reshape(g, attend_graph_slice(g, p.w, 0, 1, 1), none);
    shape_is(&p, scalar, ATTEND_F32, "scalar", "reshape to a scalar");
    shape_is(&p, attend_graph_add(g, scalar, p.a), ATTEND_F32, "2 x 3", "a scalar broadcasts");
    shape_is(&p, attend_graph_expand(g, scalar, none), ATTEND_F32, "scalar",
             "a scalar expands to itself");
    shape_is(&p, attend_graph_attention(g, dyn4, dyn4, dyn4, NULL, &lse), ATTEND_F32,
             "n x 4 x m x 6", "attention");
    shape_is(&p, lse, ATTEND_F32, "n x 4 x m", "lse");
    for (int k = 0; k < 200; k++) /* tensors move while their graph grows */
        scalar = attend_graph_scale(g, p.dyn, 2);
    shape_is(&p, scalar, ATTEND_F32, "n x 3", "after many nodes");
    end(&p);
}

/* ---- wrong calls ---- */

static attend_tensor attention(struct parts *p, attend_tensor q, attend_tensor k, attend_tensor v)
{
    return attend_graph_attention(p->g, q, k, v, NULL, NULL);
}

static attend_tensor input(struct parts *p, const char *name, attend_type type, attend_shape s)
{
    return attend_graph_input(p->g, name, type, s);
}

/* attention of x4 with itself, and one option */
enum option { ALIBI, SINKS, USED, OFFSET, MASK, PACKED, KEYS_ONLY, TABLE, SCALE };
static void with(struct parts *p, enum option which, attend_tensor t)
{
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    *(which == ALIBI       ? &o.alibi
      : which == SINKS     ? &o.sinks
      : which == USED      ? &o.mask.kv_used
      : which == OFFSET    ? &o.mask.q_offset
      : which == MASK      ? &o.mask.mask
      : which == PACKED    ? &o.q_lens
      : which == KEYS_ONLY ? &o.kv_lens
      : which == TABLE     ? &o.block_table
                           : &o.k_scale) = t;
    if (which == PACKED)
        o.kv_lens = p->i;
    attend_graph_attention(p->g, p->x4, p->x4, p->x4, &o, NULL);
}

static void with_mask(struct parts *p, int64_t left, int align, attend_tensor q_offset)
{
    attend_mask_opts o;
    attend_mask_opts_init(&o);
    o.window_left = left;
    o.align = (attend_align)align;
    o.q_offset = q_offset;
    attend_graph_mask(p->g, p->x4, &o);
}

static void hand_made_mask(struct parts *p)
{
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.mask = (attend_mask_opts){.causal = 1};
    attend_graph_attention(p->g, p->x4, p->x4, p->x4, &o, NULL);
}

static void many_parts(struct parts *p)
{
    attend_tensor t[AT_MAX_IN + 1];
    for (size_t i = 0; i < NELEM(t); i++)
        t[i] = p->a;
    attend_graph_concat(p->g, t, (int)NELEM(t), 0);
}

static void scaled(struct parts *p, float scale, float cap)
{
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.scale = scale;
    o.softcap = cap;
    attend_graph_attention(p->g, p->x4, p->x4, p->x4, &o, NULL);
}

/* Views of a superseded state are as old as it is. */
static void read_late(struct parts *p)
{
    attend_tensor view = attend_graph_slice(p->g, p->pool, 0, 0, 2);
    attend_graph_append(p->g, p->pool, p->rows, p->slots);
    attend_graph_cast(p->g, view, ATTEND_F32);
}

static const int64_t huge = (int64_t)1 << 40;
#define G p->g
#define NONE attend_none()
#define WRONG(name, call)                                                                          \
    static void name(struct parts *p)                                                              \
    {                                                                                              \
        (void)(call);                                                                              \
    }

/* clang-format off */
WRONG(w_none, attend_graph_add(G, p->a, NONE))
WRONG(w_foreign, attend_graph_add(G, p->a, p->foreign))
WRONG(w_far, attend_graph_tanh(G, (attend_tensor){G, 1000}))
WRONG(w_in_unnamed, input(p, "", ATTEND_F32, ATTEND_SHAPE(1)))
WRONG(w_in_taken, input(p, "a", ATTEND_F32, ATTEND_SHAPE(1)))
WRONG(w_in_dim, input(p, "n", ATTEND_F32, ATTEND_SHAPE(1)))
WRONG(w_in_type, input(p, "z", ATTEND_TYPE_COUNT, ATTEND_SHAPE(1)))
WRONG(w_in_rank, input(p, "z", ATTEND_F32, (attend_shape){7, {0}}))
WRONG(w_in_extent, input(p, "z", ATTEND_F32, ATTEND_SHAPE(4, -3)))
WRONG(w_in_infer, input(p, "z", ATTEND_F32, ATTEND_SHAPE(ATTEND_INFER)))
WRONG(w_in_huge, input(p, "z", ATTEND_F32, ATTEND_SHAPE(huge, huge, 0)))
WRONG(w_dim_twice, attend_graph_dim(G, "n", 1, 2))
WRONG(w_dim_name, attend_graph_dim(G, "a", 1, 2))
WRONG(w_dim_order, attend_graph_dim(G, "d", 3, 2))
WRONG(w_dim_negative, attend_graph_dim(G, "d", -1, 2))
WRONG(w_const_size, attend_graph_const(G, "z", ATTEND_F32, ATTEND_SHAPE(2), "12345678", 7))
WRONG(w_const_null, attend_graph_const(G, "z", ATTEND_F32, ATTEND_SHAPE(2), NULL, 8))
WRONG(w_const_dyn, attend_graph_const(G, "z", ATTEND_F32, ATTEND_SHAPE(p->n), "", 0))
WRONG(w_state_taken, attend_graph_state(G, "pool", ATTEND_F32, ATTEND_SHAPE(1)))
WRONG(w_out_taken, (attend_graph_output(G, "a", p->b), 0))
WRONG(w_out_unnamed, (attend_graph_output(G, NULL, p->b), 0))
WRONG(w_out_none, (attend_graph_output(G, "o", NONE), 0))
WRONG(w_out_twice, (attend_graph_output(G, "o", p->a), attend_graph_output(G, "o", p->a), 0))
WRONG(w_mm_inner, attend_graph_matmul(G, p->a, p->a))
WRONG(w_mm_nt_inner, attend_graph_matmul_nt(G, p->a, p->b))
WRONG(w_mm_rank, attend_graph_matmul(G, p->a, p->w))
WRONG(w_mm_type, attend_graph_matmul(G, p->a, p->c))
WRONG(w_mm_quant, attend_graph_matmul(G, p->a, p->q8))
WRONG(w_mm_dyn, attend_graph_matmul_nt(G, p->a, attend_graph_reshape(G, attend_graph_slice(G, p->dyn, 1, 0, 1), ATTEND_SHAPE(1, p->n))))
WRONG(w_mm_huge, attend_graph_matmul(G, input(p, "y", ATTEND_F32, ATTEND_SHAPE(huge, 1)), input(p, "z", ATTEND_F32, ATTEND_SHAPE(1, huge))))
WRONG(w_add, attend_graph_add(G, p->a, p->b))
WRONG(w_add_dyn, attend_graph_add(G, p->a, p->dyn))
WRONG(w_add_type, attend_graph_add(G, p->a, p->i))
WRONG(w_mul, attend_graph_mul(G, p->a, p->b))
WRONG(w_scale, attend_graph_scale(G, p->i, 2))
WRONG(w_where_cond, attend_graph_where(G, p->a, p->a, 0))
WRONG(w_where_shape, attend_graph_where(G, p->c, p->b, 0))
WRONG(w_select, attend_graph_select(G, p->c, p->a, p->b))
WRONG(w_softmax, attend_graph_softmax(G, attend_graph_reshape(G, attend_graph_slice(G, p->w, 0, 0, 1), (attend_shape){0})))
WRONG(w_rms_weight, attend_graph_rms_norm(G, p->b, p->w, 0))
WRONG(w_rms_eps, attend_graph_rms_norm(G, p->a, p->w, -1))
WRONG(w_rms_nan, attend_graph_rms_norm(G, p->a, p->w, NAN))
WRONG(w_layer_bias, attend_graph_layer_norm(G, p->a, p->w, p->a, 0))
WRONG(w_silu, attend_graph_silu(G, p->c))
WRONG(w_cast, attend_graph_cast(G, p->a, ATTEND_I32))
WRONG(w_cast_from, attend_graph_cast(G, p->i, ATTEND_F32))
WRONG(w_rope_pairing, rope(p, p->x4, input(p, "p", ATTEND_I32, ATTEND_SHAPE(5)), 0, 0))
WRONG(w_rope_rank, rope(p, p->a, p->i, ATTEND_ROPE_HALF, 0))
WRONG(w_rope_pos, rope(p, p->x4, p->i, ATTEND_ROPE_HALF, 0))
WRONG(w_rope_type, rope(p, p->x4, p->w, ATTEND_ROPE_HALF, 0))
WRONG(w_rope_dims, rope(p, p->x4, input(p, "p", ATTEND_I32, ATTEND_SHAPE(5)), ATTEND_ROPE_HALF, 8))
WRONG(w_rope_odd, rope(p, p->x4, input(p, "p", ATTEND_I32, ATTEND_SHAPE(5)), ATTEND_ROPE_HALF, 3))
WRONG(w_gather_index, attend_graph_gather(G, p->a, p->a))
WRONG(w_gather_rank, attend_graph_gather(G, p->x4, p->i))
WRONG(w_gather_type, attend_graph_gather(G, p->c, p->i))
WRONG(w_append_state, attend_graph_append(G, p->x4, p->rows, p->slots))
WRONG(w_append_view, attend_graph_append(G, attend_graph_slice(G, p->pool, 0, 0, 2), p->rows, p->slots))
WRONG(w_append_rows, attend_graph_append(G, p->pool, p->x4, p->slots))
WRONG(w_append_slots, attend_graph_append(G, p->pool, p->rows, p->i))
WRONG(w_append_type, attend_graph_append(G, p->pool, p->rows, p->a))
WRONG(w_append_old, (attend_graph_append(G, p->pool, p->rows, p->slots), attend_graph_append(G, p->pool, p->rows, p->slots)))
WRONG(w_concat_none, attend_graph_concat(G, &p->a, 0, 0))
WRONG(w_concat_axis, attend_graph_concat(G, &p->a, 1, 2))
WRONG(w_concat_shape, attend_graph_concat(G, (attend_tensor[]){p->a, p->b}, 2, 0))
WRONG(w_concat_dyn, attend_graph_concat(G, (attend_tensor[]){p->dyn, p->dyn}, 2, 0))
WRONG(w_reshape, attend_graph_reshape(G, p->a, ATTEND_SHAPE(4)))
WRONG(w_reshape_dyn, attend_graph_reshape(G, p->dyn, ATTEND_SHAPE(p->m, 3)))
WRONG(w_reshape_rank, attend_graph_reshape(G, p->a, (attend_shape){9, {1}}))
WRONG(w_reshape_two, attend_graph_reshape(G, p->a, ATTEND_SHAPE(ATTEND_INFER, ATTEND_INFER)))
WRONG(w_reshape_infer, attend_graph_reshape(G, p->a, ATTEND_SHAPE(4, ATTEND_INFER)))
WRONG(w_reshape_zero, attend_graph_reshape(G, p->a, ATTEND_SHAPE(0, ATTEND_INFER)))
WRONG(w_reshape_extent, attend_graph_reshape(G, p->a, ATTEND_SHAPE(-7, 3)))
WRONG(w_reshape_quant, attend_graph_reshape(G, p->q8, ATTEND_SHAPE(128)))
WRONG(w_permute_twice, attend_graph_permute(G, p->a, (int[]){0, 0}))
WRONG(w_permute_axis, attend_graph_permute(G, p->a, (int[]){0, 2}))
WRONG(w_permute_quant, attend_graph_permute(G, p->q8, (int[]){1, 0}))
WRONG(w_slice_axis, attend_graph_slice(G, p->a, 2, 0, 1))
WRONG(w_slice_end, attend_graph_slice(G, p->a, 1, 2, 2))
WRONG(w_slice_start, attend_graph_slice(G, p->a, 1, -1, 2))
WRONG(w_slice_length, attend_graph_slice(G, p->a, 1, 0, -9))
WRONG(w_slice_infer, attend_graph_slice(G, p->a, 1, 0, ATTEND_INFER))
WRONG(w_slice_dyn, attend_graph_slice(G, p->dyn, 0, 0, 2))
WRONG(w_slice_quant, attend_graph_slice(G, p->q8, 1, 16, 32))
WRONG(w_expand, attend_graph_expand(G, p->a, ATTEND_SHAPE(4, 3)))
WRONG(w_expand_rank, attend_graph_expand(G, p->a, ATTEND_SHAPE(1, 2, 3)))
WRONG(w_expand_extent, attend_graph_expand(G, attend_graph_slice(G, p->a, 0, 0, 1), ATTEND_SHAPE(-50, 3)))
WRONG(w_expand_huge, attend_graph_expand(G, input(p, "z", ATTEND_F32, ATTEND_SHAPE(1, 1)), ATTEND_SHAPE(huge, huge)))
WRONG(w_att_rank, attention(p, p->a, p->x4, p->x4))
WRONG(w_att_type, attention(p, p->i, p->x4, p->x4))
WRONG(w_att_kv, attention(p, p->x4, p->pool, p->x4))
WRONG(w_att_head, attention(p, p->x4, input(p, "k", ATTEND_F32, ATTEND_SHAPE(1, 4, 5, 7)), p->x4))
WRONG(w_att_groups, attention(p, p->x4, input(p, "k", ATTEND_F32, ATTEND_SHAPE(1, 3, 5, 6)), input(p, "v", ATTEND_F32, ATTEND_SHAPE(1, 3, 5, 6))))
WRONG(w_att_length, attention(p, p->x4, p->x4, p->rows))
WRONG(w_att_batch, attention(p, p->x4, input(p, "k", ATTEND_F32, ATTEND_SHAPE(2, 4, 5, 6)), input(p, "v", ATTEND_F32, ATTEND_SHAPE(2, 4, 5, 6))))
WRONG(w_att_large, attention(p, input(p, "k", ATTEND_F32, ATTEND_SHAPE(1, 1, 5, 577)), input(p, "v", ATTEND_F32, ATTEND_SHAPE(1, 1, 5, 577)), p->x4))
WRONG(w_att_alibi, (with(p, ALIBI, p->w), 0))
WRONG(w_att_sinks, (with(p, SINKS, p->i), 0))
WRONG(w_att_used, (with(p, USED, p->i), 0))
WRONG(w_att_offset, (with(p, OFFSET, p->w), 0))
WRONG(w_att_mask, (with(p, MASK, p->a), 0))
WRONG(w_att_mask_type, (with(p, MASK, p->slots), 0))
WRONG(w_att_packed, (with(p, PACKED, p->i), 0))
WRONG(w_att_keys, (with(p, KEYS_ONLY, p->i), 0))
WRONG(w_att_table, (with(p, TABLE, p->a), 0))
WRONG(w_att_k_scale, (with(p, SCALE, p->a), 0))
WRONG(w_att_scale, (scaled(p, INFINITY, 0), 0))
WRONG(w_att_softcap, (scaled(p, 1, -2), 0))
WRONG(w_opts, attend_graph_attention(G, p->x4, p->x4, p->x4, &(attend_attention_opts){.scale = 1}, NULL))
WRONG(w_opts_wild, attend_graph_rope(G, p->x4, p->i, &(attend_rope_opts){.size = SIZE_MAX / 3}))
WRONG(w_opts_mask, (hand_made_mask(p), 0))
WRONG(w_mask_rank, attend_graph_mask(G, p->a, NULL))
WRONG(w_mask_window, (with_mask(p, -2, 0, NONE), 0))
WRONG(w_mask_align, (with_mask(p, 1, 5, NONE), 0))
WRONG(w_mask_unset, (with_mask(p, 1, 0, NONE), 0))
WRONG(w_mask_both, (with_mask(p, 1, 1, input(p, "off", ATTEND_I32, ATTEND_SHAPE(1))), 0))

static const struct wrong_call {
    void (*call)(struct parts *p);
    int status;
    const char *says;
} wrong_calls[] = {
    {w_none, ATTEND_EINVAL, "add is no tensor"},
    {w_foreign, ATTEND_EINVAL, "add is a tensor of another graph"},
    {w_far, ATTEND_EINVAL, "tanh is no tensor"},
    {w_in_unnamed, ATTEND_EINVAL, "an input has no name"},
    {w_in_taken, ATTEND_EINVAL, "an input 'a': the name is taken"},
    {w_in_dim, ATTEND_EINVAL, "an input 'n': the name is taken"},
    {w_in_type, ATTEND_EINVAL, "an input 'z': "},
    {w_in_rank, ATTEND_EINVAL, "an input 'z': rank 7, wants 0 to 6"},
    {w_in_extent, ATTEND_EINVAL, "an input 'z': extent 1 is -3"},
    {w_in_infer, ATTEND_EINVAL, "an input 'z': extent 0 is -9223372036854775808"},
    {w_in_huge, ATTEND_ELIMIT, "an input 'z', 1099511627776 x 1099511627776 x 0, would pass 2^63 bytes"},
    {w_dim_twice, ATTEND_EINVAL, "dimension 'n': the name is taken"},
    {w_dim_name, ATTEND_EINVAL, "dimension 'a': the name is taken"},
    {w_dim_order, ATTEND_EINVAL, "dimension 'd': wants 0 <= min <= max, got 3 and 2"},
    {w_dim_negative, ATTEND_EINVAL, "dimension 'd': wants 0 <= min <= max, got -1 and 2"},
    {w_const_size, ATTEND_EINVAL, "constant 'z' needs 8 bytes but 7 were given"},
    {w_const_null, ATTEND_EINVAL, "constant 'z' needs 8 bytes but 0 were given"},
    {w_const_dyn, ATTEND_EINVAL, "constant 'z' has a dynamic extent: n"},
    {w_state_taken, ATTEND_EINVAL, "a state 'pool': the name is taken"},
    {w_out_taken, ATTEND_EINVAL, "output 'a': the name is taken"},
    {w_out_unnamed, ATTEND_EINVAL, "an output has no name"},
    {w_out_none, ATTEND_EINVAL, "an output is no tensor"},
    {w_out_twice, ATTEND_EINVAL, "output 'o': the name is taken"},
    {w_mm_inner, ATTEND_EINVAL, "matmul 'here': 2 x 3 and 2 x 3 do not fit: wants (..., m, k) and (..., k, n)"},
    {w_mm_nt_inner, ATTEND_EINVAL, "matmul 'here': 2 x 3 and 3 x 4 do not fit: wants (..., m, k) and (..., n, k)"},
    {w_mm_rank, ATTEND_EINVAL, "matmul 'here': b has rank 1, wants at least 2"},
    {w_mm_type, ATTEND_EINVAL, "matmul 'here': b is bool, wants f32, f16 or bf16"},
    {w_mm_quant, ATTEND_EINVAL, "matmul 'here': b is q8_0, wants f32, f16 or bf16"},
    {w_mm_dyn, ATTEND_EINVAL, "matmul 'here': 2 x 3 and 1 x n do not fit"},
    {w_mm_huge, ATTEND_ELIMIT, "matmul 'here': the result, 1099511627776 x 1099511627776, would pass 2^63 bytes"},
    {w_add, ATTEND_EINVAL, "add 'here': 2 x 3 and 3 x 4 do not fit: extents must be equal or 1"},
    {w_add_dyn, ATTEND_EINVAL, "add 'here': 2 x 3 and n x 3 do not fit"},
    {w_add_type, ATTEND_EINVAL, "add 'here': input 1 is i32, wants f32, f16 or bf16"},
    {w_mul, ATTEND_EINVAL, "mul 'here': 2 x 3 and 3 x 4 do not fit"},
    {w_scale, ATTEND_EINVAL, "scale 'here': input 0 is i32"},
    {w_where_cond, ATTEND_EINVAL, "where 'here': the condition is f32, wants bool"},
    {w_where_shape, ATTEND_EINVAL, "where 'here': 2 x 3 and 3 x 4 do not fit"},
    {w_select, ATTEND_EINVAL, "select 'here': 2 x 3 and 3 x 4 do not fit"},
    {w_softmax, ATTEND_EINVAL, "softmax 'here': input 0 has rank 0, wants at least 1"},
    {w_rms_weight, ATTEND_EINVAL, "rms_norm 'here': the weight is 3, wants 4"},
    {w_rms_eps, ATTEND_EINVAL, "rms_norm 'here': eps is -1, wants a number >= 0"},
    {w_rms_nan, ATTEND_EINVAL, "rms_norm 'here': eps is nan"},
    {w_layer_bias, ATTEND_EINVAL, "layer_norm 'here': the bias is 2 x 3, wants 3"},
    {w_silu, ATTEND_EINVAL, "silu 'here': input 0 is bool"},
    {w_cast, ATTEND_EINVAL, "cast 'here': to i32, wants f32, f16 or bf16"},
    {w_cast_from, ATTEND_EINVAL, "cast 'here': input 0 is i32"},
    {w_rope_pairing, ATTEND_EINVAL, "rope 'here': pairing is not set: half or interleaved"},
    {w_rope_rank, ATTEND_EINVAL, "rope 'here': input 0 has rank 2, wants (B, H, S, D)"},
    {w_rope_pos, ATTEND_EINVAL, "rope 'here': positions is 2, wants 1 x 5"},
    {w_rope_type, ATTEND_EINVAL, "rope 'here': positions is f32, wants i32"},
    {w_rope_dims, ATTEND_EINVAL, "rope 'here': rotates 8 channels of 6, wants an even number"},
    {w_rope_odd, ATTEND_EINVAL, "rope 'here': rotates 3 channels of 6, wants an even number"},
    {w_gather_index, ATTEND_EINVAL, "gather 'here': the index is f32, wants i32"},
    {w_gather_rank, ATTEND_EINVAL, "gather 'here': the table has rank 4 and the index 1, wants 2"},
    {w_gather_type, ATTEND_EINVAL, "gather 'here': input 0 is bool"},
    {w_append_state, ATTEND_EINVAL, "append 'here': input 0 is not a state"},
    {w_append_view, ATTEND_EINVAL, "append 'here': input 0 is a view of a state"},
    {w_append_rows, ATTEND_EINVAL, "append 'here': slots is 1 x 2, wants 1 x 5"},
    {w_append_slots, ATTEND_EINVAL, "append 'here': slots is 2, wants 1 x 2"},
    {w_append_type, ATTEND_EINVAL, "append 'here': slots is f32, wants i32"},
    {w_append_old, ATTEND_EINVAL, "append 'here': reads state 'pool' as it was before a later write"},
    {read_late, ATTEND_EINVAL, "cast 'here': reads state 'pool' as it was before a later write"},
    {w_concat_none, ATTEND_EINVAL, "concat of 0 tensors, wants 1 to "},
    {many_parts, ATTEND_ELIMIT, "tensors, wants 1 to "},
    {w_concat_axis, ATTEND_EINVAL, "concat 'here': axis 2 of a f32 tensor of rank 2"},
    {w_concat_shape, ATTEND_EINVAL, "concat 'here': 2 x 3 and 3 x 4 do not fit: types and all extents but"},
    {w_concat_dyn, ATTEND_EUNSUPPORTED, "concat 'here': joins two dynamic extents"},
    {w_reshape, ATTEND_EINVAL, "reshape 'here': 2 x 3 to 4: the numbers of elements differ"},
    {w_reshape_dyn, ATTEND_EINVAL, "reshape 'here': n x 3 to m x 3: the numbers of elements differ"},
    {w_reshape_rank, ATTEND_ELIMIT, "reshape 'here': to rank 9, wants 0 to 6"},
    {w_reshape_two, ATTEND_EINVAL, "reshape 'here': more than one extent is to be inferred"},
    {w_reshape_infer, ATTEND_EINVAL, "reshape 'here': extent 1 cannot be inferred"},
    {w_reshape_zero, ATTEND_EINVAL, "reshape 'here': extent 1 cannot be inferred"},
    {w_reshape_extent, ATTEND_EINVAL, "reshape 'here': extent 0 is -7"},
    {w_reshape_quant, ATTEND_EUNSUPPORTED, "reshape 'here': of a q8_0 tensor"},
    {w_permute_twice, ATTEND_EINVAL, "permute 'here': axis 1 takes axis 0 of a tensor of rank 2"},
    {w_permute_axis, ATTEND_EINVAL, "permute 'here': axis 1 takes axis 2 of a tensor of rank 2"},
    {w_permute_quant, ATTEND_EINVAL, "permute 'here': moves the last axis of a q8_0 tensor"},
    {w_slice_axis, ATTEND_EINVAL, "slice 'here': axis 2 of a tensor of rank 2"},
    {w_slice_end, ATTEND_EINVAL, "slice 'here': takes 2 from 2 on of an axis of 3"},
    {w_slice_start, ATTEND_EINVAL, "slice 'here': takes 2 from -1 on of an axis of 3"},
    {w_slice_length, ATTEND_EINVAL, "slice 'here': takes -9 elements"},
    {w_slice_infer, ATTEND_EINVAL, "slice 'here': takes -9223372036854775808 elements"},
    {w_slice_dyn, ATTEND_EINVAL, "slice 'here': takes 2 from 0 on of an axis of 1"},
    {w_slice_quant, ATTEND_EINVAL, "slice 'here': cuts a q8_0 row at 16 + 32, wants multiples of 32"},
    {w_expand, ATTEND_EINVAL, "expand 'here': 2 x 3 to 4 x 3: only axes of extent 1 are repeated"},
    {w_expand_rank, ATTEND_EINVAL, "expand 'here': 2 x 3 to 1 x 2 x 3: only axes"},
    {w_expand_extent, ATTEND_EINVAL, "expand 'here': extent 0 is -50"},
    {w_expand_huge, ATTEND_ELIMIT, "expand 'here': the result, 1099511627776 x 1099511627776, would pass"},
    {w_att_rank, ATTEND_EINVAL, "attention 'here': q, k and v have ranks 2, 4 and 4, want (B, H, S, D)"},
    {w_att_type, ATTEND_EINVAL, "attention 'here': input 0 is i32"},
    {w_att_kv, ATTEND_EINVAL, "attention 'here': k is f16 but v is f32"},
    {w_att_head, ATTEND_EINVAL, "attention 'here': q has head size 6 but k has 7"},
    {w_att_groups, ATTEND_EINVAL, "attention 'here': 4 query heads are not a multiple of 3 KV heads"},
    {w_att_length, ATTEND_EINVAL, "k and v of equal length"},
    {w_att_batch, ATTEND_EINVAL, "wants q, k and v of one batch"},
    {w_att_large, ATTEND_ELIMIT, "attention 'here': head sizes 577 and 6, wants 1 to 576"},
    {w_att_alibi, ATTEND_EINVAL, "attention 'here': alibi is 3, wants 4"},
    {w_att_sinks, ATTEND_EINVAL, "attention 'here': sinks is i32, wants f32"},
    {w_att_used, ATTEND_EINVAL, "attention 'here': kv_used is 2, wants 1"},
    {w_att_offset, ATTEND_EINVAL, "attention 'here': q_offset is f32, wants i32"},
    {w_att_mask, ATTEND_EINVAL, "attention 'here': the mask is 2 x 3, which does not broadcast to 1 x 4 x 5 x 5"},
    {w_att_mask_type, ATTEND_EINVAL, "attention 'here': input 3 is i32"},
    {w_att_packed, ATTEND_EINVAL, "attention 'here': q, k and v have ranks 4, 4 and 4, want (T, H, D)"},
    {w_att_keys, ATTEND_EINVAL, "attention 'here': only one of q_lens and kv_lens is given"},
    {w_att_table, ATTEND_EINVAL, "attention 'here': block_table is f32, wants i32"},
    {w_att_k_scale, ATTEND_EINVAL, "attention 'here': k_scale is given for f32 values, which have none"},
    {w_att_scale, ATTEND_EINVAL, "attention 'here': scale is inf and softcap 0, want finite numbers"},
    {w_att_softcap, ATTEND_EINVAL, "attention 'here': scale is 1 and softcap -2, want finite numbers"},
    {w_opts, ATTEND_EINVAL, "attend_attention_opts has size 0: begin with attend_attention_opts_init"},
    {w_opts_wild, ATTEND_EINVAL, "begin with attend_rope_opts_init, then change fields"},
    {w_opts_mask, ATTEND_EINVAL, "attend_mask_opts has size 0: begin with attend_mask_opts_init"},
    {w_mask_rank, ATTEND_EINVAL, "mask 'here': input 0 has rank 2, wants at least 4"},
    {w_mask_window, ATTEND_EINVAL, "mask 'here': window -2,-1: wants -1 (open) or more"},
    {w_mask_align, ATTEND_EINVAL, "mask 'here': align is 5, which is none"},
    {w_mask_unset, ATTEND_EINVAL, "mask 'here': align is not set, and 5 query rows are not 6 keys"},
    {w_mask_both, ATTEND_EINVAL, "mask 'here': both align and q_offset are given"},
};
/* clang-format on */

static void wrong(attend_ctx *ctx, const struct wrong_call *w)
{
    struct parts p = begin(ctx);
    attend_plan *plan;
    char first[320];
    attend_graph_label(p.g, "here");
    if (attend_graph_status(p.g))
        bail("%s", attend_graph_error(p.g));
    w->call(&p);
    strcpy(first, attend_graph_error(p.g));
    bool good = attend_graph_status(p.g) == w->status && strstr(first, w->says);
    if (!good)
        diag("got %d: %s", attend_graph_status(p.g), first);
    ok(good, "%s", w->says);
    attend_tensor t = attend_graph_add(p.g, p.a, p.a); /* fine, but too late */
    attend_graph_output(p.g, "late", p.a);
    int status = attend_compile(p.g, NULL, &plan);
    ok(t.graph == NULL && t.id == -1 && status == w->status && !plan &&
           !strcmp(first, attend_graph_error(p.g)),
       "... stays");
    end(&p);
}

/* ---- compile ---- */

static void compile_fails(attend_ctx *ctx)
{
    struct parts p = begin(ctx);
    attend_compile_opts o;
    attend_plan *plan;
    attend_compile_opts_init(&o);
    is_int(attend_compile(p.g, NULL, &plan), ATTEND_EINVAL, "nothing to do");
    is_str(attend_graph_error(p.g), "the graph has no output and writes no state", "its sentence");
    end(&p);

    p = begin(ctx);
    attend_graph_output(p.g, "o", attend_graph_add(p.g, p.a, p.a));
    o.device = "abacus";
    is_int(attend_compile(p.g, &o, &plan), ATTEND_EINVAL, "no such device");
    ok(strstr(attend_graph_error(p.g), "there is no device 'abacus'; here are ref, "),
       "its sentence has those that there are");
    o.device = "opencl:9"; /* a number is one, though a description may have these digits */
    is_int(attend_compile(p.g, &o, &plan) < 0, 1, "nor a tenth");
    attend_device_info d;
    for (int i = 0; attend_device_get(ctx, i, &d) == 0; i++)
        if (!d.present) {
            o.device = d.name;
            is_int(attend_compile(p.g, &o, &plan), ATTEND_EUNSUPPORTED, "%s is absent", d.name);
            help_holds(attend_graph_error(p.g), d.detail, "its sentence has the reason");
        }
    o.device = "ref";
    is_int(attend_compile(p.g, &o, &plan), 0, "another device may be tried");
    is_str(attend_graph_error(p.g), "", "then there is no error");
    attend_plan_free(plan);
    end(&p);

    p = begin(ctx);
    attend_attention_opts a;
    attend_attention_opts_init(&a);
    attend_tensor two[] = {p.i, p.i};
    a.mask.kv_used = attend_graph_slice(p.g, attend_graph_concat(p.g, two, 2, 0), 0, 1, 1);
    attend_graph_label(p.g, "l0");
    attend_graph_output(p.g, "o", attend_graph_attention(p.g, p.x4, p.x4, p.x4, &a, NULL));
    is_int(attend_compile(p.g, NULL, &plan), ATTEND_EUNSUPPORTED, "computed lengths");
    is_str(attend_graph_error(p.g), "attention 'l0': kv_used must be an input or a constant",
           "their sentence");
    end(&p);
    is_int(attend_compile(NULL, NULL, &plan), ATTEND_ENOMEM, "no graph");
}

/* The first thing a context offers: names, and one that is chosen. */
static void devices(attend_ctx *ctx)
{
    attend_device_info d;
    int chosen = 0, n = attend_device_count(ctx);
    is_int(attend_device_get(ctx, -1, &d), ATTEND_EINVAL, "no device before the first");
    is_int(attend_device_get(ctx, n, &d), ATTEND_EINVAL, "nor after the last");
    for (int i = 0; i < n; i++) {
        attend_device_info other;
        if (attend_device_get(ctx, i, &d) < 0)
            bail("device %d", i);
        ok(*d.name && *d.detail && (d.present || !d.chosen), "%s: %s", d.name, d.detail);
        chosen += d.chosen;
        for (int k = 0; k < i; k++)
            if (attend_device_get(ctx, k, &other) < 0 || !strcmp(d.name, other.name))
                bail("two devices are '%s'", d.name);
    }
    is_int(chosen, 1, "one is chosen");
    if (attend_device_get(ctx, 0, &d) < 0)
        bail("no device");
    is_str(d.name, "ref", "the first is the reference");
}

int main(void)
{
    attend_ctx *ctx = help_context(1);
    devices(ctx);
    shapes(ctx);
    for (size_t i = 0; i < NELEM(wrong_calls); i++)
        wrong(ctx, &wrong_calls[i]);
    compile_fails(ctx);
    attend_ctx_free(ctx);
    return done_testing();
}
