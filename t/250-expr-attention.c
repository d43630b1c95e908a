/* SPDX-License-Identifier: MIT */
/* Score and mask expressions inside of attention, on every device against the reference: masks of
 * the usual kinds and drawn ones, together with causality, windows, lengths and bool masks.  What
 * no row of a group sees is NaN, in K and in V, and so are some values that rows do see. */
#include "check.h"
#include "expr_random.h"
#include "ref.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 300, MOST_HEADS = 6, HEAD = 40 };
enum { DOC, BITS, BIAS, CAPTURES };

static attend_ctx *ctx;
static uint64_t seed = 20261123;
static int32_t doc[MOST];
static uint8_t bits[MOST_HEADS * MOST], dense[MOST * MOST];
static float bias[MOST_HEADS * 64];
static float q[2 * MOST_HEADS * MOST * HEAD], k[2 * MOST_HEADS * MOST * HEAD],
    v[2 * MOST_HEADS * MOST * HEAD], o[2 * MOST_HEADS * MOST * HEAD], lse[2 * MOST_HEADS * MOST];
static int32_t used[2];

static const char *const names[] = {"doc", "bits", "bias"};
static const struct at_view captured[] = {
    {.type = ATTEND_I32,  .rank = 1, .shape = {MOST},           .stride = {1},     .data = doc },
    {.type = ATTEND_BOOL,
     .rank = 2,
     .shape = {MOST_HEADS, MOST},
     .stride = {MOST, 1},
     .data = bits                                                                              },
    {.type = ATTEND_F32,  .rank = 2, .shape = {MOST_HEADS, 64}, .stride = {64, 1}, .data = bias},
};

struct problem {
    int64_t nb, nh, ng, nq, nk, d;
    int causal, dense;
    int64_t left;
    float softcap;
    bool lengths;
    const char *score, *mask;
};

/* ---- as the reference sees it ---- */

struct wanted {
    struct at_attn a;
    struct at_seq seq[2];
    struct at_expr score, mask;
};

static void parse(struct at_expr *x, bool score, const char *text)
{
    char err[512];
    at_expr_init(x, score);
    for (int c = 0; c < CAPTURES; c++)
        if (at_expr_add_capture(x, names[c], captured[c].type, captured[c].rank, err, sizeof err) <
            0)
            bail("%s", err);
    if (at_expr_parse(x, text, err, sizeof err) < 0)
        bail("%s", err);
}

static struct at_view rows(float *data, int64_t nb, int64_t nh, int64_t n, int64_t d)
{
    return (struct at_view){
        .type = ATTEND_F32,
        .rank = 4,
        .shape = {nb,         nh,    n, d},
        .stride = {nh * n * d, n * d, d, 1},
        .data = data
    };
}

static void want(struct wanted *w, const struct problem *p)
{
    w->a = (struct at_attn){
        .visible = {.causal = p->causal != 0,
                    .align = ATTEND_BOTTOM_RIGHT,
                    .left = p->left,
                    .right = -1},
        .scale = 1 / sqrtf((float)p->d),
        .softcap = p->softcap,
        .nh = p->nh,
        .ng = p->ng,
        .dk = p->d,
        .dv = p->d,
        .nseq = p->nb,
        .seq = w->seq,
        .q = rows(q, p->nb, p->nh, p->nq, p->d),
        .k = rows(k, p->nb, p->ng, p->nk, p->d),
        .v = rows(v, p->nb, p->ng, p->nk, p->d),
        .o = rows(o, p->nb, p->nh, p->nq, p->d),
    };
    if (p->dense)
        w->a.mask = (struct at_view){
            .type = ATTEND_BOOL,
            .rank = 4,
            .shape = {1, 1, p->nq, p->nk},
            .stride = {0, 0, p->nk, 1    },
            .data = dense
        };
    for (int n = 0; n < p->nb; n++) {
        w->seq[n] =
            (struct at_seq){.qb = n, .kb = n, .nq = p->nq, .nk = p->lengths ? used[n] : p->nk};
        w->seq[n].off = w->seq[n].nk - p->nq;
    }
    for (int c = 0; c < CAPTURES; c++)
        w->a.capture[c] = captured[c];
    if (p->score) {
        parse(&w->score, true, p->score);
        w->a.score_expr = &w->score;
    }
    if (p->mask) {
        parse(&w->mask, false, p->mask);
        w->a.mask_expr = &w->mask;
    }
}

/* Does a row of any head of group g see key j of sequence n? */
static bool seen(const struct wanted *w, int64_t n, int64_t g, int64_t j)
{
    int64_t ratio = w->a.nh / w->a.ng;
    for (int64_t h = g * ratio; h < (g + 1) * ratio; h++)
        for (int64_t i = 0; i < w->seq[n].nq; i++) {
            struct at_ref_row r = {.a = &w->a, .seq = &w->seq[n], .n = n, .h = h, .g = g, .i = i};
            struct at_keys keys = at_key_range(&w->a.visible, r.seq, i, i + 1);
            if (j >= keys.first && j < keys.end && at_ref_added(&r, j) == 0)
                return true;
        }
    return false;
}

static float uniform(float most)
{
    return most * ((float)expr_pick(&seed, 20001) / 10000 - 1);
}

static void fill(const struct wanted *w, const struct problem *p)
{
    int64_t d = p->d;
    for (int64_t e = 0; e < p->nb * p->nh * p->nq * d; e++)
        q[e] = uniform(1);
    for (int64_t n = 0; n < p->nb; n++)
        for (int64_t g = 0; g < p->ng; g++)
            for (int64_t j = 0; j < p->nk; j++) {
                bool visible = seen(w, n, g, j), odd = visible && expr_pick(&seed, 200) == 0;
                int64_t at = ((n * p->ng + g) * p->nk + j) * d;
                for (int64_t c = 0; c < d; c++) {
                    k[at + c] = visible ? uniform(1) : NAN;
                    v[at + c] = !visible || (odd && c == 3) ? NAN : uniform(1);
                }
            }
}

/* ---- as a device does it ---- */

static attend_graph *build(const struct problem *p)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts opts;
    attend_capture capture[CAPTURES];
    attend_tensor out_lse;
    attend_attention_opts_init(&opts);
    for (int c = 0; c < CAPTURES; c++) {
        attend_shape s = {.rank = captured[c].rank};
        memcpy(s.dim, captured[c].shape, sizeof s.dim);
        capture[c] =
            (attend_capture){names[c], attend_graph_input(g, names[c], captured[c].type, s)};
    }
    opts.mask.causal = p->causal;
    opts.mask.align = ATTEND_BOTTOM_RIGHT;
    opts.mask.window_left = p->left;
    opts.softcap = p->softcap;
    opts.score = p->score;
    opts.mask_expr = p->mask;
    opts.captures = capture;
    opts.ncaptures = CAPTURES;
    if (p->dense)
        opts.mask.mask = attend_graph_input(g, "dense", ATTEND_BOOL, ATTEND_SHAPE(p->nq, p->nk));
    if (p->lengths)
        opts.mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(p->nb));
    attend_tensor tq =
        attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(p->nb, p->nh, p->nq, p->d));
    attend_tensor tk =
        attend_graph_input(g, "k", ATTEND_F32, ATTEND_SHAPE(p->nb, p->ng, p->nk, p->d));
    attend_tensor tv =
        attend_graph_input(g, "v", ATTEND_F32, ATTEND_SHAPE(p->nb, p->ng, p->nk, p->d));
    attend_graph_output(g, "o", attend_graph_attention(g, tq, tk, tv, &opts, &out_lse));
    attend_graph_output(g, "lse", out_lse);
    return g;
}

static bool run(const char *device, const struct problem *p)
{
    attend_plan *plan;
    attend_exec *exec;
    attend_compile_opts copts;
    attend_graph *g = build(p);
    attend_compile_opts_init(&copts);
    if (device)
        copts.device = device;
    int status = attend_compile(g, &copts, &plan);
    if (status < 0)
        diag("%s", attend_graph_error(g));
    attend_graph_free(g);
    if (status < 0)
        return false;
    attend_binding bind[16] = {
        {.name = "q",    .data = q,    .bytes = sizeof q   },
        {.name = "k",    .data = k,    .bytes = sizeof k   },
        {.name = "v",    .data = v,    .bytes = sizeof v   },
        {.name = "o",    .data = o,    .bytes = sizeof o   },
        {.name = "lse",  .data = lse,  .bytes = sizeof lse },
        {.name = "doc",  .data = doc,  .bytes = sizeof doc },
        {.name = "bits", .data = bits, .bytes = sizeof bits},
        {.name = "bias", .data = bias, .bytes = sizeof bias},
    };
    int n = 8;
    if (p->dense)
        bind[n++] = (attend_binding){.name = "dense", .data = dense, .bytes = sizeof dense};
    if (p->lengths)
        bind[n++] = (attend_binding){.name = "used", .data = used, .bytes = sizeof used};
    bool good = attend_exec_new(plan, &exec) == 0;
    if (good && (attend_bind(exec, bind, n) < 0 || attend_run(exec) < 0)) {
        diag("%s", attend_exec_error(exec));
        good = false;
    }
    if (good)
        attend_exec_free(exec);
    attend_plan_free(plan);
    return good;
}

static bool near(float got, double wanted, double bound)
{
    return (isnan(wanted) && isnan(got)) || (double)got == wanted ||
           fabs((double)got - wanted) <= bound || (isinf(bound) && !isnan(wanted));
}

static bool compare(const struct wanted *w, const struct problem *p, int64_t *sharp)
{
    double row[AT_MAX_HEAD], bound[AT_MAX_HEAD], row_lse, bound_lse;
    for (int64_t n = 0; n < p->nb; n++)
        for (int64_t h = 0; h < p->nh; h++)
            for (int64_t i = 0; i < p->nq; i++) {
                int64_t at = (n * p->nh + h) * p->nq + i;
                at_ref_attention_row(&w->a, n, h, i, row, &row_lse);
                at_ref_attention_bound(&w->a, ATTEND_EXACT, n, h, i, bound, &bound_lse);
                *sharp += bound_lse < 1e-3;
                for (int64_t c = 0; c < p->d; c++)
                    if (!near(o[at * p->d + c], row[c], bound[c])) {
                        diag("o[%d, %d, %d, %d] is %.9g, wants %.9g within %.3g", (int)n, (int)h,
                             (int)i, (int)c, (double)o[at * p->d + c], row[c], bound[c]);
                        return false;
                    }
                if (!near(lse[at], row_lse, bound_lse)) {
                    diag("lse[%d, %d, %d] is %.9g, wants %.9g within %.3g", (int)n, (int)h, (int)i,
                         (double)lse[at], row_lse, bound_lse);
                    return false;
                }
            }
    return true;
}

static int64_t sharp, drawn_rows; /* rows whose bound says something, of all */

static bool check(const struct problem *p)
{
    static struct wanted w;
    bool good = true;
    want(&w, p);
    fill(&w, p);
    for (int n = 0; n < attend_device_count(ctx); n++) {
        attend_device_info info;
        if (attend_device_get(ctx, n, &info) < 0 || !info.present ||
            (check_leaves_out_compilers && check_compiles(info.name)))
            continue;
        memset(o, 0x7f, sizeof o);
        if (!run(info.name, p) || !compare(&w, p, &sharp)) {
            diag("%s: b%d h%d g%d q%d k%d d%d causal %d left %d dense %d lengths %d softcap %g",
                 info.name, (int)p->nb, (int)p->nh, (int)p->ng, (int)p->nq, (int)p->nk, (int)p->d,
                 p->causal, (int)p->left, p->dense, p->lengths, (double)p->softcap);
            diag("score: %s", p->score ? p->score : "none");
            diag("mask: %s", p->mask ? p->mask : "none");
            good = false;
        }
        drawn_rows += p->nb * p->nh * p->nq;
    }
    return good;
}

/* ---- problems ---- */

static void draw(struct problem *p)
{
    static const int64_t sizes[] = {1, 2, 7, 33, 64, 65, 100, 130};
    *p = (struct problem){.nb = 1 + expr_pick(&seed, 2),
                          .ng = 1 + expr_pick(&seed, 2),
                          .nq = sizes[expr_pick(&seed, 8)],
                          .nk = sizes[expr_pick(&seed, 8)],
                          .d = 8 + expr_pick(&seed, HEAD - 8),
                          .causal = expr_pick(&seed, 3) == 0,
                          .left = expr_pick(&seed, 4) ? -1 : expr_pick(&seed, 100),
                          .dense = expr_pick(&seed, 4) == 0,
                          .lengths = expr_pick(&seed, 3) == 0,
                          .softcap = expr_pick(&seed, 4) ? 0 : 5};
    p->nh = p->ng * (1 + expr_pick(&seed, 3));
    for (int n = 0; n < 2; n++)
        used[n] = expr_pick(&seed, (int)p->nk + 1);
    for (int e = 0; e < MOST * MOST; e++)
        dense[e] = (e / (int)p->nk / 20 + e % (int)p->nk / 70) % 2;
}

static const char *const texts[][2] = {
    {NULL,                                           "doc[i] == doc[j]"                                },
    {NULL,                                           "doc[i + skv - sq] == doc[j] && j <= i + skv - sq"},
    {NULL,                                           "j < 20 || j <= i"                                },
    {NULL,                                           "(i - j) % 3 == 0"                                },
    {NULL,                                           "h % 2 == 0 ? j <= i : i - j < 64 && j <= i"      },
    {NULL,                                           "bits[h, j]"                                      },
    {NULL,                                           "false"                                           },
    {NULL,                                           "b == 0 && i > 3"                                 },
    {"score + bias[h, i - j]",                       NULL                                              },
    {"score + 0.5*abs(i-j)",                         "j <= i"                                          },
    {"j <= i ? score : -inf",                        NULL                                              },
    {"tanh(score) * 3 + (doc[i] == doc[j] ? 1 : 0)", "i / 64 == j / 64"                                },
    {"score * score",                                NULL                                              },
};

static void test_texts(void)
{
    for (size_t t = 0; t < NELEM(texts); t++) {
        struct problem p;
        bool good = true;
        for (int round = 0; round < 3; round++) {
            check_leaves_out_compilers = round > 0;
            draw(&p);
            p.score = texts[t][0];
            p.mask = texts[t][1];
            good = check(&p) && good;
        }
        ok(good, "score %s, mask %s", texts[t][0] ? texts[t][0] : "none",
           texts[t][1] ? texts[t][1] : "none");
    }
}

static void test_random(int rounds)
{
    int wrong = 0;
    for (int round = 0; round < rounds && wrong < 3; round++) {
        struct problem p;
        struct at_expr x;
        struct at_str score = {0}, mask = {0};
        draw(&p);
        check_leaves_out_compilers = round % 10 != 0;
        at_expr_init(&x, false);
        for (int c = 0; c < BIAS; c++)
            if (at_expr_add_capture(&x, names[c], captured[c].type, captured[c].rank, NULL, 0) < 0)
                bail("capture");
        expr_random_mask(&x, &seed, 1 + expr_pick(&seed, 3), &mask);
        if (at_expr_add_capture(&x, names[BIAS], ATTEND_F32, 2, NULL, 0) < 0)
            bail("capture");
        expr_random_score(&x, &seed, 1 + expr_pick(&seed, 3), &score);
        p.mask = expr_pick(&seed, 4) ? mask.text : NULL;
        p.score = expr_pick(&seed, 2) ? score.text : NULL;
        wrong += !check(&p);
        free(score.text);
        free(mask.text);
    }
    check_leaves_out_compilers = false;
    is_int(wrong, 0, "%d drawn problems with drawn expressions, each 10th on what compiles",
           rounds);
    ok(sharp > drawn_rows / 2, "%d of %d rows have an error bound on LSE below 1e-3", (int)sharp,
       (int)drawn_rows);
}

/* The same attention, its expressions written and made by calls. */
static void test_calls(void)
{
    struct problem p = {.nb = 1, .nh = 2, .ng = 1, .nq = 70, .nk = 70, .d = 8, .left = -1};
    static float first[2 * 70 * 8];
    static struct wanted w;
    p.mask = "doc[i] == doc[j] && !(j > i)";
    p.score = "i - j < 5 ? score * -2.5 : max(score, bias[h, j])";
    want(&w, &p);
    fill(&w, &p);
    if (!run(NULL, &p))
        bail("attention");
    memcpy(first, o, sizeof first);
    attend_graph *g = attend_graph_new(ctx);
#define CALL(op, ...)                                                                              \
    attend_expr_call(g, op, (const char *const[]){__VA_ARGS__},                                    \
                     (int)NELEM(((const char *const[]){__VA_ARGS__})))
    p.mask =
        CALL("&&", CALL("==", CALL("doc", "i"), CALL("doc", "j")), CALL("!", CALL(">", "j", "i")));
    p.score = CALL("?:", CALL("<", CALL("-", "i", "j"), attend_expr_int(g, 5)),
                   CALL("*", "score", attend_expr_float(g, -2.5)),
                   CALL("max", "score", CALL("bias", "h", "j")));
    is_str(p.mask, "((doc[i] == doc[j]) && (!(j > i)))", "a mask by calls");
    ok(run(NULL, &p) && !memcmp(first, o, sizeof first), "calls and text give the same attention");
    ok(!CALL("+", "i", NULL), "NULL gives NULL");
    is_int(attend_graph_status(g), 0, "and is no other error");
    ok(!CALL("+", "i", "j", "h", "b") && attend_graph_status(g) == ATTEND_EINVAL,
       "too many arguments");
#undef CALL
    attend_graph_free(g);
}

static void refuse(const char *score, const char *mask, const char *says)
{
    struct problem p = {.nb = 1,
                        .nh = 1,
                        .ng = 1,
                        .nq = 4,
                        .nk = 4,
                        .d = 8,
                        .left = -1,
                        .score = score,
                        .mask = mask};
    attend_graph *g = build(&p);
    if (!ok(attend_graph_status(g) < 0 && strstr(attend_graph_error(g), says), "refused: %s",
            score ? score : mask))
        diag("%s", attend_graph_error(g));
    attend_graph_free(g);
}

int main(void)
{
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    for (int e = 0; e < MOST; e++)
        doc[e] = e / 37;
    for (int e = 0; e < MOST_HEADS * MOST; e++)
        bits[e] = (uint8_t)(e / 50 % 2);
    for (int e = 0; e < MOST_HEADS * 64; e++)
        bias[e] = uniform(2);
    test_texts();
    test_random(25);
    test_calls();
    refuse("score +", NULL, "attention 0: score expression: the expression ends");
    refuse(NULL, "j <= k", "mask expression: 'k' is no variable");
    refuse(NULL, "bias[h, j] == 0", "'bias' is f32, and a mask");
    attend_ctx_free(ctx);
    return done_testing();
}
