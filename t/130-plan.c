/* SPDX-License-Identifier: MIT */
/* Plans: variants by rows, memory of temporaries, kernels and why others refused, and what is
 * printed. */
#include "graph_help.h"

#include "backend.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- two layers of a model, with attention composed or as one operator ---- */

enum { NH = 4, D = 8, WIDE = NH * D };
static const float weight[WIDE * WIDE];

static attend_tensor heads(attend_graph *g, attend_tensor t, attend_tensor w)
{
    t = attend_graph_reshape(g, attend_graph_matmul_nt(g, t, w),
                             ATTEND_SHAPE(1, ATTEND_INFER, NH, D));
    return attend_graph_permute(g, t, (int[]){0, 2, 1, 3});
}

static attend_tensor look(attend_graph *g, attend_tensor q, attend_tensor k, attend_tensor v,
                          bool composed)
{
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.mask.causal = 1;
    o.mask.align = ATTEND_TOP_LEFT;
    o.scale = 0.25f;
    if (!composed)
        return attend_graph_attention(g, q, k, v, &o, NULL);
    attend_tensor s = attend_graph_scale(g, attend_graph_matmul_nt(g, q, k), o.scale);
    return attend_graph_matmul(g, attend_graph_softmax(g, attend_graph_mask(g, s, &o.mask)), v);
}

static attend_graph *model(attend_ctx *ctx, int64_t most, bool composed)
{
    attend_graph *g = attend_graph_new(ctx);
    int64_t n = attend_graph_dim(g, "tokens", 1, most);
    attend_tensor x = attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(n, WIDE));
    attend_tensor w =
        attend_graph_const(g, "w", ATTEND_F32, ATTEND_SHAPE(WIDE, WIDE), weight, sizeof weight);
    for (int l = 0; l < 2; l++) {
        attend_graph_label(g, l ? "l1" : "the \"first\" \\ \xc3\xa9\n");
        attend_tensor y = attend_graph_rms_norm(g, x, attend_none(), 1e-5f);
        y = look(g, heads(g, y, w), heads(g, y, w), heads(g, y, w), composed);
        y = attend_graph_reshape(g, attend_graph_permute(g, y, (int[]){0, 2, 1, 3}),
                                 ATTEND_SHAPE(n, WIDE));
        x = attend_graph_add(g, x, attend_graph_silu(g, attend_graph_matmul_nt(g, y, w)));
    }
    attend_graph_output(g, "y", x);
    return g;
}

/* ---- variants ---- */

static void variants(attend_ctx *ctx)
{
    static const struct {
        int64_t min, max;
        int count;
        int64_t upto[AT_MAX_VARIANTS];
    } cases[] = {
        {1,    1,              1, {1}                         },
        {0,    1,              1, {1}                         },
        {0,    0,              1, {0}                         },
        {1,    2,              2, {1, 2}                      },
        {1,    16,             2, {1, 16}                     },
        {1,    17,             3, {1, 16, 17}                 },
        {3,    300,            3, {16, 256, 300}              },
        {1,    4096,           4, {1, 16, 256, 4096}          },
        {1000, 1000,           1, {1000}                      },
        {1,    INT64_MAX / 64, 4, {1, 16, 256, INT64_MAX / 64}},
    };
    for (size_t i = 0; i < NELEM(cases); i++) {
        attend_graph *g = attend_graph_new(ctx);
        int64_t n = attend_graph_dim(g, "n", cases[i].min, cases[i].max), from = cases[i].min;
        attend_tensor x = attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(n, 2));
        attend_graph_output(g, "y", attend_graph_tanh(g, x));
        attend_plan *plan = help_compile(g, "simd", 1);
        is_int(plan->nvariant, cases[i].count, "variants of case %d", (int)i);
        bool good = true;
        for (int k = 0; k < plan->nvariant; k++) {
            const struct at_variant *v = &plan->variant[k];
            good = good && v->rows.min == from && v->rows.max == cases[i].upto[k] &&
                   at_plan_variant(plan, v->rows.min) == v &&
                   at_plan_variant(plan, v->rows.max) == v;
            from = v->rows.max + 1;
        }
        ok(good, "their ranges follow each other");
        attend_plan_free(plan);
        attend_graph_free(g);
    }
}

/* ---- memory ---- */

struct life {
    int first, last;
    int64_t from, to;
};

/* Whether temporaries that live at the same step lie apart and in the arena; *most: bytes of all
 * that are alive at once, at worst. */
static bool sound(const attend_plan *plan, const struct at_variant *v, int64_t *most)
{
    const attend_graph *g = plan->graph;
    struct life *life = calloc((size_t)g->ntensor, sizeof *life);
    bool good = life != NULL;
    for (int t = 0; good && t < g->ntensor; t++) {
        life[t].first = -1;
        for (int i = 0; i < v->nstep; i++)
            for (int k = 0; k < v->step[i].nin + v->step[i].nout; k++) {
                const struct at_step *s = &v->step[i];
                int used = k < s->nin ? s->in[k] : s->out[k - s->nin];
                if (used >= 0 && g->tensor[used].root == t) {
                    life[t].first = life[t].first < 0 ? i : life[t].first;
                    life[t].last = i;
                }
            }
        const struct at_tensor *x = &g->tensor[t];
        if (life[t].first < 0 || x->class != AT_TEMP || x->output) {
            life[t].first = -1;
            good = good && v->offset[t] < 0;
            continue;
        }
        int64_t bytes = (int64_t)attend_type_size(x->type);
        for (int d = 0; d < x->rank; d++)
            bytes *= at_plan_range(plan, v->rows, t, d).max;
        life[t].from = v->offset[t];
        life[t].to = v->offset[t] + bytes;
        good = good && v->offset[t] >= 0 && v->offset[t] % AT_ALIGN == 0 && life[t].to <= v->arena;
        for (int u = 0; u < t; u++)
            good = good && (life[u].first < 0 || life[u].last < life[t].first ||
                            life[t].last < life[u].first || life[u].to <= life[t].from ||
                            life[t].to <= life[u].from);
    }
    *most = 0;
    for (int i = 0; good && i < v->nstep; i++) {
        int64_t alive = 0;
        for (int t = 0; t < g->ntensor; t++)
            if (life[t].first >= 0 && life[t].first <= i && i <= life[t].last)
                alive += life[t].to - life[t].from;
        *most = alive > *most ? alive : *most;
    }
    free(life);
    return good;
}

static void memory_of(attend_plan *plan, const char *name)
{
    bool good = true;
    int64_t most;
    for (int i = 0; i < plan->nvariant; i++) {
        good = good && sound(plan, &plan->variant[i], &most) &&
               plan->variant[i].arena <= 2 * most + 4096;
        if (!good)
            diag("variant %d: %lld bytes for %lld", i, (long long)plan->variant[i].arena,
                 (long long)most);
    }
    ok(good, "memory of %s: what lives together lies apart, and little is lost", name);
}

/* Operators on random earlier results, of different sizes. */
static attend_graph *tangle(attend_ctx *ctx, uint64_t r)
{
    attend_graph *g = attend_graph_new(ctx);
    int64_t n = attend_graph_dim(g, "n", 1, 500);
    attend_tensor t[60];
    for (int i = 0; i < 4; i++)
        t[i] = attend_graph_input(g, (const char *[]){"a", "b", "c", "d"}[i], ATTEND_F32,
                                  i % 2 ? ATTEND_SHAPE(n, 7) : ATTEND_SHAPE(1, 7));
    for (int i = 4; i < 60; i++) {
        attend_tensor a = t[help_below(&r, i)], b = t[i - 1 - help_below(&r, 4)];
        switch (help_below(&r, 4)) {
        case 0:
            t[i] = attend_graph_add(g, a, b);
            break;
        case 1:
            t[i] = attend_graph_slice(g, attend_graph_mul(g, a, b), 0, 0, 1);
            break;
        case 2:
            t[i] = attend_graph_cast(g, attend_graph_softmax(g, a), ATTEND_F16);
            break;
        default:
            t[i] = attend_graph_matmul(g, attend_graph_matmul_nt(g, a, t[1]), t[3]);
        }
    }
    for (int i = 50; i < 60; i += 3)
        attend_graph_output(g, (const char *[]){"w", "x", "y", "z"}[(i - 50) / 3], t[i]);
    return g;
}

static void memory(attend_ctx *ctx)
{
    attend_graph *g = model(ctx, 2000, true);
    attend_plan *one = help_compile(g, "simd", 1), *pieces = help_compile(g, "ref", 0);
    memory_of(one, "a model");
    memory_of(pieces, "a model in pieces");
    attend_plan_free(one);
    attend_plan_free(pieces);
    attend_graph_free(g);
    for (uint64_t seed = 0; seed < 8; seed++) {
        g = tangle(ctx, seed);
        attend_plan *plan = help_compile(g, "ref", 1);
        memory_of(plan, "a random graph");
        attend_plan_free(plan);
        attend_graph_free(g);
    }
}

/* No matrix of rows times rows: twice the rows are twice the memory. */
static void linear(attend_ctx *ctx)
{
    int64_t before = 0;
    for (int64_t n = 512; n <= 4096; n *= 2) {
        attend_graph *g = model(ctx, n, true);
        attend_plan *plan = help_compile(g, "simd", 1);
        int64_t arena = attend_plan_arena_bytes(plan, n);
        if (before)
            is_int(arena, 2 * before, "arena of %d rows", (int)n);
        before = arena;
        attend_plan_free(plan);
        attend_graph_free(g);
    }
}

/* ---- composed and fused are the same plan ---- */

static bool same_steps(const attend_plan *a, const attend_plan *b)
{
    bool same = a->nvariant == b->nvariant;
    for (int i = 0; same && i < a->nvariant; i++) {
        const struct at_variant *v = &a->variant[i], *w = &b->variant[i];
        same = v->nstep == w->nstep && v->arena == w->arena && v->scratch == w->scratch &&
               v->state == w->state;
        for (int k = 0; same && k < v->nstep; k++) {
            const struct at_step *s = &v->step[k], *t = &w->step[k];
            same = s->op == t->op && s->row == t->row && s->device == t->device &&
                   s->nout == t->nout && v->offset[s->out[0]] == w->offset[t->out[0]];
            if (same && s->op == AT_ATTENTION)
                same = s->p->attention.scale == t->p->attention.scale &&
                       s->p->attention.softcap == t->p->attention.softcap &&
                       s->p->attention.visible.causal == t->p->attention.visible.causal &&
                       s->p->attention.visible.align == t->p->attention.visible.align;
        }
    }
    return same;
}

static void same_plan(attend_ctx *ctx, const char *device)
{
    attend_graph *g = model(ctx, 300, true), *h = model(ctx, 300, false);
    attend_plan *composed = help_compile(g, device, 1), *fused = help_compile(h, device, 1);
    attend_plan *pieces = help_compile(g, device, 0);
    ok(same_steps(composed, fused), "%s: composed attention is the plan of the fused operator",
       device);
    ok(!same_steps(composed, pieces) &&
           attend_plan_steps(pieces, 300) > attend_plan_steps(fused, 300),
       "%s: in pieces it is another", device);
    attend_plan_free(composed);
    attend_plan_free(fused);
    attend_plan_free(pieces);
    attend_graph_free(g);
    attend_graph_free(h);
}

/* ---- kernels that refused ---- */

static void refusals(attend_ctx *ctx)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor x = attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(3, 4));
    attend_tensor y = attend_graph_input(g, "y", ATTEND_F16, ATTEND_SHAPE(3, 4));
    attend_tensor z = attend_graph_input(g, "z", ATTEND_F32, ATTEND_SHAPE(3, 4, 5));
    z = attend_graph_permute(g, z, (int[]){2, 0, 1}); /* neither rows nor their transposes */
    attend_graph_output(g, "m", attend_graph_matmul_nt(g, z, x));
    attend_graph_output(g, "s", attend_graph_softmax(g, y));
    attend_plan *plan = help_compile(g, "simd", 1);
    char *text = attend_plan_describe(plan, ATTEND_TEXT);
    help_holds(text, "-> ref/ref", "a step that only the reference takes");
    help_holds(text, "(gemm: rows are not contiguous)", "why the product was refused");
    help_holds(text, "(rows: not all tensors are f32 with contiguous rows)", "why softmax was");
    attend_free(text);
    attend_plan_free(plan);
    attend_graph_free(g);
}

/* ---- JSON: a checker that knows the grammar and nothing else; NULL where it is wrong ---- */

static const char *value(const char *p);

static const char *blank(const char *p)
{
    while (p && (*p == ' ' || *p == '\n'))
        p++;
    return p;
}

static const char *string(const char *p)
{
    if (*p++ != '"')
        return NULL;
    for (; *p != '"'; p++) {
        if ((unsigned char)*p < 0x20)
            return NULL;
        if (*p == '\\' && (!*++p || !strchr("\"\\/bfnrtu", *p)))
            return NULL;
    }
    return p + 1;
}

/* Elements between brackets; those of an object begin with their names. */
static const char *list(const char *p, char close)
{
    p = blank(p + 1);
    if (*p == close)
        return p + 1;
    for (;;) {
        if (close == '}') {
            p = blank(string(p));
            if (!p || *p++ != ':')
                return NULL;
        }
        p = blank(value(blank(p)));
        if (!p || (*p != ',' && *p != close))
            return NULL;
        if (*p++ == close)
            return p;
        p = blank(p);
    }
}

static const char *value(const char *p)
{
    char *end;
    if (*p == '{' || *p == '[')
        return list(p, *p == '{' ? '}' : ']');
    if (*p == '"')
        return string(p);
    if (*p != '-' && !isdigit((unsigned char)*p))
        return NULL; /* strtod would take "inf" */
    strtod(p, &end);
    return end;
}

static void printed(attend_ctx *ctx)
{
    static const char *const must[] = {"\"variants\": [",
                                       "\"device\": \"ref\"",
                                       "\"op\": \"attention\"",
                                       "\"arena_bytes\": ",
                                       "\"the \\\"first\\\" \\\\ \xc3\xa9",
                                       "\"notes\": ["};
    attend_graph *g = model(ctx, 100, true);
    attend_plan *plan = help_compile(g, "ref", 1), *pieces = help_compile(g, "ref", 0);
    attend_plan *plans[] = {plan, pieces};
    for (int i = 0; i < 2; i++) {
        char *json = attend_plan_describe(plans[i], ATTEND_JSON);
        const char *end = json ? blank(value(json)) : NULL;
        ok(end && !*end, "JSON of %s is well-formed", i ? "pieces" : "a plan");
        for (size_t k = 0; k < NELEM(must) && i == 0; k++)
            help_holds(json, must[k], "JSON has %s", must[k]);
        attend_free(json);
    }
    char *text = attend_plan_describe(plan, ATTEND_TEXT),
         *dot = attend_plan_describe(plan, ATTEND_DOT);
    help_holds(text, "rows 1 to 1: ", "text has the variants");
    help_holds(text, "fused: matmul <- softmax <- mask <- scale <- matmul <- q, k, v",
               "and fusions");
    ok(dot && !strncmp(dot, "digraph plan {", 14) && strstr(dot, "s0 -> s1") &&
           !strcmp(dot + strlen(dot) - 2, "}\n"),
       "dot has edges");
    attend_free(text);
    attend_free(dot);
    attend_plan_free(plan);
    attend_plan_free(pieces);
    attend_graph_free(g);
}

int main(void)
{
    attend_ctx *ctx = help_context(1);
    variants(ctx);
    memory(ctx);
    linear(ctx);
    same_plan(ctx, "ref");
    same_plan(ctx, "simd");
    refusals(ctx);
    printed(ctx);
    attend_ctx_free(ctx);
    return done_testing();
}
