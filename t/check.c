/* SPDX-License-Identifier: MIT */
/* A problem word becomes inputs, a graph, a run and a comparison.  Lengths and visibility are
 * worked out here, key by key from the words of the manual, and not by the code under test. */
#include "check.h"
#include "core.h"
#include "env.h"
#include "expr_random.h"
#include "os.h"
#include "ref.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 64      /* bytes around outputs that must stay as they are */
#define FILL 0xff     /* of all memory before use: NaN in every floating type */
#define PAD 5         /* elements after each row where the word says "strided" */
#define UNUSED_ROWS 2 /* rows of packed queries after the last sequence */
#define NO_PAGE (-7)  /* where a table says nothing */
#define DROPOUT_SEED 0x123456789abcdef
#define DROPOUT_OFFSET 77

enum {
    Q,
    K,
    V,
    BIAS,
    MASK,
    USED,
    ADDITIVE,
    ALIBI,
    SINKS,
    Q_LENS,
    KV_LENS,
    TABLE,
    K_SCALE,
    V_SCALE,
    Q_OFFSET,
    LAYOUT,
    DOC, /* what drawn expressions index */
    BITS,
    REL,
    O,
    LSE,
    ARRAYS
};
static const char *const names[ARRAYS] = {
    [Q] = "q",
    [K] = "k",
    [V] = "v",
    [BIAS] = "mask",
    [MASK] = "mask",
    [USED] = "kv_used",
    [ADDITIVE] = "additive",
    [ALIBI] = "alibi",
    [SINKS] = "sinks",
    [Q_LENS] = "q_lens",
    [KV_LENS] = "kv_lens",
    [TABLE] = "block_table",
    [K_SCALE] = "k_scale",
    [V_SCALE] = "v_scale",
    [Q_OFFSET] = "q_offset",
    [LAYOUT] = "layout",
    [DOC] = "doc",
    [BITS] = "bits",
    [REL] = "rel",
    [O] = "o",
    [LSE] = "lse",
};

/* A tensor of the problem: its view, and the memory that it lies in.  A view without data is
 * absent. */
struct array {
    struct at_view view;
    char *block;
    int64_t block_bytes, bytes; /* bytes: from view.data to the end of the last element */
};

struct check {
    const struct at_problem *p;
    struct array a[ARRAYS];
    struct at_seq *seq;
    int64_t *room; /* of nseq sequences: keys that there are, used or not */
    int64_t nseq;
    struct at_expr xmask, xscore; /* where the word has them */
    struct at_str text[2];        /* of both */
    struct at_view
        visible;  /* what mask and layout leave, bool (B, H, Sq, Skv), for the reference */
    double *want; /* an element and its bound, in the order of for_rows */
    uint64_t random;
    bool memory; /* it was enough */
};

/* ---- numbers ---- */

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t draw(struct check *c)
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static double draw_unit(struct check *c) /* [0, 1) */
{
    return (double)(draw(c) >> 11) * 0x1p-53;
}

/* Mean 0, variance 1, at most 3 in magnitude. */
static float draw_normal(struct check *c)
{
    double sum = draw_unit(c) + draw_unit(c) + draw_unit(c);
    return (float)(2 * sum - 3);
}

static int64_t draw_to(struct check *c, int64_t most) /* [0, most] */
{
    return (int64_t)(draw(c) % (uint64_t)(most + 1));
}

/* FNV-1a, from FNV on. */
static const uint64_t FNV = 0xcbf29ce484222325;
static uint64_t fnv(uint64_t hash, const char *bytes, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3;
    return hash;
}

/* Each word has numbers of its own. */
static uint64_t seed_of(const struct at_problem *p)
{
    char word[AT_PROBLEM_WORD];
    at_problem_print(p, word);
    return fnv(FNV, word, (int64_t)strlen(word));
}

/* ---- memory ---- */

/* Elements (blocks) of a row of the last axis. */
static int64_t row_units(const struct at_view *v)
{
    return attend_type_row_bytes(v->type, v->shape[v->rank - 1]) /
           (int64_t)attend_type_size(v->type);
}

/* Strides for memory in the order of `order`, slowest first. */
static void lay_out(struct at_view *v, const int *order, int64_t pad)
{
    int64_t step = 1;
    for (int i = v->rank - 1; i >= 0; i--) {
        v->stride[order[i]] = step;
        step *= i == v->rank - 1 ? row_units(v) + pad : at_max(v->shape[order[i]], 1);
    }
}

/* Elements (blocks) from the first to the last one, both counted. */
static int64_t span(const struct at_view *v)
{
    int64_t last = row_units(v) - 1;
    for (int d = 0; d < v->rank; d++) {
        if (v->shape[d] == 0)
            return 0;
        if (d < v->rank - 1)
            last += (v->shape[d] - 1) * v->stride[d];
    }
    return last + 1;
}

/* Guards on both sides of what is written; what is read ends where its memory ends, so that a
 * checker of memory sees who reads past it. */
static void place(struct check *c, int which, const struct at_view *view, int64_t shift)
{
    struct array *a = &c->a[which];
    bool written = which == O || which == LSE;
    a->view = *view;
    a->bytes = span(view) * (int64_t)attend_type_size(view->type);
    a->block_bytes = GUARD + shift + a->bytes + (written ? GUARD : 0);
    a->block = at_os_alloc_pages((size_t)a->block_bytes);
    if (!a->block) {
        c->memory = false;
        return;
    }
    memset(a->block, FILL, (size_t)a->block_bytes);
    a->view.data = a->block + GUARD + shift;
}

/* Dense, whatever the layout of the problem. */
static void place_plain(struct check *c, int which, attend_type type, int rank,
                        const int64_t *shape)
{
    static const int order[] = {0, 1, 2, 3};
    struct at_view v = {.type = type, .rank = rank};
    memcpy(v.shape, shape, (size_t)rank * sizeof *shape);
    lay_out(&v, order, 0);
    place(c, which, &v, 0);
}

/* Queries, keys, values or outputs: (B, H, S, D), or packed (S, H, D). */
static void place_rows(struct check *c, int which, attend_type type, int64_t batch, int64_t heads,
                       int64_t rows, int64_t d)
{
    static const int bhsd[] = {0, 1, 2, 3}, bshd[] = {0, 2, 1, 3};
    const struct at_problem *p = c->p;
    struct at_view v = {
        .type = type, .rank = 4, .shape = {batch, heads, rows, d}
    };
    if (p->packed && (!p->page || which == Q || which == O))
        v = (struct at_view){
            .type = type, .rank = 3, .shape = {rows, heads, d}
        };
    lay_out(&v, p->bshd ? bshd : bhsd, p->strided ? PAD : 0);
    place(c, which, &v, p->unaligned ? (int64_t)attend_type_size(type) : 0);
}

/* ---- inputs ---- */

/* n numbers to the row that begins at `at`. */
static void put_row(const struct at_view *v, int64_t at, const float *x)
{
    int64_t n = v->shape[v->rank - 1];
    if (attend_convert(v->type, at_view_at(v, at), ATTEND_F32, x, n) < 0)
        bail("cannot convert to %s", attend_type_name(v->type));
}

/* The place after index[] in C order of the first `axes` axes; false after the last one. */
static bool next_index(const struct at_view *v, int axes, int64_t *index)
{
    for (int d = axes - 1; d >= 0; d--) {
        if (++index[d] < v->shape[d])
            return true;
        index[d] = 0;
    }
    return false;
}

static int64_t offset(const struct at_view *v, const int64_t *index)
{
    int64_t at = 0;
    for (int d = 0; d < v->rank; d++)
        at += index[d] * v->stride[d];
    return at;
}

static const struct at_view *scales_of(const struct check *c, int which)
{
    return &c->a[which == K ? K_SCALE : V_SCALE].view;
}

/* Keys that are packed have no entries that could have scales of their own. */
static bool one_scale(const struct check *c)
{
    return c->p->packed && !c->p->page;
}

/* What the row of k or v at index[] is times; 1 for other types and tensors. */
static float stored_scale(const struct check *c, int which, const int64_t *index)
{
    if (which != K && which != V)
        return 1;
    return at_attn_scale(scales_of(c, which), one_scale(c) ? 0 : index[0], index[1]);
}

/* For k or v of f8: numbers of variance 1 (huge: 40 squared) use most of its range. */
static void make_scales(struct check *c, int which, int64_t entries, float factor)
{
    int64_t shape[] = {one_scale(c) ? 1 : entries, c->p->ng};
    if (c->p->kv_type != ATTEND_F8)
        return;
    place_plain(c, which == K ? K_SCALE : V_SCALE, ATTEND_F32, 2, shape);
    float *scale = scales_of(c, which)->data;
    for (int64_t i = 0; scale && i < shape[0] * shape[1]; i++)
        scale[i] = factor * (float)(0.01 + 0.01 * draw_unit(c));
}

static void fill_normal(struct check *c, int which, float factor)
{
    const struct at_view *v = &c->a[which].view;
    int64_t index[ATTEND_MAX_RANK] = {0};
    if (!v->data || span(v) == 0)
        return;
    int64_t n = v->shape[v->rank - 1];
    float *x = malloc((size_t)n * sizeof *x);
    if (!x)
        bail("no memory for %lld numbers", (long long)n);
    do {
        float by = factor / stored_scale(c, which, index);
        for (int64_t d = 0; d < n; d++)
            x[d] = by * draw_normal(c);
        put_row(v, offset(v, index), x);
    } while (next_index(v, v->rank - 1, index));
    free(x);
}

static int which_mask(const struct check *c)
{
    return c->p->mask == AT_MASK_BOOL ? MASK : BIAS;
}

/* A third of the keys is hidden, and of each seven rows the fourth sees nothing. */
static void fill_mask(struct check *c)
{
    const struct at_view *v = &c->a[which_mask(c)].view;
    int64_t index[ATTEND_MAX_RANK] = {0};
    if (!v->data || span(v) == 0)
        return;
    do {
        bool row = c->p->mask_axis[2] && index[v->rank - 2] % 7 == 3;
        bool hidden = draw_unit(c) < 0.33 || row;
        float bias = hidden ? -INFINITY : draw_normal(c);
        void *to = at_view_at(v, offset(v, index));
        if (v->type == ATTEND_BOOL)
            *(uint8_t *)to = !hidden;
        else if (attend_convert(v->type, to, ATTEND_F32, &bias, 1) < 0)
            bail("cannot convert");
    } while (next_index(v, v->rank, index));
}

/* Lengths: the longest, none, then drawn ones. */
static int64_t draw_length(struct check *c, int64_t n, int64_t most, int64_t empty)
{
    return n == 0 ? most : n == empty ? 0 : draw_to(c, most);
}

static void make_used(struct check *c)
{
    place_plain(c, USED, ATTEND_I32, 1, &c->p->nb);
    int32_t *used = c->a[USED].view.data;
    for (int64_t b = 0; used && b < c->p->nb; b++) {
        c->seq[b].nk = draw_length(c, b, c->room[b], 1);
        used[b] = (int32_t)c->seq[b].nk;
    }
}

static int64_t pages_of(const struct check *c, int64_t keys)
{
    return at_ceil_div(keys, c->p->page);
}

/* Each page that a sequence needs, in a drawn order, and as many again that none needs. */
static int64_t make_table(struct check *c)
{
    const struct at_problem *p = c->p;
    int64_t shape[] = {p->nb, pages_of(c, p->nk)}, pages = 0;
    place_plain(c, TABLE, ATTEND_I32, 2, shape);
    if (!c->memory)
        return 0;
    int32_t *table = c->a[TABLE].view.data;
    for (int64_t b = 0; b < p->nb; b++)
        pages += pages_of(c, c->seq[b].nk);
    int64_t next = pages > 0 ? draw_to(c, pages - 1) : 0;
    for (int64_t b = 0; b < p->nb; b++)
        for (int64_t e = 0; e < shape[1]; e++) {
            bool needed = e < pages_of(c, c->seq[b].nk);
            table[b * shape[1] + e] = needed ? (int32_t)(2 * next) : NO_PAGE;
            next = needed ? (next + 1) % pages : next;
        }
    for (int64_t i = shape[0] * shape[1] - 1; i > 0; i--) { /* swaps keep each page in one place */
        int64_t other = draw_to(c, i);
        if (table[i] == NO_PAGE || table[other] == NO_PAGE)
            continue;
        int32_t t = table[i];
        table[i] = table[other];
        table[other] = t;
    }
    return 2 * pages;
}

/* The first key of sequence n that some row may see, by its window. */
static int64_t first_key(const struct check *c, int64_t n)
{
    return at_max(0, at_min(c->seq[n].off - c->p->left, c->seq[n].nk));
}

/* Pages that the window has left are those that come later. */
static void make_ring(struct check *c)
{
    int64_t width = pages_of(c, c->p->nk);
    int32_t *table = c->a[TABLE].view.data;
    for (int64_t n = 0; c->p->ring && c->memory && n < c->p->nb; n++) {
        int64_t live = first_key(c, n) / c->p->page, all = pages_of(c, c->seq[n].nk);
        for (int64_t e = live - 1; e >= 0 && all > live; e--)
            table[n * width + e] = table[n * width + live + e % (all - live)];
    }
}

/* Sequence 1 has no query rows, sequence 2 no keys. */
static void make_packed(struct check *c)
{
    const struct at_problem *p = c->p;
    int64_t sums = p->nb + 1;
    place_plain(c, Q_LENS, ATTEND_I32, 1, &sums);
    if (!p->page)
        place_plain(c, KV_LENS, ATTEND_I32, 1, &sums);
    int32_t *q = c->a[Q_LENS].view.data, *k = c->a[KV_LENS].view.data;
    if (!c->memory)
        return;
    q[0] = 0;
    if (k)
        k[0] = 0;
    for (int64_t n = 0; n < p->nb; n++) {
        struct at_seq *s = &c->seq[n];
        *s = (struct at_seq){.q0 = q[n], .nq = draw_length(c, n, p->nq, 1)};
        q[n + 1] = (int32_t)(s->q0 + s->nq);
        s->kb = p->page ? n : 0;
        s->nk = p->nk;
        if (!k)
            continue;
        s->k0 = k[n];
        s->nk = c->room[n] = draw_length(c, n, p->nk, 2);
        k[n + 1] = (int32_t)(s->k0 + s->nk);
    }
    c->seq[c->nseq++] = (struct at_seq){.q0 = q[p->nb], .nq = UNUSED_ROWS};
}

/* Before the first key, among them, and past them. */
static void make_offsets(struct check *c)
{
    place_plain(c, Q_OFFSET, ATTEND_I32, 1, &c->p->nb);
    int32_t *off = c->a[Q_OFFSET].view.data;
    for (int64_t n = 0; off && n < c->p->nb; n++) {
        off[n] = (int32_t)(draw_to(c, c->seq[n].nk + 6) - 5);
        c->seq[n].off = off[n];
    }
}

static void make_seqs(struct check *c)
{
    const struct at_problem *p = c->p;
    c->seq = calloc((size_t)p->nb + 1, sizeof *c->seq);
    c->room = calloc((size_t)p->nb + 1, sizeof *c->room);
    if (!c->seq || !c->room) {
        c->memory = false;
        return;
    }
    c->nseq = p->nb;
    for (int64_t b = 0; b < p->nb; b++) {
        c->seq[b] = (struct at_seq){.qb = b, .nq = p->nq, .kb = b, .nk = p->nk};
        c->room[b] = p->nk;
    }
    if (p->packed)
        make_packed(c);
    if (c->memory && (p->used || p->page))
        make_used(c);
    if (p->offset)
        make_offsets(c);
    for (int64_t n = 0; n < p->nb; n++)
        if (p->align == ATTEND_BOTTOM_RIGHT)
            c->seq[n].off = c->seq[n].nk - c->seq[n].nq;
}

/* Keys that a sequence can have: whole pages. */
static int64_t most_keys(const struct check *c)
{
    return c->p->page ? pages_of(c, c->p->nk) * c->p->page : c->p->nk;
}

/* In the layout of the problem: rows are padded where it is strided, and axes before the first that
 * it has are left out where q is unaligned. */
static void make_mask(struct check *c)
{
    static const attend_type types[] = {[AT_MASK_BOOL] = ATTEND_BOOL,
                                        [AT_MASK_FLOAT] = ATTEND_F32,
                                        [AT_MASK_F16] = ATTEND_F16,
                                        [AT_MASK_BF16] = ATTEND_BF16};
    static const int order[] = {0, 1, 2, 3};
    const struct at_problem *p = c->p;
    const int64_t shape[4] = {p->nb, p->nh, p->nq, most_keys(c)};
    struct at_view v = {.type = types[p->mask]};
    int none = 0;
    if (p->mask == AT_MASK_NONE)
        return;
    while (p->unaligned && none < 3 && !p->mask_axis[none])
        none++;
    for (v.rank = 0; v.rank < 4 - none; v.rank++)
        v.shape[v.rank] = p->mask_axis[none + v.rank] ? shape[none + v.rank] : 1;
    lay_out(&v, order, p->strided ? PAD : 0);
    place(c, which_mask(c), &v, 0);
    fill_mask(c);
}

/* Two blocks of three are hidden; either of the first two axes may be 1. */
static void make_layout(struct check *c)
{
    const struct at_problem *p = c->p;
    if (!p->layout_rows)
        return;
    int64_t shape[] = {draw_to(c, 1) ? p->nb : 1, draw_to(c, 1) ? p->nh : 1,
                       at_ceil_div(p->nq, p->layout_rows),
                       at_ceil_div(most_keys(c), p->layout_keys)};
    place_plain(c, LAYOUT, ATTEND_BOOL, 4, shape);
    uint8_t *block = c->a[LAYOUT].view.data;
    for (int64_t e = 0; block && e < c->a[LAYOUT].bytes; e++)
        block[e] = draw_to(c, 2) == 0;
}

/* Text of a drawn expression over the tensors, and the same as the reference takes it. */
static void make_expr(struct check *c, bool score, int64_t number, struct at_expr *x,
                      struct at_str *text)
{
    uint64_t seed = (uint64_t)number * 0x9e3779b97f4a7c15;
    int depth = 1 + expr_pick(&seed, 3);
    if (!number)
        return;
    at_expr_init(x, score);
    for (int which = DOC; which <= REL; which++) {
        const struct at_view *v = &c->a[which].view;
        if (at_expr_add_capture(x, names[which], v->type, v->rank, NULL, 0) < 0)
            bail("cannot capture");
        if (which == BITS && !score)
            expr_random_mask(x, &seed, depth, text);
    }
    if (score)
        expr_random_score(x, &seed, depth, text);
    if (text->failed || at_expr_parse(x, text->text, NULL, 0) < 0)
        bail("a drawn expression is wrong: %s", text->text);
}

static void make_exprs(struct check *c)
{
    const struct at_problem *p = c->p;
    int64_t tokens = at_max(p->nq, most_keys(c)) + 1, bits[] = {p->nh, tokens}, rel[] = {p->nh, 64};
    if (!p->xmask && !p->xscore)
        return;
    place_plain(c, DOC, ATTEND_I32, 1, &tokens);
    place_plain(c, BITS, ATTEND_BOOL, 2, bits);
    place_plain(c, REL, ATTEND_F32, 2, rel);
    if (!c->memory)
        return;
    for (int64_t e = 0; e < tokens; e++)
        ((int32_t *)c->a[DOC].view.data)[e] = (int32_t)(e / 37);
    for (int64_t e = 0; e < p->nh * tokens; e++)
        ((uint8_t *)c->a[BITS].view.data)[e] = (uint8_t)(e / 50 % 2);
    fill_normal(c, REL, 1);
    make_expr(c, false, p->xmask, &c->xmask, &c->text[0]);
    make_expr(c, true, p->xscore, &c->xscore, &c->text[1]);
}

/* The element of a tensor that broadcasts to (B, H, Sq, Skv). */
static void *at_pair(const struct at_view *v, int64_t n, int64_t h, int64_t i, int64_t j)
{
    const int64_t all[4] = {n, h, i, j};
    int64_t index[4] = {0};
    for (int d = 0; d < v->rank; d++)
        index[d] = v->shape[d] == 1 ? 0 : all[4 - v->rank + d];
    return at_view_at(v, offset(v, index));
}

static bool unmasked(const struct check *c, int64_t n, int64_t h, int64_t i, int64_t j)
{
    const struct at_view *m = &c->a[which_mask(c)].view;
    const void *element = at_pair(m, n, h, i, j);
    float bias;
    if (m->type == ATTEND_BOOL)
        return *(const uint8_t *)element;
    return attend_convert(ATTEND_F32, &bias, m->type, element, 1) == 0 &&
           (bias != -INFINITY || c->p->xscore); /* of which an expression may make anything */
}

/* The reference leaves out what nobody can see; it decides by the same rules, key by key. */
static bool visible(const struct check *c, int64_t n, int64_t h, int64_t i, int64_t j)
{
    const struct at_problem *p = c->p;
    const struct at_seq *s = &c->seq[n];
    if (j >= s->nk || (p->causal && j > i + s->off) || (p->left >= 0 && j < i + s->off - p->left) ||
        (p->right >= 0 && j > i + s->off + p->right))
        return false;
    if (p->layout_rows) {
        const struct at_view *l = &c->a[LAYOUT].view;
        if (!*(const uint8_t *)at_pair(l, n, h, i / p->layout_rows, j / p->layout_keys))
            return false;
    }
    if (p->xmask) {
        struct at_view capture[AT_MAX_CAPTURES];
        struct at_expr_point at = {
            .b = n, .h = h, .i = i, .j = j, .sq = s->nq, .skv = s->nk, .capture = capture};
        for (int which = DOC; which <= REL; which++)
            capture[which - DOC] = c->a[which].view;
        if (at_expr_eval(&c->xmask, &at, NULL) == 0)
            return false;
    }
    return !c->a[which_mask(c)].view.data || unmasked(c, n, h, i, j);
}

/* How many (head, row) of group g see key j. */
static int64_t seen_by(const struct check *c, int64_t n, int64_t g, int64_t j)
{
    int64_t group = c->p->nh / c->p->ng, count = 0;
    for (int64_t h = g * group; h < (g + 1) * group; h++)
        for (int64_t i = 0; i < c->seq[n].nq; i++)
            count += visible(c, n, h, i, j);
    return count;
}

/* Key j of sequence n becomes NaN, its value NaN or infinity, but for a value that is its key: of
 * an infinite key the score may be -inf, and whether that hides the value is left open. */
static void poison_key(struct check *c, int64_t n, int64_t g, int64_t j)
{
    float row[AT_MAX_HEAD];
    const struct at_seq *s = &c->seq[n];
    int64_t entry = s->kb, at = s->k0 + j;
    if (c->p->page) {
        const int32_t *table = c->a[TABLE].view.data;
        entry = table[s->kb * pages_of(c, c->p->nk) + j / c->p->page];
        at = j % c->p->page;
    }
    for (int which = K; which <= V; which++) {
        const struct at_view *v = &c->a[which].view;
        const int64_t dense[4] = {entry, g, at, 0}, packed[4] = {at, g, 0, 0};
        for (int64_t d = 0; d < AT_MAX_HEAD; d++)
            row[d] = which == V && !c->p->vk && j % 2 ? INFINITY : NAN;
        put_row(v, offset(v, v->rank == 4 ? dense : packed), row);
    }
}

/* All keys that no row sees, and of the others that some row does not see the one that the fewest
 * see: those rows become NaN, and no other. */
static void poison(struct check *c, int64_t n, int64_t g)
{
    const struct at_seq *s = &c->seq[n];
    int64_t rows = s->nq * (c->p->nh / c->p->ng), rare = -1, fewest = rows;
    int64_t keys = c->room[n], j = 0; /* those past the used length, too */
    if (c->p->page)
        keys = at_min(keys, pages_of(c, s->nk) * c->p->page);
    if (c->p->ring) /* what comes again is not hidden */
        j = first_key(c, n) / c->p->page * c->p->page;
    for (; j < keys; j++) {
        int64_t seen = seen_by(c, n, g, j);
        if (seen == 0)
            poison_key(c, n, g, j);
        else if (seen < fewest) {
            fewest = seen;
            rare = j;
        }
    }
    if (rare >= 0)
        poison_key(c, n, g, rare);
}

/* V as the first channels of K. */
static struct at_view first_channels(const struct check *c)
{
    struct at_view v = c->a[K].view;
    v.shape[v.rank - 1] = c->p->dv;
    return v;
}

static void make_inputs(struct check *c)
{
    const struct at_problem *p = c->p;
    make_seqs(c);
    if (!c->memory)
        return;
    int64_t nq = p->nq, nk = p->nk, entries = p->nb;
    if (p->packed) {
        nq = c->seq[p->nb].q0 + UNUSED_ROWS;
        nk = p->nb > 0 ? c->seq[p->nb - 1].k0 + c->room[p->nb - 1] : 0;
    }
    if (p->page) {
        entries = make_table(c);
        make_ring(c);
        nk = p->page;
    }
    place_rows(c, Q, p->type, p->nb, p->nh, nq, p->dk);
    place_rows(c, K, p->kv_type, entries, p->ng, nk, p->dk);
    if (p->vk)
        c->a[V].view = first_channels(c);
    else
        place_rows(c, V, p->kv_type, entries, p->ng, nk, p->dv);
    place_rows(c, O, ATTEND_F32, p->nb, p->nh, nq, p->dv);
    int64_t lse[] = {p->nb, p->nh, nq};
    if (p->lse)
        place_plain(c, LSE, ATTEND_F32, p->packed ? 2 : 3, p->packed ? lse + 1 : lse);
    if (p->additive)
        place_plain(c, ADDITIVE, ATTEND_F32, 1, &p->dk);
    if (p->alibi)
        place_plain(c, ALIBI, ATTEND_F32, 1, &p->nh);
    if (p->sinks)
        place_plain(c, SINKS, ATTEND_F32, 1, &p->nh);
    make_mask(c);
    make_layout(c);
    for (int which = Q; which <= V; which++) {
        float factor = p->huge && which != V ? 40 : 1;
        if (which != Q)
            make_scales(c, which, entries, factor);
        if (which != V || !p->vk)
            fill_normal(c, which, factor);
    }
    fill_normal(c, ADDITIVE, 0.5f);
    fill_normal(c, ALIBI, 0.25f);
    fill_normal(c, SINKS, 1);
    make_exprs(c);
    for (int64_t n = 0; p->nan && c->memory && n < p->nb; n++)
        for (int64_t g = 0; g < p->ng; g++)
            poison(c, n, g);
}

static void free_inputs(struct check *c)
{
    for (int i = 0; i < ARRAYS; i++)
        at_os_free_pages(c->a[i].block);
    attend_free(c->text[0].text);
    attend_free(c->text[1].text);
    free(c->seq);
    free(c->room);
    free(c->visible.data);
    free(c->want);
}

/* ---- the run ---- */

static attend_shape shape_of(const struct at_view *v)
{
    attend_shape s = {.rank = v->rank};
    memcpy(s.dim, v->shape, sizeof s.dim);
    return s;
}

static attend_tensor input(attend_graph *g, const struct check *c, int which)
{
    const struct at_view *v = &c->a[which].view;
    return v->data ? attend_graph_input(g, names[which], v->type, shape_of(v)) : attend_none();
}

static void build(attend_graph *g, const struct check *c)
{
    const struct at_problem *p = c->p;
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.mask.causal = p->causal;
    o.mask.align = p->align;
    o.mask.window_left = p->left;
    o.mask.window_right = p->right;
    o.mask.mask = input(g, c, which_mask(c));
    o.mask.kv_used = input(g, c, USED);
    o.mask.q_offset = input(g, c, Q_OFFSET);
    o.layout = input(g, c, LAYOUT);
    o.layout_rows = p->layout_rows;
    o.layout_keys = p->layout_keys;
    attend_capture capture[] = {
        {names[DOC],  input(g, c, DOC) },
        {names[BITS], input(g, c, BITS)},
        {names[REL],  input(g, c, REL) }
    };
    o.captures = capture;
    o.ncaptures = c->a[DOC].view.data ? AT_LEN(capture) : 0;
    o.mask_expr = c->text[0].text;
    o.score = c->text[1].text;
    o.scale = p->scale;
    o.softcap = p->softcap;
    o.dropout = p->dropout;
    o.seed = DROPOUT_SEED;
    o.offset = DROPOUT_OFFSET;
    o.additive = input(g, c, ADDITIVE);
    o.alibi = input(g, c, ALIBI);
    o.sinks = input(g, c, SINKS);
    o.q_lens = input(g, c, Q_LENS);
    o.kv_lens = input(g, c, KV_LENS);
    o.block_table = input(g, c, TABLE);
    o.k_scale = input(g, c, K_SCALE);
    o.v_scale = input(g, c, V_SCALE);
    attend_tensor q = input(g, c, Q), k = input(g, c, K), lse,
                  v = p->vk ? attend_graph_slice(g, k, c->a[K].view.rank - 1, 0, p->dv)
                            : input(g, c, V);
    attend_tensor out = attend_graph_attention(g, q, k, v, &o, p->lse ? &lse : NULL);
    attend_graph_output(g, "o", out);
    if (p->lse)
        attend_graph_output(g, "lse", lse);
}

/* How many; they borrow from c. */
static int list_bindings(const struct check *c, attend_binding bind[ARRAYS])
{
    int n = 0;
    for (int i = 0; i < ARRAYS; i++) {
        const struct array *a = &c->a[i];
        if (a->view.data && !(i == V && c->p->vk))
            bind[n++] = (attend_binding){.name = names[i],
                                         .data = a->view.data,
                                         .bytes = a->bytes,
                                         .stride = a->view.stride};
    }
    return n;
}

static int bind(attend_exec *exec, const struct check *c)
{
    attend_binding bind[ARRAYS];
    return attend_bind(exec, bind, list_bindings(c, bind));
}

/* Runs twice; false, and why on TAP, where a call fails or the runs differ. */
static bool run_exec(attend_exec *exec, struct check *c)
{
    struct array *o = &c->a[O];
    if (bind(exec, c) < 0 || attend_run(exec) < 0) {
        diag("%s", attend_exec_error(exec));
        return false;
    }
    char *first = malloc((size_t)o->block_bytes);
    if (!first)
        bail("no memory");
    memcpy(first, o->block, (size_t)o->block_bytes);
    bool good = attend_run(exec) == ATTEND_OK;
    if (!good)
        diag("second run: %s", attend_exec_error(exec));
    else if (memcmp(first, o->block, (size_t)o->block_bytes) != 0) {
        diag("a second run gives other bits");
        good = false;
    }
    free(first);
    return good;
}

static bool run_plan(attend_plan *plan, struct check *c)
{
    attend_exec *exec;
    if (attend_exec_new(plan, &exec) < 0) {
        diag("no exec");
        return false;
    }
    bool good = run_exec(exec, c);
    attend_exec_free(exec);
    return good;
}

void check_opts(attend_compile_opts *opts, const struct at_problem *p)
{
    attend_compile_opts_init(opts);
    if (p->deterministic)
        opts->deterministic = 1;
    if (p->tf32)
        opts->precision = ATTEND_TF32;
}

static int compile(attend_ctx *ctx, const char *device, const struct check *c, attend_plan **plan,
                   char *err, size_t errlen)
{
    attend_compile_opts opts;
    check_opts(&opts, c->p);
    if (device)
        opts.device = device;
    attend_graph *g = attend_graph_new(ctx);
    if (!g)
        bail("no memory");
    build(g, c);
    int status = attend_compile(g, &opts, plan);
    if (status < 0)
        snprintf(err, errlen, "%s", attend_graph_error(g));
    attend_graph_free(g);
    return status;
}

static bool run_problem(attend_ctx *ctx, const char *device, struct check *c)
{
    attend_plan *plan;
    char err[320];
    if (compile(ctx, device, c, &plan, err, sizeof err) < 0) {
        diag("%s", err);
        return false;
    }
    bool good = run_plan(plan, c);
    attend_plan_free(plan);
    return good;
}

/* ---- the comparison ---- */

/* (B, H, S, D) views, as the reference wants them. */
static struct at_view dense4(const struct at_view *v)
{
    if (v->rank != 3)
        return *v;
    return (struct at_view){
        .type = v->type,
        .rank = 4,
        .data = v->data,
        .shape = {1, v->shape[1],  v->shape[0],  v->shape[2] },
        .stride = {0, v->stride[1], v->stride[0], v->stride[2]}
    };
}

/* A broadcast axis has stride 0. */
static struct at_view broadcast(const struct at_view *v)
{
    struct at_view w = *v;
    for (int d = 0; d < w.rank; d++)
        if (w.shape[d] == 1)
            w.stride[d] = 0;
    return w;
}

/* A bias as (B, H, Sq, Skv), whatever axes it has. */
static struct at_view broadcast4(const struct at_view *v)
{
    struct at_view w = {.type = v->type, .rank = 4, .data = v->data};
    for (int d = 0; d < 4; d++) {
        int e = d - (4 - v->rank);
        w.shape[d] = e < 0 ? 1 : v->shape[e];
        w.stride[d] = w.shape[d] == 1 ? 0 : v->stride[e];
    }
    return w;
}

/* What bool mask and layout leave, pair by pair: the reference has no layouts. */
static struct at_view visible_pairs(struct check *c)
{
    const struct at_problem *p = c->p;
    struct at_view w = {
        .type = ATTEND_BOOL, .rank = 4, .shape = {p->nb, p->nh, p->nq, most_keys(c)}
    };
    static const int order[] = {0, 1, 2, 3};
    if (!p->layout_rows)
        return p->mask == AT_MASK_BOOL ? broadcast4(&c->a[MASK].view) : (struct at_view){0};
    lay_out(&w, order, 0);
    uint8_t *to = w.data = calloc((size_t)span(&w) + 1, 1);
    int64_t at[4] = {0};
    if (!to)
        bail("no memory");
    if (span(&w) > 0)
        do
            *to++ = *(uint8_t *)at_pair(&c->a[LAYOUT].view, at[0], at[1], at[2] / p->layout_rows,
                                        at[3] / p->layout_keys) &&
                    (p->mask != AT_MASK_BOOL || unmasked(c, at[0], at[1], at[2], at[3]));
        while (next_index(&w, 4, at));
    return c->visible = w;
}

static struct at_attn problem_of(struct check *c)
{
    const struct at_problem *p = c->p;
    struct at_attn a = {
        .visible = {p->causal, p->align, p->left, p->right},
        .scale = !isnan(p->scale) ? p->scale
                 : p->additive    ? 1
                                  : 1 / sqrtf((float)p->dk),
        .softcap = p->softcap,
        .dropout = at_dropout_of(p->dropout, DROPOUT_SEED, DROPOUT_OFFSET),
        .nh = p->nh,
        .ng = p->ng,
        .dk = p->dk,
        .dv = p->dv,
        .q = dense4(&c->a[Q].view),
        .k = dense4(&c->a[K].view),
        .v = dense4(&c->a[V].view),
        .o = dense4(&c->a[O].view),
        .bias = broadcast4(&c->a[BIAS].view),
        .mask = visible_pairs(c),
        .mask_expr = p->xmask ? &c->xmask : NULL,
        .score_expr = p->xscore ? &c->xscore : NULL,
        .additive = c->a[ADDITIVE].view.data,
        .alibi = c->a[ALIBI].view.data,
        .sinks = c->a[SINKS].view.data,
        .nseq = c->nseq,
        .seq = c->seq,
        .table = c->a[TABLE].view.data,
        .table_stride = p->page ? pages_of(c, p->nk) : 0,
        .page = p->page,
        .k_scale = broadcast(&c->a[K_SCALE].view),
        .v_scale = broadcast(&c->a[V_SCALE].view),
    };
    for (int which = DOC; which <= REL; which++)
        a.capture[which - DOC] = c->a[which].view;
    return a;
}

/* Every row of the problem: sequence n, head h, row i. */
static void for_rows(struct check *c,
                     void (*fn)(struct check *c, int64_t n, int64_t h, int64_t i, void *arg),
                     void *arg)
{
    for (int64_t n = 0; n < c->nseq; n++)
        for (int64_t h = 0; h < c->p->nh; h++)
            for (int64_t i = 0; i < c->seq[n].nq; i++)
                fn(c, n, h, i, arg);
}

struct reference {
    struct at_attn a;
    double *next; /* in c->want */
};

static void want_row(struct check *c, int64_t n, int64_t h, int64_t i, void *arg)
{
    struct reference *r = arg;
    double o[AT_MAX_HEAD], bound[AT_MAX_HEAD], lse, bound_lse;
    at_ref_attention_row(&r->a, n, h, i, o, &lse);
    at_ref_attention_bound(&r->a, c->p->tf32 ? ATTEND_TF32 : ATTEND_EXACT, n, h, i, bound,
                           &bound_lse);
    for (int64_t d = 0; d < c->p->dv; d++) {
        *r->next++ = o[d];
        *r->next++ = bound[d];
    }
    *r->next++ = lse;
    *r->next++ = bound_lse;
}

static void make_wanted(struct check *c)
{
    int64_t rows = 0;
    for (int64_t n = 0; n < c->nseq; n++)
        rows += c->seq[n].nq;
    rows *= c->p->nh * (c->p->dv + 1);
    c->want = calloc((size_t)rows + 1, 2 * sizeof *c->want);
    if (!c->want) {
        c->memory = false;
        return;
    }
    struct reference r = {problem_of(c), c->want};
    for_rows(c, want_row, &r);
}

/* What was wrong, of which the first is kept. */
struct verdict {
    struct at_view o;   /* (B, H, S, D) */
    const double *next; /* in c->want */
    int64_t wrong, all;
    char first[200];
};

static bool within(float got, double want, double bound)
{
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    return (double)got == want || fabs((double)got - want) <= bound;
}

static void judge(struct verdict *v, const char *what, const int64_t at[4], float got,
                  const double want[2])
{
    v->all++;
    if (within(got, want[0], want[1]))
        return;
    if (v->wrong++ == 0)
        snprintf(v->first, sizeof v->first,
                 "%s[%lld, %lld, %lld, %lld]: got %.9g, want %.9g, bound %.3g", what,
                 (long long)at[0], (long long)at[1], (long long)at[2], (long long)at[3],
                 (double)got, want[0], want[1]);
}

static void judge_row(struct check *c, int64_t n, int64_t h, int64_t i, void *arg)
{
    struct verdict *v = arg;
    const struct at_seq *s = &c->seq[n];
    int64_t at[4] = {s->qb, h, s->q0 + i, 0};
    for (; at[3] < c->p->dv; at[3]++, v->next += 2)
        judge(v, "O", at, *(const float *)at_view_at(&v->o, offset(&v->o, at)), v->next);
    const float *lse = c->a[LSE].view.data;
    at[3] = 0;
    if (lse)
        judge(v, "LSE", at, lse[(at[0] * c->p->nh + h) * v->o.shape[2] + at[2]], v->next);
    v->next += 2;
}

/* Whether what lies around and between the elements of an output is as it was.  The elements, which
 * have been compared, are overwritten. */
static bool untouched(struct array *a)
{
    const struct at_view *v = &a->view;
    int64_t index[ATTEND_MAX_RANK] = {0};
    if (!v->data)
        return true;
    if (span(v) > 0)
        do
            memset(at_view_at(v, offset(v, index)), FILL, attend_type_size(v->type));
        while (next_index(v, v->rank, index));
    for (int64_t i = 0; i < a->block_bytes; i++)
        if ((unsigned char)a->block[i] != FILL)
            return false;
    return true;
}

static bool run_and_compare(attend_ctx *ctx, const char *device, struct check *c)
{
    if (!run_problem(ctx, device, c))
        return false;
    struct verdict v = {.o = dense4(&c->a[O].view), .next = c->want};
    for_rows(c, judge_row, &v);
    if (v.wrong > 0)
        diag("%s; %lld of %lld are out of their bounds", v.first, (long long)v.wrong,
             (long long)v.all);
    bool clean = untouched(&c->a[O]) && untouched(&c->a[LSE]);
    if (!clean)
        diag("something was written outside of the outputs");
    return v.wrong == 0 && clean;
}

static bool check_device(attend_ctx *ctx, const char *device, const char *word, struct check *c)
{
    bool good = run_and_compare(ctx, device, c);
    if (!good)
        diag("replay: attend check --device %s %s", device, word);
    return ok(good, "%s %s", device, word);
}

/* ---- the verbs ---- */

/* Everything but c->want; false, and why on TAP, where the word is wrong. */
static bool begin(struct check *c, struct at_problem *p, const char *word)
{
    char err[320];
    *c = (struct check){.p = p, .memory = true};
    if (at_problem_parse(word, p, err, sizeof err) < 0) {
        diag("%s", err);
        return false;
    }
    c->random = seed_of(p);
    make_inputs(c);
    if (!c->memory)
        bail("no memory for %s", word);
    return true;
}

/* Whether this word is not the n-th: under a checker that is a hundred times slower, few do. */
static bool passed_over(void)
{
    static int64_t words;
    const char *every = at_env(AT_ENV_TEST_EVERY);
    long n = every ? strtol(every, NULL, 10) : 1;
    return n > 1 && words++ % n != 0;
}

bool check_leaves_out_compilers;

bool check_compiles(const char *device)
{
    return strcmp(device, "ref") != 0 && strncmp(device, "simd", 4) != 0;
}

bool check_word(attend_ctx *ctx, const char *device, const char *word)
{
    struct check c;
    struct at_problem p;
    attend_device_info d;
    if (passed_over()) {
        skip("%s: not the %s-th word", word, at_env(AT_ENV_TEST_EVERY));
        return true;
    }
    if (!begin(&c, &p, word))
        return ok(false, "%s", word);
    make_wanted(&c);
    if (!c.memory)
        bail("no memory for %s", word);
    bool good = true;
    if (device)
        good = check_device(ctx, device, word, &c);
    for (int i = 0; !device && attend_device_get(ctx, i, &d) == ATTEND_OK; i++)
        if (d.present && !(check_leaves_out_compilers && check_compiles(d.name)))
            good = check_device(ctx, d.name, word, &c) && good;
    free_inputs(&c);
    return good;
}

uint64_t check_hash(attend_ctx *ctx, const char *device, const char *word)
{
    struct check c;
    struct at_problem p;
    uint64_t hash = 0;
    if (!begin(&c, &p, word))
        return 0;
    if (run_problem(ctx, device, &c)) {
        hash = fnv(FNV, c.a[O].block, c.a[O].block_bytes);
        hash = fnv(hash, c.a[LSE].block, c.a[LSE].block_bytes);
    }
    free_inputs(&c);
    return hash;
}

void check_done(struct check_ready *r)
{
    attend_exec_free(r->exec);
    attend_plan_free(r->plan);
    if (r->inside)
        free_inputs(r->inside);
    free(r->inside);
    *r = (struct check_ready){0};
}

static int make_ready(struct check_ready *r, attend_ctx *ctx, const char *device,
                      const struct at_problem *p, char *err, size_t errlen)
{
    r->inside = calloc(1, sizeof *r->inside);
    if (!r->inside)
        return ATTEND_ENOMEM;
    *r->inside = (struct check){.p = p, .random = seed_of(p), .memory = true};
    make_inputs(r->inside);
    if (!r->inside->memory)
        return ATTEND_ENOMEM;
    int status = compile(ctx, device, r->inside, &r->plan, err, errlen);
    if (status == 0)
        status = attend_exec_new(r->plan, &r->exec);
    if (status < 0)
        return status;
    r->nbind = list_bindings(r->inside, r->bind);
    status = attend_bind(r->exec, r->bind, r->nbind);
    if (status < 0)
        snprintf(err, errlen, "%s", attend_exec_error(r->exec));
    return status;
}

int check_prepare(struct check_ready *r, attend_ctx *ctx, const char *device, const char *word,
                  char *err, size_t errlen)
{
    struct at_problem p;
    *r = (struct check_ready){0};
    int status = at_problem_parse(word, &p, err, errlen);
    if (status < 0)
        return status;
    snprintf(err, errlen, "no memory for %s", word);
    status = make_ready(r, ctx, device, &p, err, errlen);
    if (status < 0)
        check_done(r);
    else
        r->inside->p = NULL; /* only making the inputs needed it */
    return status;
}

attend_graph *check_graph(attend_ctx *ctx, const struct at_problem *p)
{
    struct check c = {.p = p, .random = seed_of(p), .memory = true};
    attend_graph *g = attend_graph_new(ctx);
    make_inputs(&c);
    if (!c.memory)
        bail("no memory");
    if (g)
        build(g, &c);
    free_inputs(&c);
    return g;
}
