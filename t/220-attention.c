/* SPDX-License-Identifier: MIT */
/* Attention on every device against the reference: the grid of `attend check`, sizes and head sizes
 * at the edges of tiles, and drawn problems that combine everything; and that the bits do not
 * depend on the number of threads. */
#include "check.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>

#define DRAWN 200
#define MOST_WORK                                                                                  \
    3e6 /* multiply-adds of a drawn problem: the reference takes milliseconds for them */

static uint64_t state = 20261123;

static int64_t draw(int64_t count) /* [0, count) */
{
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (int64_t)((z ^ z >> 31) % (uint64_t)count);
}

static bool one_in(int64_t n)
{
    return draw(n) == 0;
}

static const int64_t sizes[] = {1, 3, 17, 63, 64, 65, 127, 128, 129, 1000};
static const int64_t heads[] = {1, 8, 32, 40, 64, 80, 96, 128, 192, 256};
static const attend_type types[] = {ATTEND_F32, ATTEND_F16, ATTEND_BF16};
static const attend_type kv_types[] = {ATTEND_F32,  ATTEND_F16,  ATTEND_BF16,
                                       ATTEND_Q8_0, ATTEND_Q4_0, ATTEND_F8};

static void draw_sizes(struct at_problem *p)
{
    do {
        p->nb = 1 + draw(3);
        p->ng = 1 + draw(3);
        p->nh = p->ng * (1 + draw(7));
        p->nq = sizes[draw(NELEM(sizes))];
        p->nk = sizes[draw(NELEM(sizes))];
        p->dk = heads[draw(NELEM(heads))];
        p->dv = one_in(4) ? heads[draw(NELEM(heads))] : p->dk;
    } while ((double)(p->nb * p->nh * p->nq) * (double)(p->nk * p->dk) > MOST_WORK);
}

static void draw_visibility(struct at_problem *p)
{
    p->align = one_in(2) ? ATTEND_TOP_LEFT : ATTEND_BOTTOM_RIGHT;
    p->causal = one_in(2);
    if (one_in(4)) {
        p->left = draw(100) - 1;
        p->right = draw(100) - 1;
    }
    if (one_in(3)) {
        p->mask = one_in(2) ? AT_MASK_BOOL : AT_MASK_FLOAT;
        for (int d = 0; d < 4; d++)
            p->mask_axis[d] = !one_in(3);
    }
    p->packed = one_in(5);
    p->used = !p->packed && one_in(4);
    p->page = !p->packed && !p->used && one_in(4) ? 1 + draw(70) : 0;
}

static struct at_problem draw_problem(void)
{
    struct at_problem p = {.left = -1, .right = -1, .scale = NAN};
    p.type = types[draw(NELEM(types))];
    p.kv_type = one_in(4) ? kv_types[draw(NELEM(kv_types))] : p.type;
    draw_sizes(&p);
    draw_visibility(&p);
    p.softcap = one_in(5) ? 20 : 0;
    p.additive = one_in(8);
    p.dropout = one_in(6) ? 0.25f : 0;
    p.alibi = one_in(5);
    p.sinks = one_in(5);
    p.lse = !one_in(4);
    p.bshd = !p.packed && one_in(4);
    p.strided = one_in(4);
    p.unaligned = one_in(4);
    p.huge = one_in(6);
    p.nan = one_in(4);
    return p;
}

static void test_drawn(attend_ctx *ctx)
{
    char word[AT_PROBLEM_WORD];
    for (int i = 0; i < DRAWN; i++) {
        struct at_problem p = draw_problem();
        check_word(ctx, NULL, at_problem_print(&p, word));
    }
}

/* Every size in place of rows and of keys, and every head size. */
static void test_edges(attend_ctx *ctx)
{
    char word[AT_PROBLEM_WORD];
    for (size_t i = 0; i < NELEM(sizes); i++) {
        snprintf(word, sizeof word, "attention:f32:b1h2g1q%dk65d40:causal-br:lse", (int)sizes[i]);
        check_word(ctx, NULL, word);
        snprintf(word, sizeof word, "attention:f32:b1h2g1q65k%dd40:causal-tl:lse", (int)sizes[i]);
        check_word(ctx, NULL, word);
        for (size_t t = 0; t < NELEM(types); t++) {
            snprintf(word, sizeof word, "attention:%s:b1h2g1q17k65d%d:causal-br:lse",
                     attend_type_name(types[t]), (int)heads[i]);
            check_word(ctx, NULL, word);
        }
    }
}

static attend_ctx *context(int threads)
{
    attend_ctx *ctx;
    attend_ctx_opts opts;
    attend_ctx_opts_init(&opts);
    opts.threads = threads;
    if (attend_ctx_new(&opts, &ctx) < 0)
        bail("no context of %d threads", threads);
    return ctx;
}

/* What drawn words of the slow suite showed. */
static void test_found(attend_ctx *ctx)
{
    static const char *const words[] = {
        /* a visible NaN whose weight is dropped is no hidden one */
        "attention:f16:b1h8g2q97k63d64v100:causal-br:w22_inf:xscore600493:scale0.5:drop0.25:sinks:"
        "bshd:nan:seed632",
        "attention:f16:b3h4g2q33k2d1:causal-br:vk:bshd:strided:huge:nan:seed808", /* V is K */
    };
    for (size_t n = 0; n < NELEM(words); n++)
        check_word(ctx, NULL, words[n]);
}

/* Problems of many work items, and one whose keys are split. */
static void test_threads(attend_ctx *ctx)
{
    static const char *const words[] = {
        "attention:f32:b2h6g3q129k200d64:causal-br:lse",
        "attention:f32:b1h8g2q1k4096d64:lse",
        "attention:f16:b3h4g1q3k1000d80:used:causal-br:lse",
        "attention:f32:b4h4g2q70k130d32:packed:causal-br:lse",
    };
    attend_device_info d;
    for (int threads = 1; threads <= 5; threads += 2) {
        attend_ctx *other = context(threads);
        for (int i = 0; attend_device_get(ctx, i, &d) == ATTEND_OK; i++)
            for (size_t n = 0; n < NELEM(words) && d.present; n++) {
                uint64_t want = check_hash(ctx, d.name, words[n]);
                ok(want && check_hash(other, d.name, words[n]) == want,
                   "%d threads give the bits of 2: %s %s", threads, d.name, words[n]);
            }
        attend_ctx_free(other);
    }
}

int main(void)
{
    attend_ctx *ctx = context(2);
    for (const char *const *word = check_grid; *word; word++)
        check_word(ctx, NULL, *word);
    test_edges(ctx);
    test_drawn(ctx);
    test_found(ctx);
    test_threads(ctx);
    attend_ctx_free(ctx);
    return done_testing();
}
