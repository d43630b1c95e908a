/* SPDX-License-Identifier: MIT */
/* Choosing the next token from logits: the largest, or at random among the likeliest. */
#include "models.h"
#include "say.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct attend_sampler {
    attend_sampler_opts opts;
    int32_t n;
    uint64_t state;
    int32_t *heap;  /* [n] tokens, the likeliest on top */
    double *weight; /* [n] in the order of choice: exp((logit - largest) / temperature) */
};

void attend_sampler_opts_init(attend_sampler_opts *opts)
{
    *opts = (attend_sampler_opts){.size = sizeof(*opts), .top_p = 1.0f};
}

static int check(const attend_sampler_opts *o, int32_t n, char *err, size_t errlen)
{
    if (n < 1)
        return at_say(err, errlen, ATTEND_EINVAL, "cannot choose among %" PRId32 " tokens", n);
    if (!(o->temperature >= 0.0f && o->temperature <= 1e6f))
        return at_say(err, errlen, ATTEND_EINVAL, "temperature %g is not from 0 to 1e6",
                      (double)o->temperature);
    if (o->top_k < 0)
        return at_say(err, errlen, ATTEND_EINVAL, "top_k %" PRId32 " is negative", o->top_k);
    if (!(o->top_p > 0.0f && o->top_p <= 1.0f))
        return at_say(err, errlen, ATTEND_EINVAL, "top_p %g is not above 0 and at most 1",
                      (double)o->top_p);
    return 0;
}

int attend_sampler_new(const attend_sampler_opts *opts, int32_t n, attend_sampler **out, char *err,
                       size_t errlen)
{
    attend_sampler_opts o;
    *out = NULL;
    attend_sampler_opts_init(&o);
    if (opts)
        memcpy(&o, opts, opts->size < sizeof(o) ? opts->size : sizeof(o));
    int status = check(&o, n, err, errlen);
    if (status < 0)
        return status;
    attend_sampler *s = calloc(1, sizeof(*s));
    if (s) {
        *s = (attend_sampler){.opts = o,
                              .n = n,
                              .state = o.seed,
                              .heap = malloc((size_t)n * sizeof(*s->heap)),
                              .weight = malloc((size_t)n * sizeof(*s->weight))};
    }
    if (!s || !s->heap || !s->weight) {
        attend_sampler_free(s);
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory to choose among %" PRId32 " tokens",
                      n);
    }
    *out = s;
    return 0;
}

void attend_sampler_free(attend_sampler *s)
{
    if (!s)
        return;
    free(s->heap);
    free(s->weight);
    free(s);
}

/* Uniform in [0, 1): 53 bits of splitmix64 (Steele et al. 2014). */
static double uniform(attend_sampler *s)
{
    uint64_t x = s->state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (double)((x ^ x >> 31) >> 11) * 0x1p-53;
}

/* The token of the largest logit, or a negative status. */
static int32_t largest(const float *logits, int32_t n, char *err, size_t errlen)
{
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++) {
        if (isnan(logits[i]) || logits[i] == INFINITY)
            return at_say(err, errlen, ATTEND_EINVAL, "logit %" PRId32 " of %" PRId32 " is %f", i,
                          n, (double)logits[i]);
        if (logits[i] > (best < 0 ? -INFINITY : logits[best]))
            best = i;
    }
    return best >= 0 ? best
                     : at_say(err, errlen, ATTEND_EINVAL, "all %" PRId32 " logits are -inf", n);
}

/* ---- a heap of tokens ---- */

static bool before(const float *logits, int32_t a, int32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void sift(int32_t *heap, int32_t n, int32_t i, const float *logits)
{
    int32_t token = heap[i];
    for (int32_t child; i < n / 2; i = child) {
        child = 2 * i + 1;
        child += child + 1 < n && before(logits, heap[child + 1], heap[child]);
        if (before(logits, token, heap[child]))
            break;
        heap[i] = heap[child];
    }
    heap[i] = token;
}

/* Moves the likeliest of the n first entries behind the others, which stay a heap. */
static void pop(int32_t *heap, int32_t n, const float *logits)
{
    int32_t top = heap[0];
    heap[0] = heap[n - 1];
    sift(heap, n - 1, 0, logits);
    heap[n - 1] = top;
}

/* ---- choosing ---- */

static double weigh(const attend_sampler *s, const float *logits, int32_t token, float top)
{
    return exp(((double)logits[token] - (double)top) / (double)s->opts.temperature);
}

/* At random among all, in order of their numbers: no sorting. */
static int32_t pick_any(attend_sampler *s, const float *logits, float top)
{
    double total = 0.0;
    int32_t chosen = 0;
    for (int32_t i = 0; i < s->n; i++)
        total += s->weight[i] = weigh(s, logits, i, top);
    double left = uniform(s) * total;
    for (int32_t i = 0; i < s->n && left >= 0.0; i++)
        if (s->weight[i] > 0.0) {
            left -= s->weight[i];
            chosen = i;
        }
    return chosen;
}

/* Takes the next likeliest token off the heap, the i-th of all, to heap[n - 1 - i]; its weight. */
static double take(attend_sampler *s, const float *logits, int32_t i, float top)
{
    pop(s->heap, s->n - i, logits);
    return s->weight[i] = weigh(s, logits, s->heap[s->n - 1 - i], top);
}

/* At random among the likeliest.  With top_p alone only those that are needed are taken: of a large
 * vocabulary these are few. */
static int32_t pick_likely(attend_sampler *s, const float *logits, float top)
{
    int32_t limit = s->opts.top_k > 0 && s->opts.top_k < s->n ? s->opts.top_k : s->n;
    int32_t taken = 0, kept = 0, chosen = 0;
    double total = 0.0, sum = 0.0;
    for (int32_t i = 0; i < s->n; i++)
        s->heap[i] = i;
    for (int32_t i = s->n / 2; i-- > 0;)
        sift(s->heap, s->n, i, logits);
    while (limit < s->n && taken < limit)
        total += take(s, logits, taken++, top);
    for (int32_t i = 0; i < s->n && limit == s->n; i++)
        total += weigh(s, logits, i, top);
    for (; kept < limit && sum < (double)s->opts.top_p * total; kept++)
        sum += kept < taken ? s->weight[kept] : take(s, logits, kept, top);
    double left = uniform(s) * sum;
    for (int32_t i = 0; i < kept && s->weight[i] > 0.0 && left >= 0.0; i++) {
        left -= s->weight[i];
        chosen = i;
    }
    return s->heap[s->n - 1 - chosen];
}

int32_t attend_sampler_pick(attend_sampler *s, const float *logits, char *err, size_t errlen)
{
    int32_t best = largest(logits, s->n, err, errlen);
    if (best < 0 || s->opts.temperature == 0.0f)
        return best;
    if (s->opts.top_k == 0 && s->opts.top_p == 1.0f)
        return pick_any(s, logits, logits[best]);
    return pick_likely(s, logits, logits[best]);
}
