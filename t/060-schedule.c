/* SPDX-License-Identifier: MIT */
/* Schedules against brute force over points: no visible point is lost, no hidden one is called
 * full, and for masks of the usual kinds the blocks are exactly those that points give. */
#include "expr_random.h"
#include "schedule.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

#include "os.h"

static attend_ctx *ctx;
static const struct at_visible open_keys = {.left = -1, .right = -1};

/* A mask and its tensors, as one source. */
struct mask {
    struct at_expr x;
    struct at_view capture[AT_EXPR_CAPTURES];
    struct at_source source;
};

static void set_up(struct mask *m, const char *text, const char *name, const struct at_view *v)
{
    char err[512];
    at_expr_init(&m->x, false);
    if (v) {
        m->capture[0] = *v;
        if (at_expr_add_capture(&m->x, name, v->type, v->rank, err, sizeof err) < 0)
            bail("%s", err);
    }
    if (at_expr_parse(&m->x, text, err, sizeof err) < 0)
        bail("%s", err);
    if (at_source_init(ctx, &m->source, &m->x, m->capture) < 0)
        bail("no memory");
}

/* ---- brute force ---- */

struct counts {
    int64_t partial, full, lost, false_full, evaluated;
};

static bool sees(const struct mask *m, int64_t n, int64_t h, const struct at_seq *s, int64_t i,
                 int64_t j)
{
    struct at_expr_point p = {
        .b = n, .h = h, .i = i, .j = j, .sq = s->nq, .skv = s->nk, .capture = m->capture};
    return at_expr_eval(&m->x, &p, NULL) != 0;
}

/* Of one block, by its points; affine visibility decides only whether a block is listed. */
static enum at_cover brute_block(const struct mask *m, const struct at_visible *v, int64_t n,
                                 int64_t h, const struct at_seq *s, int64_t i0, int64_t j0)
{
    bool any = false, all = true;
    int64_t i1 = at_min(s->nq, i0 + AT_BLOCK), j1 = at_min(s->nk, j0 + AT_BLOCK);
    struct at_keys k = at_key_range(v, s, i0, i1);
    if (k.end <= j0 || k.first >= j1)
        return AT_COVER_EMPTY;
    for (int64_t i = i0; i < i1; i++)
        for (int64_t j = j0; j < j1; j++) {
            bool visible = sees(m, n, h, s, i, j);
            any = any || visible;
            all = all && visible;
        }
    return all ? AT_COVER_FULL : any ? AT_COVER_PARTIAL : AT_COVER_EMPTY;
}

/* want: what points give; got: what is listed and what is wrong with it. */
static void compare(const struct at_schedule *d, const struct mask *m, const struct at_visible *v,
                    const struct at_seq *seq, int64_t nseq, int64_t nh, struct counts *want,
                    struct counts *got)
{
    *want = *got = (struct counts){.evaluated = d->evaluated};
    for (int64_t n = 0; n < nseq; n++)
        for (int64_t h = 0; h < nh; h++)
            for (int64_t i = 0; i < seq[n].nq; i += AT_BLOCK)
                for (int64_t j = 0; j < seq[n].nk; j += AT_BLOCK) {
                    enum at_cover w = brute_block(m, v, n, h, &seq[n], i, j);
                    enum at_cover g = at_schedule_cover(d, n, h, h + 1, i,
                                                        at_min(seq[n].nq, i + AT_BLOCK), j, j + 1);
                    want->partial += w == AT_COVER_PARTIAL;
                    want->full += w == AT_COVER_FULL;
                    got->partial += g == AT_COVER_PARTIAL;
                    got->full += g == AT_COVER_FULL;
                    got->lost += w != AT_COVER_EMPTY && g == AT_COVER_EMPTY;
                    got->false_full += w != AT_COVER_FULL && g == AT_COVER_FULL;
                }
}

static void build(struct at_schedule *d, const struct mask *m, const struct at_visible *v,
                  const struct at_seq *seq, int64_t nseq, int64_t nh)
{
    const struct at_source *src = &m->source;
    if (at_schedule_build(d, v, seq, nseq, nh, &src, 1) < 0)
        bail("no memory");
}

/* ---- masks of the usual kinds: exact ---- */

enum { N = 700 };
static int32_t doc[N];
static uint8_t dense[N * N], layout[12 * 12];

static void check_exact(const char *what, struct mask *m, const struct at_visible *v, int64_t nq,
                        int64_t nk, int64_t nh, int lists)
{
    struct at_schedule d = {.ctx = ctx};
    const struct at_seq seq[2] = {
        {.nq = nq, .nk = nk},
        {.nq = nq, .nk = nk}
    };
    struct counts want, got;
    build(&d, m, v, seq, 2, nh);
    compare(&d, m, v, seq, 2, nh, &want, &got);
    ok(got.lost == 0 && got.false_full == 0, "%s: sound", what);
    if (!ok(got.partial == want.partial && got.full == want.full, "%s: as points say", what))
        diag("full %d of %d, partial %d of %d", (int)got.full, (int)want.full, (int)got.partial,
             (int)want.partial);
    is_int(d.nlist, lists, "%s: lists", what);
    at_schedule_free(&d);
    at_source_fini(ctx, &m->source);
}

static void text_exact(const char *text, int64_t nq, int64_t nk, int64_t nh, int lists)
{
    const struct at_view v = {
        .type = ATTEND_I32, .rank = 1, .shape = {N}, .stride = {1}, .data = doc};
    struct mask m;
    set_up(&m, text, "doc", &v);
    check_exact(text, &m, &open_keys, nq, nk, nh, lists);
}

static void test_exact(void)
{
    for (int k = 0; k < N; k++)
        doc[k] = k / 97 + k / 300;
    text_exact("doc[i] == doc[j]", N, N, 4, 1);
    text_exact("doc[i] == doc[j] && j <= i", N, N, 4, 1);
    text_exact("j <= i && i - j < 256", N, N - 77, 4, 1);
    text_exact("j < 200 || j <= i", 500, N, 1, 1); /* prefix */
    text_exact("j <= i + skv - sq", 300, N, 1, 1);
    text_exact("i / 128 == j / 128", N, N, 1, 1); /* chunks */
    text_exact("(i / 64 - j / 64) % 4 == 0", N, N, 1, 1);
    text_exact("h % 2 == 0 ? j <= i : i - j < 64 && j <= i", N, N, 4, 4);
    text_exact("j < 100 * (b + 1)", 200, N, 1, 2);
    text_exact("true", 100, N, 1, 1);
    text_exact("false", 100, N, 1, 1);
    text_exact("j <= i", 1, 1, 1, 1);
    text_exact("j <= i", 0, 100, 1, 1);
    text_exact("j <= i", 100, 0, 1, 1);
}

static void test_tensors(void)
{
    const int64_t shape[] = {1, 1, N, N}, coarse[] = {1, 1, 12, 12};
    const struct at_view v = {
        .type = ATTEND_BOOL,
        .rank = 4,
        .shape = {1, 1, N, N},
        .stride = {0, 0, N, 1},
        .data = dense
    };
    const struct at_view c = {
        .type = ATTEND_BOOL,
        .rank = 4,
        .shape = {1, 1, 12, 12},
        .stride = {0, 0, 12, 1 },
        .data = layout
    };
    struct at_visible causal = {.causal = true, .left = 130, .right = -1};
    struct mask m;
    uint64_t seed = 5;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            dense[i * N + j] = (i / 60 + j / 90) % 3 != 0;
    for (int k = 0; k < 144; k++)
        layout[k] = expr_pick(&seed, 3) == 0;
    m.capture[0] = v;
    at_source_of_mask(&m.x, shape);
    if (at_source_init(ctx, &m.source, &m.x, m.capture) < 0)
        bail("no memory");
    check_exact("a dense mask", &m, &causal, N, N, 2, 1);
    for (int64_t block = 16; block <= 64; block *= 4) {
        m.capture[0] = c;
        at_expr_init(&m.x, false);
        if (at_expr_add_capture(&m.x, "layout", ATTEND_BOOL, 4, NULL, 0) < 0)
            bail("no room");
        at_expr_finish(&m.x, at_expr_blocks(&m.x, 0, coarse, block, block));
        if (at_source_init(ctx, &m.source, &m.x, m.capture) < 0)
            bail("no memory");
        check_exact(block == 16 ? "a layout of 16" : "a layout of 64", &m, &open_keys, 12 * block,
                    12 * block, 2, 1);
    }
}

/* ---- random masks, lengths and affine parts: sound ---- */

static void test_random(uint64_t seed, int rounds)
{
    const struct at_view v = {
        .type = ATTEND_I32, .rank = 1, .shape = {N}, .stride = {1}, .data = doc};
    int wrong = 0, listed = 0, need = 0, evaluated = 0, points = 0;
    for (int round = 0; round < rounds; round++) {
        struct mask m = {.capture = {v}};
        struct at_str s = {0};
        struct at_schedule d = {.ctx = ctx};
        struct at_visible vis = {.causal = expr_pick(&seed, 2) == 0,
                                 .left = expr_pick(&seed, 3) ? -1 : expr_pick(&seed, 200),
                                 .right = -1};
        struct at_seq seq[2];
        struct counts want, got;
        char err[512];
        for (int n = 0; n < 2; n++)
            seq[n] = (struct at_seq){.nq = expr_pick(&seed, 180),
                                     .nk = expr_pick(&seed, 260),
                                     .off = expr_pick(&seed, 200) - 100};
        at_expr_init(&m.x, false);
        if (at_expr_add_capture(&m.x, "doc", ATTEND_I32, 1, err, sizeof err) < 0)
            bail("%s", err);
        expr_random_mask(&m.x, &seed, 1 + expr_pick(&seed, 3), &s);
        if (at_expr_parse(&m.x, s.text, err, sizeof err) < 0 ||
            at_source_init(ctx, &m.source, &m.x, m.capture) < 0)
            bail("%s", err);
        build(&d, &m, &vis, seq, 2, 2);
        compare(&d, &m, &vis, seq, 2, 2, &want, &got);
        if ((got.lost || got.false_full) && wrong++ == 0)
            diag("%s", s.text);
        listed += (int)(got.partial + got.full);
        need += (int)(want.partial + want.full);
        evaluated += (int)d.evaluated;
        points += (int)(2 * (seq[0].nq * seq[0].nk + seq[1].nq * seq[1].nk));
        at_schedule_free(&d);
        at_source_fini(ctx, &m.source);
        free(s.text);
    }
    is_int(wrong, 0, "%d random masks: sound", rounds);
    ok(listed < need * 5 / 4, "%d blocks are listed where %d have a visible point", listed, need);
    ok(evaluated < points / 500, "%d boxes were evaluated, of %d points", evaluated, points);
}

/* ---- size ---- */

static void test_large(void)
{
    enum { TOKENS = 65536 };
    int32_t *ids = malloc(TOKENS * sizeof *ids);
    if (!ids)
        bail("no memory");
    uint64_t seed = 7;
    for (int k = 0, id = 0, left = 0; k < TOKENS; k++) {
        if (left-- == 0) {
            id++;
            left = 200 + expr_pick(&seed, 4000);
        }
        ids[k] = id;
    }
    const struct at_view v = {
        .type = ATTEND_I32, .rank = 1, .shape = {TOKENS}, .stride = {1}, .data = ids};
    const struct at_seq seq = {.nq = TOKENS, .nk = TOKENS};
    struct at_schedule d = {.ctx = ctx};
    struct mask m;
    int64_t best = INT64_MAX, full = 0, partial = 0, want = 0;
    for (int k = 0; k < 5; k++) {
        int64_t start = at_os_now();
        set_up(&m, "doc[i] == doc[j]", "doc", &v);
        build(&d, &m, &open_keys, &seq, 1, 1);
        at_source_fini(ctx, &m.source);
        best = at_min(best, at_os_now() - start);
    }
    for (int k = 0; k < d.nrun; k++)
        *(d.run[k].full ? &full : &partial) += d.run[k].end - d.run[k].first;
    for (int r = 0; r < TOKENS; r += AT_BLOCK) /* ids only grow: blocks meet where their ends do */
        for (int c = 0; c < TOKENS; c += AT_BLOCK)
            want += ids[r] <= ids[c + AT_BLOCK - 1] && ids[c] <= ids[r + AT_BLOCK - 1];
    is_int(full + partial, want, "64k x 64k tokens in documents: blocks");
    diag("%d full, %d partial, %d boxes evaluated, %d runs, %.2f ms", (int)full, (int)partial,
         (int)d.evaluated, d.nrun, (double)best * 1e-6);
    /* Time is the machine's, and the checkers'; what it is spent on is not: 64 x 64 boxes of 1024,
     * and 256 more in each that is not settled, which are those along the diagonal. */
    ok(d.evaluated < 64 * 64 + 4 * 64 * 256, "scheduled by asking %d boxes, not %d blocks",
       (int)d.evaluated, TOKENS / AT_BLOCK * (TOKENS / AT_BLOCK));
    at_schedule_free(&d);
    free(ids);
}

int main(void)
{
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    test_exact();
    test_tensors();
    test_random(3, 60);
    test_large();
    attend_ctx_free(ctx);
    return done_testing();
}
