/* SPDX-License-Identifier: MIT */
/* Sampling: what may be chosen, how often, and that a seed gives the same tokens again. */
#include "gen_gguf.h"
#include "models.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 40, DRAWS = 20000 };

static char err[256];

static attend_sampler *make(float temperature, int32_t top_k, float top_p, uint64_t seed, int32_t n)
{
    attend_sampler *s;
    attend_sampler_opts o;
    attend_sampler_opts_init(&o);
    o.temperature = temperature;
    o.top_k = top_k;
    o.top_p = top_p;
    o.seed = seed;
    if (attend_sampler_new(&o, n, &s, err, sizeof err) < 0)
        bail("%s", err);
    return s;
}

static void random_logits(float *logits, int32_t n, uint64_t seed)
{
    for (int32_t i = 0; i < n; i++)
        logits[i] = (float)(gen_random(&seed) >> 40) * 0x1p-22f; /* 0 to 4 */
}

static void test_options(void)
{
    static const struct {
        float temperature;
        int32_t top_k;
        float top_p;
        int32_t n;
        const char *words;
    } bad[] = {
        {-1.0f,    0,  1.0f, 5, "temperature -1" },
        {NAN,      0,  1.0f, 5, "temperature nan"},
        {INFINITY, 0,  1.0f, 5, "temperature inf"},
        {1.0f,     -3, 1.0f, 5, "top_k -3"       },
        {1.0f,     0,  0.0f, 5, "top_p 0"        },
        {1.0f,     0,  1.5f, 5, "top_p 1.5"      },
        {1.0f,     0,  NAN,  5, "top_p nan"      },
        {1.0f,     0,  1.0f, 0, "among 0 tokens" },
    };
    attend_sampler *s;
    attend_sampler_opts o;
    for (size_t i = 0; i < NELEM(bad); i++) {
        attend_sampler_opts_init(&o);
        o.temperature = bad[i].temperature;
        o.top_k = bad[i].top_k;
        o.top_p = bad[i].top_p;
        is_int(attend_sampler_new(&o, bad[i].n, &s, err, sizeof err), ATTEND_EINVAL,
               "%s is refused", bad[i].words);
        ok(s == NULL && strstr(err, bad[i].words), "and named: %s", err);
    }
    attend_sampler_opts_init(&o);
    o.size = offsetof(attend_sampler_opts, top_k); /* a caller that knows the temperature only */
    o.temperature = 0.0f;
    o.top_p = -1.0f;
    is_int(attend_sampler_new(&o, 5, &s, err, sizeof err), 0, "fields past the size take defaults");
    attend_sampler_free(s);
    attend_sampler_free(NULL);
}

static void test_greedy(void)
{
    attend_sampler *s;
    if (attend_sampler_new(NULL, 5, &s, err, sizeof err) < 0)
        bail("%s", err);
    is_int(attend_sampler_pick(s, (float[]){1, 3, -2, 3, 2}, err, sizeof err), 1,
           "the default is the largest logit, the first of equals");
    is_int(attend_sampler_pick(s, (float[]){-INFINITY, -INFINITY, -1e30f, -INFINITY, -INFINITY},
                               err, sizeof err),
           2, "hidden tokens are passed over");
    is_int(attend_sampler_pick(s, (float[]){0, 1, 2, NAN, 9}, err, sizeof err), ATTEND_EINVAL,
           "NaN is refused");
    is_str(err, "logit 3 of 5 is nan", "with its place");
    is_int(attend_sampler_pick(s, (float[]){0, 1, INFINITY, 0, 0}, NULL, 0), ATTEND_EINVAL,
           "infinity too");
    is_int(attend_sampler_pick(s, (float[]){-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
                               err, sizeof err),
           ATTEND_EINVAL, "and that all are hidden");
    attend_sampler_free(s);
}

static void test_seed(void)
{
    float logits[TOKENS];
    int same = 0, other = 0;
    random_logits(logits, TOKENS, 1);
    attend_sampler *a = make(1.0f, 0, 0.9f, 7, TOKENS), *b = make(1.0f, 0, 0.9f, 7, TOKENS);
    attend_sampler *c = make(1.0f, 0, 0.9f, 8, TOKENS);
    for (int i = 0; i < 100; i++) {
        int32_t token = attend_sampler_pick(a, logits, err, sizeof err);
        same += token == attend_sampler_pick(b, logits, err, sizeof err);
        other += token == attend_sampler_pick(c, logits, err, sizeof err);
    }
    is_int(same, 100, "one seed gives one sequence");
    ok(other < 50, "another seed gives another (%d of 100 tokens agree)", other);
    attend_sampler_free(a);
    attend_sampler_free(b);
    attend_sampler_free(c);
}

/* The probability of each token, from the definition: sort, cut, cut, normalise. */
static void expect(const float *logits, double temperature, int32_t top_k, double top_p, double *p)
{
    int32_t order[TOKENS], limit = top_k > 0 && top_k < TOKENS ? top_k : TOKENS, kept = 0;
    double total = 0, sum = 0;
    for (int32_t i = 0; i < TOKENS; i++) {
        int32_t at = i;
        for (; at > 0 && logits[order[at - 1]] < logits[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
        p[i] = 0;
    }
    for (int32_t i = 0; i < limit; i++)
        total += exp(((double)logits[order[i]] - (double)logits[order[0]]) / temperature);
    for (; kept < limit && sum < top_p * total; kept++) {
        double above = (double)logits[order[kept]] - (double)logits[order[0]];
        sum += p[order[kept]] = exp(above / temperature);
    }
    for (int32_t i = 0; i < TOKENS; i++)
        p[i] /= sum;
}

static void test_frequencies(void)
{
    static const struct {
        float temperature;
        int32_t top_k;
        float top_p;
    } cases[] = {
        {1.0f,  0,      1.0f },
        {0.5f,  0,      1.0f },
        {2.0f,  0,      1.0f },
        {1.0f,  5,      1.0f },
        {1.0f,  1,      1.0f },
        {1.0f,  1000,   1.0f },
        {1.0f,  0,      0.5f },
        {1.0f,  0,      0.9f },
        {1.0f,  0,      1e-6f},
        {1.0f,  TOKENS, 0.7f },
        {0.7f,  10,     0.8f },
        {1e-4f, 0,      0.95f},
    };
    for (size_t c = 0; c < NELEM(cases); c++) {
        float logits[TOKENS];
        double p[TOKENS], worst = 0;
        int count[TOKENS] = {0}, outside = 0;
        random_logits(logits, TOKENS, c + 1);
        logits[3] = -INFINITY;
        logits[20] = logits[21]; /* equal ones, which a cut may part */
        expect(logits, (double)cases[c].temperature, cases[c].top_k, (double)cases[c].top_p, p);
        attend_sampler *s = make(cases[c].temperature, cases[c].top_k, cases[c].top_p, c, TOKENS);
        for (int i = 0; i < DRAWS; i++) {
            int32_t token = attend_sampler_pick(s, logits, err, sizeof err);
            if (token < 0 || token >= TOKENS)
                bail("token %d: %s", (int)token, err);
            count[token]++;
            outside += p[token] == 0;
        }
        for (int i = 0; i < TOKENS; i++) {
            double sigma = sqrt(DRAWS * p[i] * (1 - p[i]));
            double off = fabs(count[i] - DRAWS * p[i]) - 1; /* 1: where sigma is next to nothing */
            worst = sigma > 0 && off / sigma > worst ? off / sigma : worst;
        }
        is_int(outside, 0, "temperature %g, top_k %d, top_p %g: nothing is chosen that was cut",
               (double)cases[c].temperature, (int)cases[c].top_k, (double)cases[c].top_p);
        ok(worst < 5, "and the rest as often as likely (%.1f sigma)", worst);
        attend_sampler_free(s);
    }
}

static void test_large(void)
{
    enum { MANY = 50000 };
    float *logits = malloc(MANY * sizeof *logits);
    if (!logits)
        bail("no memory");
    random_logits(logits, MANY, 3);
    for (int i = 0; i < MANY; i += 2)
        logits[i] = 1.0f;
    logits[MANY - 1] = 30.0f;
    attend_sampler *s = make(1.0f, 40, 0.9f, 3, MANY);
    is_int(attend_sampler_pick(s, logits, err, sizeof err), MANY - 1,
           "of a large vocabulary, a token that has nearly all the weight");
    attend_sampler_free(s);
    s = make(1e6f, MANY - 1, 1.0f, 3, MANY);
    ok(attend_sampler_pick(s, logits, err, sizeof err) >= 0,
       "and all but one of its tokens sorted");
    attend_sampler_free(s);
    s = make(1.0f, 0, 1.0f, 3, 1);
    is_int(attend_sampler_pick(s, logits, err, sizeof err), 0, "one token is no choice");
    attend_sampler_free(s);
    free(logits);
}

int main(void)
{
    test_options();
    test_greedy();
    test_seed();
    test_frequencies();
    test_large();
    return done_testing();
}
