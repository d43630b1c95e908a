/* SPDX-License-Identifier: MIT */
/* A property: whatever options meet, every device agrees with the reference within the computed
 * bound, hidden slots hold NaN, and nothing is written beside the outputs.  Words are drawn from a
 * seed; the first failure of a word says how to replay it.  t/920-random is the same with more
 * words, of which its arguments choose some: the first seed, and how many words.  t/730-random-grad
 * is the same of gradients. */
#include <math.h>
#include <stdlib.h>

#include "check_grads.h"
#include "core.h"
#include "tap.h"

#ifndef WORDS
#    define WORDS 300
#    define COMPILED_EVERY 15
#endif
#ifndef COMPILED_EVERY
#    define COMPILED_EVERY 1
#endif

static uint64_t state;

/* splitmix64 (Steele, Lea, Flood 2014), in [0, n) */
static int64_t draw(int64_t n)
{
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (int64_t)((z ^ z >> 31) % (uint64_t)n);
}

static bool chance(int64_t one_in)
{
    return draw(one_in) == 0;
}

static int64_t pick(const int16_t *from, int n)
{
    return from[draw(n)];
}
#define PICK(...) pick((const int16_t[]){__VA_ARGS__}, (int)(sizeof((int16_t[]){__VA_ARGS__}) / 2))

static void draw_sizes(struct at_problem *p)
{
    p->nb = PICK(1, 1, 2, 3);
    p->ng = PICK(1, 1, 2, 3);
    p->nh = p->ng * PICK(1, 1, 2, 3, 4, 7);
    p->nq = chance(3) ? PICK(1, 2, 3, 4) : PICK(0, 5, 16, 17, 31, 33, 47, 63, 64, 65, 97);
    p->nk = chance(8) ? PICK(0, 257, 500, 1100)
                      : PICK(1, 2, 15, 17, 33, 47, 48, 49, 63, 64, 65, 127, 193);
    p->dk = PICK(1, 3, 8, 16, 24, 32, 40, 64, 64, 80, 96, 128, 160, 256);
    p->dv = chance(4) ? PICK(1, 5, 16, 32, 64, 100, 128) : p->dk;
}

static void draw_visible(struct at_problem *p)
{
    p->causal = chance(2);
    p->offset = chance(5);
    if (!p->offset)
        p->align = chance(2) ? ATTEND_BOTTOM_RIGHT : ATTEND_TOP_LEFT;
    p->left = chance(3) ? draw(40) : -1;
    p->right = chance(4) ? draw(20) : -1;
    if (chance(3)) {
        p->mask = chance(2) ? AT_MASK_BOOL : (enum at_problem_mask)(AT_MASK_FLOAT + draw(3));
        for (int d = 0; d < 4; d++)
            p->mask_axis[d] = !chance(3);
    }
    if (chance(5)) {
        p->layout_rows = PICK(1, 7, 16, 64, 128);
        p->layout_keys = PICK(3, 16, 32, 64, 100);
    }
    if (chance(4))
        p->xmask = 1 + draw(1000000);
    if (chance(5))
        p->xscore = 1 + draw(1000000);
}

static void draw_rest(struct at_problem *p)
{
    static const attend_type floats[] = {ATTEND_F32, ATTEND_F32, ATTEND_F16, ATTEND_BF16};
    static const attend_type cached[] = {ATTEND_F32,  ATTEND_F16,  ATTEND_BF16,
                                         ATTEND_Q8_0, ATTEND_Q4_0, ATTEND_F8};
    p->type = floats[draw(4)];
    p->kv_type = chance(2) ? p->type : cached[draw(6)];
    p->softcap = chance(5) ? (float)PICK(1, 5, 30) : 0;
    p->scale = chance(5) ? (float)PICK(-1, 0, 1, 2) / 4 : NAN;
    p->additive = chance(8);
    p->dropout = chance(6) ? 0.25f : 0;
    p->alibi = chance(5);
    p->sinks = chance(5);
    p->lse = chance(2);
    p->bshd = chance(4);
    p->strided = chance(4);
    p->unaligned = chance(4);
    p->deterministic = chance(8);
    p->huge = chance(8);
    p->nan = chance(2);
    p->seed = draw(1000);
    p->vk = chance(8) && p->dv <= p->dk;
    p->packed = chance(5);
    switch (draw(6)) {
    case 0:
        p->used = true;
        break;
    case 1:
    case 2:
        p->page = PICK(1, 3, 16, 17, 64);
        p->ring = p->left >= 0 && chance(2);
        break;
    }
}

#ifdef GRADS
/* Gradients are compared over whole tensors, so nothing may be without measure; and most words have
 * some. */
static void fit(struct at_problem *p)
{
    bool quick = WORDS <= 100;
    p->nq = at_min(p->nq, quick ? 33 : 97);
    p->nk = chance(10) ? at_min(p->nk, 193) : at_min(p->nk, quick ? 49 : 193);
    p->dk = at_min(p->dk, quick ? 64 : 160);
    p->dv = p->vk ? at_min(p->dv, p->dk) : p->dv;
    p->xscore = 0;
    p->huge = p->lse = false;
    if (!chance(8)) {
        p->page = 0;
        p->ring = false;
        p->kv_type = p->kv_type == ATTEND_F16 || p->kv_type == ATTEND_BF16 ? p->kv_type : p->type;
    }
}
#else
static void fit(const struct at_problem *p)
{
    (void)p;
}
#endif

static void check(attend_ctx *ctx, const char *word)
{
#ifdef GRADS
    check_gradients_of(ctx, word);
#else
    check_word(ctx, NULL, word);
#endif
}

int main(int argc, char **argv)
{
    attend_ctx *ctx;
    char word[AT_PROBLEM_WORD], err[320];
    int seed = argc > 1 ? atoi(argv[1]) : 0, words = argc > 2 ? atoi(argv[2]) : WORDS;
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    for (int i = 0, refused = 0; i < words && refused < 50 * words;) {
        struct at_problem p = {.left = -1, .right = -1}, again;
        state = (uint64_t)(seed + i + refused);
        draw_sizes(&p);
        draw_visible(&p);
        draw_rest(&p);
        fit(&p);
        at_problem_print(&p, word);
        if (at_problem_parse(word, &again, err, sizeof err) < 0) {
            refused++; /* what cannot be said together */
            continue;
        }
        check_leaves_out_compilers = i++ % COMPILED_EVERY != 0;
        check(ctx, word);
    }
    if (COMPILED_EVERY > 1)
        skip("devices that compile for each word had each %d-th; the slow suite gives them all",
             COMPILED_EVERY);
    attend_ctx_free(ctx);
    return done_testing();
}
