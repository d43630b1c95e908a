/* SPDX-License-Identifier: MIT */
/* A mask by itself, on scores that are a tensor: q of the problem, o being the result.  A group has a row
 * of a.chunk keys, of a.rows rows a head; a head of queries is a KV group here. */

AT_FN float at_masked(const struct at_k_attn *a, const struct at_in *x, int h, int i, int j, float score)
{
    return at_visible(a, x, i, j) ? at_score(a, x, h, i, j, score) : -AT_INF;
}

#define AT_MASK_ROW                                                                                \
    const struct at_k_attn a = given;                                                              \
    int i = (int)(AT_GROUP_X % a.rows), h = (int)(AT_GROUP_X / a.rows % a.nh);                     \
    AT_ATTN_IN(in, AT_GROUP_X / a.rows / a.nh)

/* -inf where hidden, whatever the score was, and the bias added elsewhere. */
AT_KERNEL AT_GROUP(AT_ITEMS) void mask(const struct at_k_attn given, AT_ATTN_PARAMS)
{
    AT_MASK_ROW
    for (int j = AT_ITEM; j < a.chunk; j += AT_ITEMS) {
        float s = at_load(in.q, at_pair(&a.q, in.n, h, i, j), a.q.type);
        at_store(out, at_pair(&a.o, in.n, h, i, j), AT_F32, at_masked(&a, &in, h, i, j, s));
    }
}

/* q: the gradient of the result. */
AT_KERNEL AT_GROUP(AT_ITEMS) void mask_grad(const struct at_k_attn given, AT_ATTN_PARAMS)
{
    AT_MASK_ROW
    for (int j = AT_ITEM; j < a.chunk; j += AT_ITEMS) {
        float ds = 0.0f;
        if (at_masked(&a, &in, h, i, j, 0.0f) != -AT_INF)
            ds = at_load(in.q, at_pair(&a.q, in.n, h, i, j), a.q.type);
        at_store(out, at_pair(&a.o, in.n, h, i, j), AT_F32, ds);
    }
}
