/* SPDX-License-Identifier: MIT */
/* at_key_range against the definition of visibility, key by key. */
#include "core.h"
#include "tap.h"

static uint64_t seed = 210;

/* A number in [low, high]. */
static int64_t draw(int64_t low, int64_t high)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return low + (int64_t)((seed >> 33) % (uint64_t)(high - low + 1));
}

/* The definition: may row i see key j? */
static bool sees(const struct at_visible *v, const struct at_seq *s, int64_t i, int64_t j)
{
    int64_t p = i + s->off;
    return j >= 0 && j < s->nk && (!v->causal || j <= p) && (v->left < 0 || j >= p - v->left) &&
           (v->right < 0 || j <= p + v->right);
}

/* How many of rows [i0, i1) see key j. */
static int64_t seen(const struct at_visible *v, const struct at_seq *s, int64_t i0, int64_t i1,
                    int64_t j)
{
    int64_t n = 0;
    for (int64_t i = i0; i < i1; i++)
        n += sees(v, s, i, j);
    return n;
}

/* Every key, and some that do not exist, is where the range says; and the range is tight. */
static bool right(const struct at_visible *v, const struct at_seq *s, int64_t i0, int64_t i1)
{
    struct at_keys r = at_key_range(v, s, i0, i1);
    bool good = 0 <= r.first && r.first <= r.full_first && r.full_first <= r.full_end &&
                r.full_end <= r.end && r.end <= s->nk;
    for (int64_t j = -2; j < s->nk + 2; j++) {
        int64_t n = seen(v, s, i0, i1, j);
        good = good && (n == 0 || (j >= r.first && j < r.end));
        good = good && (n == i1 - i0) == (j >= r.full_first && j < r.full_end);
    }
    if (r.first < r.end)
        good = good && seen(v, s, i0, i1, r.first) > 0 && seen(v, s, i0, i1, r.end - 1) > 0;
    if (!good)
        diag("causal %d window %lld,%lld nk %lld off %lld rows [%lld, %lld): %lld %lld %lld %lld",
             v->causal, (long long)v->left, (long long)v->right, (long long)s->nk,
             (long long)s->off, (long long)i0, (long long)i1, (long long)r.first,
             (long long)r.full_first, (long long)r.full_end, (long long)r.end);
    return good;
}

static void test_random(void)
{
    int wrong = 0;
    for (int t = 0; t < 2000; t++) {
        struct at_visible v = {.causal = draw(0, 1)};
        struct at_seq s = {.nq = draw(1, 12), .nk = draw(0, 12)};
        v.left = draw(0, 1) ? draw(0, 5) : -1;
        v.right = draw(0, 1) ? draw(0, 5) : -1;
        s.off = draw(0, 2) ? s.nk - s.nq + draw(-4, 4) : draw(-20, 20);
        for (int64_t i0 = 0; i0 < s.nq; i0++)
            for (int64_t i1 = i0 + 1; i1 <= s.nq; i1++)
                wrong += !right(&v, &s, i0, i1);
    }
    is_int(wrong, 0, "2000 random problems, all runs of rows");
}

static void test_edges(void)
{
    struct at_visible all = {.left = -1, .right = -1}, far = {true, 0, INT64_MAX, INT64_MAX};
    struct at_seq s = {.nq = 4, .nk = 5};
    struct at_keys r = at_key_range(&all, &s, 0, 4);
    ok(r.first == 0 && r.full_first == 0 && r.full_end == 5 && r.end == 5, "all is visible");
    r = at_key_range(&all, &s, 2, 2);
    ok(r.first == 0 && r.end == 0, "no rows see no keys");
    s.off = INT32_MIN;
    r = at_key_range(&far, &s, 0, 4);
    ok(r.first == r.end, "causal rows far before the keys see none");
    s.off = INT32_MAX;
    r = at_key_range(&far, &s, 0, 4);
    ok(r.full_first == 0 && r.full_end == 5, "rows far behind see all, in the widest window");
}

int main(void)
{
    test_random();
    test_edges();
    return done_testing();
}
