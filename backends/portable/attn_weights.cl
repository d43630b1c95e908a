/* SPDX-License-Identifier: MIT */
/* The weights themselves, of the scores that unfused_scores left in work, and what is kept of them.  A
 * launch has rows [i0, i1) of one sequence; sums over rows are added to by one launch after another. */

#define AT_WEIGHTS_PARAMS                                                                          \
    const struct at_k_weights w, AT_GLOBAL uchar *out, AT_GLOBAL uchar *index,                     \
        AT_GLOBAL const uchar *plse, AT_GLOBAL const uchar *psinks, AT_GLOBAL uchar *work
#define AT_WEIGHTS_IN(x)                                                                           \
    struct at_in x;                                                                                \
    at_seq_of(&x, (AT_GLOBAL const struct at_k_seq *)(work + w.a.seqs), w.a.nseq);                 \
    x.ratio = w.a.nh / w.a.ng;

/* Scores of row i of head h, and where its weights' reference m and sum l are: e^(s - m) / l. */
AT_FN AT_GLOBAL float *row_of(const struct at_k_weights *w, const struct at_in *x,
                              AT_GLOBAL uchar *work, int h, int i, AT_GLOBAL float **ends)
{
    int r = i * x->ratio + h % x->ratio;
    *ends = (AT_GLOBAL float *)(work + w->ends) + 2 * (h * (at_i64)(w->i1 - w->i0) + i - w->i0);
    return (AT_GLOBAL float *)at_scores_of(&w->a, work, h / x->ratio, r - w->a.first);
}

AT_FN float kept(float s, AT_GLOBAL const float *ends)
{
    return s == -AT_INF ? 0.0f : at_exp(s - ends[0]) / ends[1];
}

AT_FN at_i64 result_at(const struct at_k_weights *w, const struct at_k_view *v, int h, at_i64 row, at_i64 k)
{
    return v->at + w->a.nseq * v->stride[0] + h * v->stride[1] + row * v->stride[2] + k * v->stride[3];
}

/* What a given LSE says of a row; or, without one, its largest score and the sum of the others'
 * powers beside it, the sink's too.  y: row; z: head. */
AT_KERNEL AT_GROUP(AT_ITEMS) void weights_ends(AT_WEIGHTS_PARAMS)
{
    AT_SHARED float red[AT_ITEMS];
    AT_WEIGHTS_IN(in)
    int i = w.i0 + (int)AT_GROUP_Y, h = (int)AT_GROUP_Z;
    AT_GLOBAL float *ends;
    AT_GLOBAL const float *s = row_of(&w, &in, work, h, i, &ends);
    float m = -AT_INF, sum = 0.0f, rest = 0.0f;
    if (w.a.has_lse) {
        if (AT_ITEM == 0) {
            ends[0] = ((AT_GLOBAL const float *)plse)[at_lse_at(&w.a, &in, h / in.ratio, i * in.ratio + h % in.ratio)];
            ends[1] = 1.0f;
        }
        return;
    }
    if (w.a.has_sinks)
        m = ((AT_GLOBAL const float *)psinks)[w.a.sinks + h];
    float sink = m;
    for (at_i64 j = AT_ITEM; j < in.nk; j += AT_ITEMS)
        m = fmax(m, s[j]);
    m = at_reduce(red, AT_ITEMS, m, 1);
    if (AT_ITEM == 0 && sink != -AT_INF)
        sum = at_exp(sink - m);
    for (at_i64 j = AT_ITEM; j < in.nk; j += AT_ITEMS)
        if (s[j] != -AT_INF)
            at_add(&sum, &rest, at_exp(s[j] - m));
    sum = at_reduce(red, AT_ITEMS, sum + rest, 0);
    if (AT_ITEM == 0) {
        ends[0] = m;
        ends[1] = sum;
    }
}

/* x: 64 elements of a result's last axes; y: head; z: entry. */
AT_KERNEL AT_GROUP(64) void weights_clear(AT_WEIGHTS_PARAMS)
{
    at_i64 e = AT_GROUP_X * 64 + AT_ITEM;
    if (e < w.cells)
        ((AT_GLOBAL float *)out)[w.out.at + AT_GROUP_Z * w.out.stride[0] + AT_GROUP_Y * w.out.stride[1] +
                                 e / w.columns * w.out.stride[2] + e % w.columns * w.out.stride[3]] = 0.0f;
}

/* All keys of rows.  x: 64 columns of the result; y: row; z: head. */
AT_KERNEL AT_GROUP(64) void weights_rows(AT_WEIGHTS_PARAMS)
{
    AT_WEIGHTS_IN(in)
    int i = w.i0 + (int)AT_GROUP_Y, h = (int)AT_GROUP_Z;
    at_i64 k = AT_GROUP_X * 64 + AT_ITEM, j = k - in.k0;
    float p = 0.0f;
    AT_GLOBAL float *ends;
    AT_GLOBAL const float *s = row_of(&w, &in, work, h, i, &ends);
    if (k >= w.columns)
        return;
    if (j >= 0 && j < in.nk)
        p = kept(s[j], ends);
    ((AT_GLOBAL float *)out)[result_at(&w, &w.out, h, in.q0 + i - w.first, k)] = p;
}

/* Sums over rows.  x: 64 keys; z: head. */
AT_KERNEL AT_GROUP(64) void weights_columns(AT_WEIGHTS_PARAMS)
{
    AT_WEIGHTS_IN(in)
    int h = (int)AT_GROUP_Z;
    at_i64 j = AT_GROUP_X * 64 + AT_ITEM;
    float sum = 0.0f, rest = 0.0f;
    AT_GLOBAL float *ends;
    if (j >= in.nk)
        return;
    for (int i = w.i0; i < w.i1; i++) {
        AT_GLOBAL const float *s = row_of(&w, &in, work, h, i, &ends);
        at_add(&sum, &rest, kept(s[j], ends));
    }
    ((AT_GLOBAL float *)out)[result_at(&w, &w.out, h, 0, in.k0 + j)] += sum + rest;
}

/* Where cell c of so many begins among n. */
AT_FN at_i64 edge(at_i64 c, at_i64 n, at_i64 cells)
{
    return n / cells * c + n % cells * c / cells;
}

/* Means over rows of sums over keys.  A group has a cell: x, of those from row w.row on; z: head. */
AT_KERNEL AT_GROUP(AT_ITEMS) void weights_pool(AT_WEIGHTS_PARAMS)
{
    AT_SHARED float red[AT_ITEMS];
    AT_WEIGHTS_IN(in)
    int h = (int)AT_GROUP_Z;
    at_i64 row = w.row + AT_GROUP_X / w.columns, column = AT_GROUP_X % w.columns;
    at_i64 i0 = edge(row, in.nq, w.rows), i1 = edge(row + 1, in.nq, w.rows);
    at_i64 j0 = edge(column, w.keys, w.columns), j1 = edge(column + 1, w.keys, w.columns);
    float sum = 0.0f, rest = 0.0f, count = (float)(i1 - i0);
    AT_GLOBAL float *ends;
    if (i0 < w.i0)
        i0 = w.i0;
    if (i1 > w.i1)
        i1 = w.i1;
    if (j1 > in.nk)
        j1 = in.nk;
    for (at_i64 i = i0; i < i1; i++) {
        AT_GLOBAL const float *s = row_of(&w, &in, work, h, (int)i, &ends);
        for (at_i64 j = j0 + AT_ITEM; j < j1; j += AT_ITEMS)
            at_add(&sum, &rest, kept(s[j], ends));
    }
    sum = at_reduce(red, AT_ITEMS, sum + rest, 0);
    if (AT_ITEM == 0 && i0 < i1)
        ((AT_GLOBAL float *)out)[result_at(&w, &w.out, h, row, column)] += sum / count;
}

/* A word that orders scores, equal ones by their key, and what it was of; 0: a hidden key. */
AT_FN at_u64 word_of(float s, at_i64 j)
{
    at_u32 bits = at_float_bits(s == 0.0f ? 0.0f : s);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return s == -AT_INF ? 0 : (at_u64)bits << 32 | (at_u32)~j;
}

AT_FN float score_of(at_u64 word)
{
    at_u32 bits = (at_u32)(word >> 32);
    return at_bits_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
}

/* The largest of each row: all are sorted, by a bitonic network.  y: row; z: head. */
AT_KERNEL AT_GROUP(AT_ITEMS) void weights_top(AT_WEIGHTS_PARAMS)
{
    AT_WEIGHTS_IN(in)
    int i = w.i0 + (int)AT_GROUP_Y, h = (int)AT_GROUP_Z;
    AT_GLOBAL float *ends;
    AT_GLOBAL const float *s = row_of(&w, &in, work, h, i, &ends);
    AT_GLOBAL at_u64 *list =
        (AT_GLOBAL at_u64 *)(work + w.sort) + (h * (at_i64)(w.i1 - w.i0) + AT_GROUP_Y) * w.length;
    for (at_i64 j = AT_ITEM; j < w.length; j += AT_ITEMS)
        list[j] = j < in.nk ? word_of(s[j], j) : 0;
    for (at_i64 size = 2; size <= w.length; size *= 2)
        for (at_i64 step = size / 2; step > 0; step /= 2) {
            AT_BARRIER_ALL();
            for (at_i64 e = AT_ITEM; e < w.length / 2; e += AT_ITEMS) {
                at_i64 low = 2 * e - (e & (step - 1)), high = low + step;
                at_u64 a = list[low], b = list[high];
                if ((a < b) == !(low & size)) {
                    list[low] = b;
                    list[high] = a;
                }
            }
        }
    AT_BARRIER_ALL();
    for (at_i64 e = AT_ITEM; e < w.columns; e += AT_ITEMS) {
        at_u64 word = e < w.length ? list[e] : 0;
        ((AT_GLOBAL float *)out)[result_at(&w, &w.out, h, in.q0 + i, e)] =
            word ? kept(score_of(word), ends) : 0.0f;
        if (w.index.given)
            ((AT_GLOBAL at_i32 *)index)[result_at(&w, &w.index, h, in.q0 + i, e)] =
                word ? (at_i32)(in.k0 + (at_u32)~word) : -1;
    }
}
