/* SPDX-License-Identifier: MIT */
/* Canonicalisation: attention written as separate operators becomes one operator where it means the
 * same, with the result that the separate ones give; and where it must stay in pieces, the plan
 * says why. */
#include "graph_help.h"

#include <math.h>
#include <string.h>

enum { NB = 2, NH = 4, NQ = 5, NK = 7, DK = 8, DV = 6 };

/* The tensors that a case is written with. */
struct parts {
    attend_graph *g;
    int64_t ng;
    attend_tensor q, k, v, bias, cond, used, rows, slots;
};

/* ---- pieces ---- */

static attend_tensor dot(const struct parts *p, attend_tensor k)
{
    return attend_graph_matmul_nt(p->g, p->q, k);
}

static attend_tensor scores(const struct parts *p)
{
    return attend_graph_scale(p->g, dot(p, p->k), 0.3f);
}

static attend_tensor finish(const struct parts *p, attend_tensor s)
{
    attend_graph_label(p->g, "w");
    return attend_graph_matmul(p->g, attend_graph_softmax(p->g, s), p->v);
}

static attend_tensor hide(const struct parts *p, attend_tensor s)
{
    return attend_graph_where(p->g, p->cond, s, -INFINITY);
}

static attend_tensor cap(const struct parts *p, attend_tensor s, float c)
{
    s = attend_graph_tanh(p->g, attend_graph_scale(p->g, s, 1 / c));
    return attend_graph_scale(p->g, s, c);
}

static attend_tensor causal(const struct parts *p, attend_tensor s, attend_tensor mask)
{
    attend_mask_opts o;
    attend_mask_opts_init(&o);
    o.causal = 1;
    o.align = ATTEND_BOTTOM_RIGHT;
    o.mask = mask;
    return attend_graph_mask(p->g, s, &o);
}

/* (B, G, S, D) to (B, H, S, D), each head as often as it takes. */
static attend_tensor repeat(const struct parts *p, attend_tensor t)
{
    attend_shape s = attend_tensor_shape(t);
    t = attend_graph_reshape(p->g, t, ATTEND_SHAPE(s.dim[0], s.dim[1], 1, s.dim[2], s.dim[3]));
    t = attend_graph_expand(p->g, t,
                            ATTEND_SHAPE(s.dim[0], s.dim[1], NH / s.dim[1], s.dim[2], s.dim[3]));
    return attend_graph_reshape(p->g, t, ATTEND_SHAPE(s.dim[0], NH, s.dim[2], s.dim[3]));
}

/* ---- what is one attention ---- */

static attend_tensor plain(struct parts *p)
{
    return finish(p, scores(p));
}
static attend_tensor unscaled(struct parts *p)
{
    return finish(p, dot(p, p->k));
}
static attend_tensor transposed(struct parts *p)
{
    attend_tensor kt = attend_graph_permute(p->g, p->k, (int[]){0, 1, 3, 2});
    return finish(p, attend_graph_scale(p->g, attend_graph_matmul(p->g, p->q, kt), 0.3f));
}
static attend_tensor scaled_twice(struct parts *p)
{
    return finish(p, attend_graph_scale(p->g, scores(p), -2));
}
static attend_tensor capped(struct parts *p)
{
    return finish(p, cap(p, scores(p), 1.5f));
}
static attend_tensor biased(struct parts *p)
{
    return finish(p, attend_graph_add(p->g, scores(p), p->bias));
}
static attend_tensor bias_first(struct parts *p)
{
    return finish(p, attend_graph_add(p->g, p->bias, scores(p)));
}
static attend_tensor bias_shared(struct parts *p)
{
    attend_tensor all = attend_graph_expand(p->g, p->bias, ATTEND_SHAPE(NB, NH, NQ, NK));
    all = attend_graph_scale(p->g, all, 0.5f);
    attend_tensor o = finish(p, attend_graph_add(p->g, all, scores(p)));
    attend_tensor shift = attend_graph_slice(p->g, attend_graph_tanh(p->g, all), 3, 0, DV);
    return attend_graph_add(p->g, o, shift);
}
static attend_tensor where_hidden(struct parts *p)
{
    return finish(p, hide(p, scores(p)));
}
static attend_tensor where_then_scale(struct parts *p)
{
    return finish(p, attend_graph_scale(p->g, hide(p, scores(p)), 0.5f));
}
static attend_tensor masked(struct parts *p)
{
    return finish(p, causal(p, scores(p), attend_none()));
}
static attend_tensor masked_bool(struct parts *p)
{
    return finish(p, causal(p, scores(p), p->cond));
}
static attend_tensor masked_float(struct parts *p)
{
    return finish(p, causal(p, scores(p), p->bias));
}
static attend_tensor windowed(struct parts *p)
{
    attend_mask_opts o;
    attend_mask_opts_init(&o);
    o.window_left = 3;
    o.window_right = 1;
    o.align = ATTEND_TOP_LEFT;
    o.kv_used = p->used;
    return finish(p, attend_graph_mask(p->g, scores(p), &o));
}
static attend_tensor everything(struct parts *p)
{
    attend_tensor s = attend_graph_add(p->g, cap(p, scores(p), 2), p->bias);
    return finish(p, causal(p, hide(p, s), attend_none()));
}
static attend_tensor repeated(struct parts *p)
{
    p->v = repeat(p, p->v);
    return finish(p, dot(p, repeat(p, p->k)));
}
static attend_tensor one_head_expanded(struct parts *p)
{
    p->v = attend_graph_expand(p->g, p->v, ATTEND_SHAPE(NB, NH, NK, DV));
    return finish(p, dot(p, attend_graph_expand(p->g, p->k, ATTEND_SHAPE(NB, NH, NK, DK))));
}
static attend_tensor flat_values(struct parts *p)
{
    attend_tensor one = attend_graph_slice(p->g, p->v, 3, 0, 1);
    p->v = attend_graph_expand(p->g, one, ATTEND_SHAPE(NB, NH, NK, DV));
    return finish(p, scores(p));
}
static attend_tensor dead_reader(struct parts *p)
{
    attend_tensor s = scores(p);
    attend_graph_tanh(p->g, s);
    return finish(p, s);
}
static attend_tensor appended_before(struct parts *p)
{
    p->k = attend_graph_state(p->g, "pool", ATTEND_F32, ATTEND_SHAPE(NB, NH, NK, DK));
    p->k = attend_graph_append(p->g, p->k, p->rows, p->slots);
    return finish(p, scores(p));
}

/* ---- what is not ---- */

static attend_tensor scores_shown(struct parts *p)
{
    attend_tensor s = scores(p);
    attend_graph_output(p->g, "s", s);
    return finish(p, s);
}
static attend_tensor scores_read(struct parts *p)
{
    attend_tensor s = scores(p);
    return attend_graph_add(p->g, finish(p, s), attend_graph_slice(p->g, s, 3, 0, DV));
}
static attend_tensor cap_read(struct parts *p)
{
    attend_tensor t = attend_graph_tanh(p->g, scores(p));
    attend_tensor o = finish(p, attend_graph_scale(p->g, t, 2));
    return attend_graph_add(p->g, o, attend_graph_slice(p->g, t, 3, 0, DV));
}
static attend_tensor weights_shown(struct parts *p)
{
    attend_graph_label(p->g, "w");
    attend_tensor w = attend_graph_softmax(p->g, scores(p));
    attend_graph_output(p->g, "s", w);
    return attend_graph_matmul(p->g, w, p->v);
}
static attend_tensor weights_reused(struct parts *p)
{
    attend_graph_label(p->g, "w");
    attend_tensor w = attend_graph_softmax(p->g, scores(p));
    return attend_graph_add(p->g, attend_graph_matmul(p->g, w, p->v),
                            attend_graph_slice(p->g, w, 3, 0, DV));
}
static attend_tensor scaled_after_bias(struct parts *p)
{
    return finish(p, attend_graph_scale(p->g, attend_graph_add(p->g, scores(p), p->bias), 2));
}
static attend_tensor capped_after_mask(struct parts *p)
{
    return finish(p, cap(p, causal(p, scores(p), attend_none()), 3));
}
static attend_tensor zeroed_after_where(struct parts *p)
{
    p->cond = attend_graph_input(p->g, "all", ATTEND_BOOL,
                                 ATTEND_SHAPE(1, 1)); /* true: 0 * -inf is NaN */
    return finish(p, attend_graph_scale(p->g, hide(p, scores(p)), 0));
}
static attend_tensor two_biases(struct parts *p)
{
    attend_tensor s = attend_graph_add(p->g, scores(p), p->bias);
    return finish(p, attend_graph_add(p->g, s, p->bias));
}
static attend_tensor two_conditions(struct parts *p)
{
    return finish(p, hide(p, hide(p, scores(p))));
}
static attend_tensor two_masks(struct parts *p)
{
    return finish(p, causal(p, causal(p, scores(p), attend_none()), attend_none()));
}
static attend_tensor where_zero(struct parts *p)
{
    return finish(p, attend_graph_where(p->g, p->cond, scores(p), 0));
}
static attend_tensor larger_condition(struct parts *p)
{
    attend_tensor all =
        attend_graph_expand(p->g, attend_graph_reshape(p->g, p->cond, ATTEND_SHAPE(1, NQ, NK)),
                            ATTEND_SHAPE(NH, NQ, NK));
    p->q = attend_graph_slice(p->g, p->q, 1, 0, 1);
    p->cond = all;
    return finish(p, hide(p, scores(p)));
}
static attend_tensor another_operator(struct parts *p)
{
    return finish(p, attend_graph_gelu(p->g, scores(p)));
}
static attend_tensor given_scores(struct parts *p)
{
    return finish(p, p->bias);
}
static attend_tensor computed_keys(struct parts *p)
{
    attend_tensor kt = attend_graph_permute(p->g, p->k, (int[]){0, 1, 3, 2});
    return finish(p, attend_graph_matmul(p->g, p->q, attend_graph_scale(p->g, kt, 2)));
}
static attend_tensor values_by_columns(struct parts *p)
{
    attend_tensor vt = attend_graph_permute(p->g, p->v, (int[]){0, 1, 3, 2});
    attend_graph_label(p->g, "w");
    return attend_graph_matmul_nt(p->g, attend_graph_softmax(p->g, scores(p)), vt);
}
static attend_tensor three_axes(struct parts *p)
{
    p->q = attend_graph_reshape(p->g, p->q, ATTEND_SHAPE(NB * NH, NQ, DK));
    p->k = attend_graph_reshape(p->g, p->k, ATTEND_SHAPE(NB * NH, NK, DK));
    p->v = attend_graph_reshape(p->g, p->v, ATTEND_SHAPE(NB * NH, NK, DV));
    return finish(p, scores(p));
}
static attend_tensor batch_as_heads(struct parts *p)
{
    attend_tensor *t[] = {&p->k, &p->v};
    for (int i = 0; i < 2; i++) {
        attend_shape s = attend_tensor_shape(*t[i]);
        *t[i] = attend_graph_reshape(p->g, *t[i], ATTEND_SHAPE(NB, 1, 1, NK, s.dim[3]));
        *t[i] = attend_graph_expand(p->g, *t[i], ATTEND_SHAPE(NB, 1, 2, NK, s.dim[3]));
        *t[i] = attend_graph_reshape(p->g, *t[i], ATTEND_SHAPE(1, NH, NK, s.dim[3]));
    }
    return finish(p, scores(p));
}
static attend_tensor other_value_type(struct parts *p)
{
    p->v = attend_graph_cast(p->g, p->v, ATTEND_BF16);
    return finish(p, scores(p));
}
static attend_tensor appended_inside(struct parts *p)
{
    attend_tensor pool = attend_graph_state(p->g, "pool", ATTEND_F32, ATTEND_SHAPE(NB, NH, NK, DK));
    p->k = pool;
    attend_tensor s = scores(p);
    attend_graph_append(p->g, pool, p->rows, p->slots);
    return finish(p, s);
}
/* The copy under the repeated heads was made before the append. */
static attend_tensor appended_after_copy(struct parts *p)
{
    attend_tensor pool = attend_graph_state(p->g, "pool", ATTEND_F32, ATTEND_SHAPE(NB, 2, NK, DK));
    attend_tensor k = repeat(p, pool);
    attend_graph_append(p->g, pool, attend_graph_slice(p->g, p->rows, 1, 0, 2), p->slots);
    p->v = repeat(p, p->v);
    return finish(p, dot(p, k));
}

static const struct canon_case {
    const char *name;
    int64_t ng;
    attend_tensor (*build)(struct parts *p);
    const char *note; /* NULL: becomes one attention */
} cases[] = {
    {"plain",                           NH, plain,               NULL                                              },
    {"unscaled",                        NH, unscaled,            NULL                                              },
    {"keys transposed by a view",       NH, transposed,          NULL                                              },
    {"scaled twice",                    NH, scaled_twice,        NULL                                              },
    {"softcap",                         NH, capped,              NULL                                              },
    {"bias, some of it -inf",           NH, biased,              NULL                                              },
    {"bias first",                      NH, bias_first,          NULL                                              },
    {"bias first, and read elsewhere",  NH, bias_shared,         NULL                                              },
    {"where to -inf",                   NH, where_hidden,        NULL                                              },
    {"where to -inf, then scaled",      NH, where_then_scale,    NULL                                              },
    {"causal",                          NH, masked,              NULL                                              },
    {"causal and bool mask",            NH, masked_bool,         NULL                                              },
    {"causal and float mask",           NH, masked_float,        NULL                                              },
    {"window and lengths",              NH, windowed,            NULL                                              },
    {"softcap, bias, where and causal", NH, everything,          NULL                                              },
    {"repeated heads",                  2,  repeated,            NULL                                              },
    {"repeated head",                   1,  repeated,            NULL                                              },
    {"one head expanded",               1,  one_head_expanded,   NULL                                              },
    {"one head broadcast",              1,  plain,               NULL                                              },
    {"one head broadcast, all at once", 1,  everything,          NULL                                              },
    {"values repeated along channels",  NH, flat_values,         NULL                                              },
    {"a reader that nobody needs",      NH, dead_reader,         NULL                                              },
    {"appended before",                 NH, appended_before,     NULL                                              },

    {"scores are an output",            NH, scores_shown,        "its scores have another reader"                  },
    {"scores are read",                 NH, scores_read,         "its scores have another reader"                  },
    {"tanh is read",                    NH, cap_read,            "a softcap inside it has another reader"          },
    {"weights are an output",           NH, weights_shown,
     "its weights have another reader or are an output"                                                            },
    {"weights are read",                NH, weights_reused,      "its weights have another reader or are an output"},
    {"scaled after bias",               NH, scaled_after_bias,   "scaled or capped after a bias or mask"           },
    {"capped after mask",               NH, capped_after_mask,   "scaled or capped after a bias or mask"           },
    {"scaled by 0 after where",         NH, zeroed_after_where,  "scaled or capped after a bias or mask"           },
    {"two biases",                      NH, two_biases,          "two biases are added"                            },
    {"two conditions",                  NH, two_conditions,      "two boolean masks"                               },
    {"two masks",                       NH, two_masks,           "two masks in a row"                              },
    {"where to 0",                      NH, where_zero,          "a where to something else than -inf"             },
    {"a condition of more heads",       1,  larger_condition,
     "a condition that is larger than the scores"                                                                  },
    {"another operator",                NH, another_operator,    "an operator that attention has not"              },
    {"given scores",                    NH, given_scores,        "its scores are an input"                         },
    {"computed keys",                   NH, computed_keys,       "the keys are not transposed by a view"           },
    {"values by columns",               NH, values_by_columns,   "its weights are not multiplied with values"      },
    {"three axes",                      NH, three_axes,          "q, k and v are not (B, H, S, D)"                 },
    {"batch as heads",                  1,  batch_as_heads,      "the heads or the batch of q, k and v do not fit" },
    {"values of another type",          NH, other_value_type,    "k and v are not of one floating type"            },
    {"appended inside",                 NH, appended_inside,     "a state is appended to inside it"                },
    {"appended after a copy",           2,  appended_after_copy, "a state is appended to inside it"                },
};

/* ---- running a case ---- */

static float q[NB * NH * NQ * DK], k[NB * NH * NK * DK], v[NB * NH * NK * DV], bias[NH * NQ * NK];
static float pool[NB * NH * NK * DK], rows[NB * NH * DK], kept[NB * NH * NQ * NK];
static uint8_t cond[NQ * NK], all_true[1] = {1};
static int32_t used[NB] = {NK, 4}, slots[NB] = {2, NK + 3};

static void draw_inputs(void)
{
    uint64_t r = 120;
    help_normal(&r, q, (int64_t)NELEM(q));
    help_normal(&r, k, (int64_t)NELEM(k));
    help_normal(&r, v, (int64_t)NELEM(v));
    help_normal(&r, bias, (int64_t)NELEM(bias));
    help_normal(&r, rows, (int64_t)NELEM(rows));
    for (int i = 0; i < NQ * NK; i++)
        cond[i] = i / NK != 3 && help_below(&r, 3) > 0; /* row 3 sees nothing */
    for (int i = 0; i < NH * NQ * NK; i++)
        if (i / NK % NQ == 1 || i % 4 == 0)
            bias[i] = -INFINITY; /* row 1 sees nothing */
}

static attend_graph *build(attend_ctx *ctx, const struct canon_case *c)
{
    attend_graph *g = attend_graph_new(ctx);
    struct parts p = {.g = g, .ng = c->ng};
    p.q = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(NB, NH, NQ, DK));
    p.k = attend_graph_input(g, "k", ATTEND_F32, ATTEND_SHAPE(NB, c->ng, NK, DK));
    p.v = attend_graph_input(g, "v", ATTEND_F32, ATTEND_SHAPE(NB, c->ng, NK, DV));
    p.bias = attend_graph_input(g, "bias", ATTEND_F32, ATTEND_SHAPE(1, NH, NQ, NK));
    p.cond = attend_graph_input(g, "cond", ATTEND_BOOL, ATTEND_SHAPE(NQ, NK));
    p.used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(NB));
    p.rows = attend_graph_input(g, "rows", ATTEND_F32, ATTEND_SHAPE(NB, NH, 1, DK));
    p.slots = attend_graph_input(g, "slots", ATTEND_I32, ATTEND_SHAPE(NB, 1));
    attend_graph_output(g, "o", c->build(&p));
    return g;
}

static const char *run(attend_plan *plan, float *o, int64_t bytes)
{
    static char why[320];
    const attend_binding all[] = {
        HELP_DATA("q", q),
        HELP_DATA("k", k),
        HELP_DATA("v", v),
        HELP_DATA("bias", bias),
        HELP_DATA("cond", cond),
        HELP_DATA("used", used),
        HELP_DATA("rows", rows),
        HELP_DATA("slots", slots),
        {.name = "o", .data = o, .bytes = bytes},
        HELP_DATA("pool", pool),
        HELP_DATA("s", kept),
        HELP_DATA("all", all_true)
    };
    attend_binding bind[NELEM(all)];
    attend_exec *x;
    int n = 0;
    memcpy(pool, k, sizeof pool);
    if (attend_exec_new(plan, &x) < 0)
        bail("no exec");
    for (size_t i = 0; i < NELEM(all); i++) /* what this case has */
        for (int j = 0; j < x->nname; j++)
            if (!strcmp(x->name[j].name, all[i].name))
                bind[n++] = all[i];
    if (attend_bind(x, bind, n) == 0)
        (void)!attend_run(x);
    strcpy(why, attend_exec_error(x));
    attend_exec_free(x);
    return why;
}

/* Both are f32 with few terms: a hundred roundings of values near 1. */
static bool near(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= 2e-5f)) {
            diag("element %d: %g and %g", (int)i, (double)a[i], (double)b[i]);
            return false;
        }
    return true;
}

static void check_case(attend_ctx *ctx, const char *device, const struct canon_case *c)
{
    static float fused[NB * NH * NQ * DV], apart[NB * NH * NQ * DV];
    attend_graph *g = build(ctx, c);
    attend_plan *one = help_compile(g, device, 1), *many = help_compile(g, device, 0);
    char *text = attend_plan_describe(one, ATTEND_TEXT),
         *pieces = attend_plan_describe(many, ATTEND_TEXT);
    bool has = strstr(text, "attention f32") != NULL,
         noted = strstr(text, "not fused: softmax") != NULL;
    if (!c->note)
        ok(has && !noted && !strstr(text, "softmax f32"), "%s: %s is one attention", device,
           c->name);
    else if (!has)
        help_holds(text, c->note, "%s: %s stays in pieces", device, c->name);
    else
        ok(false, "%s: %s stays in pieces", device, c->name);
    if (!has == !c->note)
        diag("%s", text);
    ok(!strstr(pieces, "attention f32"), "%s: %s with fuse = 0 does, too", device, c->name);
    memset(fused, 0xff, sizeof fused);
    memset(apart, 0xff, sizeof apart);
    is_str(run(one, fused, sizeof fused), "", "%s: %s runs", device, c->name);
    is_str(run(many, apart, sizeof apart), "", "%s: %s runs in pieces", device, c->name);
    ok(near(fused, apart, (int64_t)NELEM(fused)), "%s: %s: both give the same", device, c->name);
    attend_free(text);
    attend_free(pieces);
    attend_plan_free(one);
    attend_plan_free(many);
    attend_graph_free(g);
}

/* ---- gates: silu(a) b ---- */

enum { ROWS = 3, WIDE = 21 };

static attend_tensor gate_first(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return attend_graph_mul(g, attend_graph_silu(g, a), b);
}
static attend_tensor gate_last(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return attend_graph_mul(g, b, attend_graph_silu(g, a));
}
static attend_tensor gate_row(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return gate_first(g, a, attend_graph_slice(g, b, 0, 1, 1));
}
static attend_tensor gate_read(attend_graph *g, attend_tensor a, attend_tensor b)
{
    a = attend_graph_silu(g, a);
    return attend_graph_add(g, a, attend_graph_mul(g, a, b));
}
static attend_tensor gate_narrow(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return gate_first(g, attend_graph_slice(g, a, 0, 0, 1), b);
}
static attend_tensor gate_by_one(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return gate_first(g, a, attend_graph_slice(g, b, 1, 0, 1));
}

static const struct gate_case {
    const char *name;
    attend_tensor (*build)(attend_graph *g, attend_tensor a, attend_tensor b);
    bool fuses;
} gates[] = {
    {"silu first",            gate_first,  true },
    {"silu last",             gate_last,   true },
    {"a row that repeats",    gate_row,    true },
    {"silu is read",          gate_read,   false},
    {"silu of a row",         gate_narrow, false},
    {"a column that repeats", gate_by_one, false},
};

static void run_gate(attend_plan *plan, float *y)
{
    attend_exec *x;
    const int64_t bytes = ROWS * WIDE * (int64_t)sizeof *y;
    const attend_binding all[] = {
        {.name = "a", .data = q, .bytes = bytes},
        {.name = "b", .data = k, .bytes = bytes},
        {.name = "y", .data = y, .bytes = bytes}
    };
    if (attend_exec_new(plan, &x) < 0 || attend_bind(x, all, 3) < 0 || attend_run(x) < 0)
        bail("a gate does not run");
    attend_exec_free(x);
}

static void check_gate(attend_ctx *ctx, const char *device, const struct gate_case *c)
{
    float fused[ROWS * WIDE], apart[ROWS * WIDE];
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor a = attend_graph_input(g, "a", ATTEND_F32, ATTEND_SHAPE(ROWS, WIDE));
    attend_tensor b = attend_graph_input(g, "b", ATTEND_F32, ATTEND_SHAPE(ROWS, WIDE));
    attend_graph_output(g, "y", c->build(g, a, b));
    attend_plan *one = help_compile(g, device, 1), *two = help_compile(g, device, 0);
    char *text = attend_plan_describe(one, ATTEND_TEXT);
    ok(c->fuses == (strstr(text, "fused: mul <- silu") != NULL), "%s: gate: %s", device, c->name);
    run_gate(one, fused);
    run_gate(two, apart);
    ok(near(fused, apart, (int64_t)NELEM(fused)), "%s: gate: %s: both give the same", device,
       c->name);
    attend_free(text);
    attend_plan_free(one);
    attend_plan_free(two);
    attend_graph_free(g);
}

int main(void)
{
    attend_ctx *ctx = help_context(1);
    draw_inputs();
    for (size_t i = 0; i < NELEM(cases); i++) {
        check_case(ctx, "ref", &cases[i]);
        check_case(ctx, "simd", &cases[i]);
    }
    for (size_t i = 0; i < NELEM(gates); i++) {
        check_gate(ctx, "ref", &gates[i]);
        check_gate(ctx, "simd", &gates[i]);
    }
    attend_ctx_free(ctx);
    return done_testing();
}
