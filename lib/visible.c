/* SPDX-License-Identifier: MIT */
/* Affine visibility: which keys causality, windows, lengths and offsets leave to a run of rows. */
#include "core.h"

/* The window's reach, kept far from the ends of int64_t so that sums with positions cannot wrap. */
static int64_t reach(int64_t window)
{
    return at_min(window, INT64_MAX / 4);
}

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return at_min(at_max(x, low), high);
}

/* Row i sees the keys [low(i), high(i)); both grow with i. */
static int64_t low(const struct at_visible *v, const struct at_seq *s, int64_t i)
{
    return v->left < 0 ? 0 : clamp(i + s->off - reach(v->left), 0, s->nk);
}

static int64_t high(const struct at_visible *v, const struct at_seq *s, int64_t i)
{
    int64_t end = s->nk;
    if (v->causal)
        end = at_min(end, i + s->off + 1);
    if (v->right >= 0)
        end = at_min(end, i + s->off + reach(v->right) + 1);
    return at_max(end, 0);
}

/* As both ends grow with the row, the first row has the lowest ones and the last the highest: some
 * row sees a key only in [low(first), high(last)), and all do in [low(last), high(first)). */
struct at_keys at_key_range(const struct at_visible *v, const struct at_seq *s, int64_t i0,
                            int64_t i1)
{
    if (i0 >= i1)
        return (struct at_keys){0, 0, 0, 0};
    struct at_keys r;
    r.first = low(v, s, i0);
    r.end = at_max(high(v, s, i1 - 1), r.first);
    r.full_first = at_min(low(v, s, i1 - 1), r.end);
    r.full_end = at_min(high(v, s, i0), r.end);
    if (r.full_end <= r.full_first) /* no key is seen by all: one partial run */
        r.full_first = r.full_end = r.end;
    return r;
}
