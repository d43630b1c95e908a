/* SPDX-License-Identifier: MIT */
/* The gradient of every operator, on every device.  Against finite differences: for L = sum w y and
 * steps d, L(x + h d) - L(x - h d) is the gradient times the difference of the two points, which
 * are exact, but for what is left of the third order (seen by halving h) and the rounding of y. And
 * every device against the reference. */
#include "backend.h"
#include "graph_help.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_IN 12
#define MAX_OUT 3
#define MAX_SIZE 4096

static attend_ctx *ctx;

/* A graph being made: float inputs that are differentiated, then the outputs. */
struct made {
    attend_graph *g;
    uint64_t draw;
    attend_tensor in[MAX_IN], out[MAX_OUT];
    int nin, nout;
};
struct values {
    float in[MAX_IN][MAX_SIZE], out[MAX_OUT][MAX_SIZE], grad[MAX_IN][MAX_SIZE];
};
static struct values base, low, high, other;
static float seeds[MAX_OUT][MAX_SIZE];

static int64_t size_of(attend_tensor t)
{
    attend_shape s = attend_tensor_shape(t);
    int64_t n = 1;
    for (int d = 0; d < s.rank; d++)
        n *= s.dim[d];
    return n;
}

static attend_tensor in(struct made *m, attend_shape shape)
{
    char name[8];
    snprintf(name, sizeof name, "x%d", m->nin);
    return m->in[m->nin++] = attend_graph_input(m->g, name, ATTEND_F32, shape);
}

static void out(struct made *m, attend_tensor t)
{
    m->out[m->nout++] = t;
}

static attend_tensor ints(struct made *m, attend_shape shape, const int32_t *data)
{
    int64_t n = 1;
    for (int d = 0; d < shape.rank; d++)
        n *= shape.dim[d];
    return attend_graph_const(m->g, "ints", ATTEND_I32, shape, data, n * (int64_t)sizeof *data);
}

static attend_tensor bools(struct made *m, attend_shape shape)
{
    static uint8_t data[MAX_SIZE];
    int64_t n = 1;
    uint64_t draw = 5;
    for (int d = 0; d < shape.rank; d++)
        n *= shape.dim[d];
    for (int64_t i = 0; i < n; i++)
        data[i] = help_below(&draw, 3) > 0;
    return attend_graph_const(m->g, "bools", ATTEND_BOOL, shape, data, n);
}

/* ---- the cases ---- */

#define S ATTEND_SHAPE

static void matmul(struct made *m)
{
    attend_tensor a = in(m, S(2, 3, 7, 5)), b = in(m, S(3, 5, 9));
    out(m, attend_graph_matmul(m->g, a, b));
}
static void matmul_nt(struct made *m)
{
    attend_tensor a = in(m, S(2, 3, 7, 20)), b = in(m, S(33, 20));
    out(m, attend_graph_matmul_nt(m->g, a, b));
}
static void matmul_weights(struct made *m)
{
    attend_tensor a = in(m, S(40, 20)), b = in(m, S(20, 33));
    out(m, attend_graph_matmul(m->g, a, b));
}
static void matmul_views(struct made *m)
{
    attend_tensor a = in(m, S(2, 6, 3, 4)), b = in(m, S(2, 3, 5, 4));
    a = attend_graph_permute(m->g, a, (int[]){0, 2, 1, 3});
    out(m, attend_graph_matmul_nt(m->g, a, b));
}
static void broadcasts(struct made *m)
{
    attend_tensor a = in(m, S(3, 1, 5)), b = in(m, S(4, 1)), c = in(m, S(5)), d = in(m, S(3, 4, 5));
    out(m, attend_graph_mul(m->g, attend_graph_add(m->g, a, b), attend_graph_add(m->g, d, c)));
    out(m, attend_graph_scale(m->g, attend_graph_mul(m->g, a, a), -1.5f));
}
static void choices(struct made *m)
{
    attend_tensor a = in(m, S(3, 4, 5)), b = in(m, S(4, 1)), cond = bools(m, S(3, 1, 5));
    out(m, attend_graph_where(m->g, cond, a, 2));
    out(m, attend_graph_select(m->g, cond, b, a));
}
static void functions(struct made *m)
{
    attend_tensor a = in(m, S(2, 37)), b = attend_graph_silu(m->g, a);
    b = attend_graph_add(m->g, b, attend_graph_gelu(m->g, a));
    b = attend_graph_add(m->g, b, attend_graph_scale(m->g, attend_graph_gelu_tanh(m->g, a), 2));
    out(m, b);
}
static void functions2(struct made *m)
{
    attend_tensor a = in(m, S(2, 37)), b = attend_graph_tanh(m->g, a);
    b = attend_graph_add(m->g, b, attend_graph_scale(m->g, attend_graph_sigmoid(m->g, a), 3));
    out(m, attend_graph_add(m->g, b, attend_graph_erf(m->g, a)));
}
/* The argument is far from the corner, and from 0. */
static void functions3(struct made *m)
{
    attend_tensor a = in(m, S(2, 37)),
                  two = attend_graph_scale(m->g, attend_graph_sigmoid(m->g, a), 2);
    out(m, attend_graph_pow(m->g, two, -1.5f));
    out(m, attend_graph_add(m->g, attend_graph_relu(m->g, two),
                            attend_graph_relu(m->g, attend_graph_scale(m->g, two, -1))));
}
static void softmax(struct made *m)
{
    out(m, attend_graph_softmax(m->g, in(m, S(3, 2, 11))));
}
static void norms(struct made *m)
{
    attend_tensor a = in(m, S(2, 3, 19)), w = in(m, S(19)), w2 = in(m, S(19)), b = in(m, S(19));
    out(m, attend_graph_rms_norm(m->g, a, w, 1e-3f));
    out(m, attend_graph_layer_norm(m->g, a, w2, b, 1e-3f));
    out(m, attend_graph_layer_norm(m->g, a, attend_none(), attend_none(), 1e-3f));
}
static const int32_t positions[] = {3, 0, 7, 11, 2, 1, 5, 6};
static void rope(struct made *m)
{
    attend_rope_opts o;
    attend_rope_opts_init(&o);
    attend_tensor a = in(m, S(2, 2, 4, 10)), pos = ints(m, S(2, 4), positions);
    o.pairing = ATTEND_ROPE_HALF;
    o.dims = 6;
    out(m, attend_graph_rope(m->g, a, pos, &o));
    o.pairing = ATTEND_ROPE_INTERLEAVED;
    out(m, attend_graph_rope(m->g, a, pos, &o));
}
static void gather(struct made *m)
{
    static const int32_t index[] = {2, 0, 2, 4, 2, 3};
    out(m, attend_graph_gather(m->g, in(m, S(6, 9)), ints(m, S(2, 3), index)));
}
static void concat(struct made *m)
{
    attend_tensor a = in(m, S(2, 3, 5)), b = in(m, S(2, 2, 5)), part[] = {a, b, a};
    out(m, attend_graph_concat(m->g, part, 3, 1));
}
static void views(struct made *m)
{
    attend_tensor a = in(m, S(2, 6, 5)), b = attend_graph_permute(m->g, a, (int[]){2, 0, 1});
    b = attend_graph_reshape(m->g, attend_graph_slice(m->g, b, 0, 1, 3), S(3, 2, 3, 1, 2));
    b = attend_graph_expand(m->g, b, S(3, 2, 3, 4, 2));
    out(m, attend_graph_slice(m->g, b, 3, 1, 2));
    out(m, attend_graph_slice(m->g, a, 2, 2, 3));
}
/* Of a tensor: end to end and out of order, with one more reader; some only; overlapping; of two
 * axes. */
static void slices(struct made *m)
{
    attend_graph *g = m->g;
    attend_tensor a = in(m, S(2, 3, 7)), b = attend_graph_tanh(g, a), c = in(m, S(5, 4));
    attend_tensor last = attend_graph_slice(g, b, 2, 5, 2), mid = attend_graph_slice(g, b, 2, 2, 3);
    out(m, attend_graph_mul(g, attend_graph_slice(g, b, 2, 0, 2), last));
    out(m, attend_graph_add(g, mid, attend_graph_slice(g, a, 2, 1, 3)));
    attend_tensor x =
        attend_graph_mul(g, attend_graph_slice(g, c, 0, 0, 3), attend_graph_slice(g, c, 0, 2, 3));
    x = attend_graph_add(g, attend_graph_slice(g, x, 1, 0, 2), attend_graph_slice(g, x, 1, 2, 2));
    out(m,
        attend_graph_mul(g, attend_graph_slice(g, x, 0, 0, 2), attend_graph_slice(g, x, 0, 1, 2)));
}
static void sums(struct made *m)
{
    attend_tensor a = in(m, S(3, 4, 5));
    out(m, attend_graph_sum(m->g, a, S(4, 1)));
    out(m, attend_graph_mean(m->g, a, S(5)));
    out(m, attend_graph_mean(m->g, attend_graph_mul(m->g, a, a), (attend_shape){0}));
}
static void cross_entropy(struct made *m)
{
    static const int32_t target[] = {0, 4, -1, 6, 2, -1};
    out(m, attend_graph_cross_entropy(m->g, in(m, S(2, 3, 7)), ints(m, S(2, 3), target)));
}
static void square_loss(struct made *m)
{
    attend_tensor a = in(m, S(3, 7)), b = in(m, S(3, 7));
    out(m, attend_graph_square_loss(m->g, a, b));
}
static void twice(struct made *m) /* an input that is an output's input too, by two ways */
{
    attend_tensor a = in(m, S(3, 4)), b = attend_graph_tanh(m->g, a);
    out(m, attend_graph_mul(m->g, b, attend_graph_add(m->g, b, a)));
    out(m, b);
}

/* Scores with a mask whose weights are an output, so nothing is fused. */
static void mask(struct made *m)
{
    attend_mask_opts o;
    attend_mask_opts_init(&o);
    attend_tensor s = in(m, S(2, 2, 5, 6));
    o.causal = 1;
    o.align = ATTEND_BOTTOM_RIGHT;
    o.mask = in(m, S(5, 6));
    out(m, attend_graph_softmax(m->g, attend_graph_mask(m->g, s, &o)));
}
static void merge(struct made *m)
{
    attend_tensor lse, o1 = in(m, S(2, 3, 5)), l1 = in(m, S(2, 3)), o2 = in(m, S(2, 3, 5)),
                       l2 = in(m, S(2, 3));
    out(m, attend_graph_merge(m->g, o1, l1, o2, l2, &lse));
    out(m, lse);
}

static void attend(struct made *m, const attend_attention_opts *o, int64_t nq, int64_t nk,
                   int64_t dk, int64_t dv)
{
    attend_tensor lse, q = in(m, S(2, 4, nq, dk)), k = in(m, S(2, 2, nk, dk)),
                       v = in(m, S(2, 2, nk, dv));
    out(m, attend_graph_attention(m->g, q, k, v, o, &lse));
    out(m, lse);
}
static attend_attention_opts options(void)
{
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    return o;
}
static void attention(struct made *m)
{
    attend(m, NULL, 5, 7, 6, 6);
}
static void attention_causal(struct made *m)
{
    attend_attention_opts o = options();
    o.mask.causal = 1;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    attend(m, &o, 9, 13, 5, 3);
}
static void attention_window(struct made *m)
{
    attend_attention_opts o = options();
    o.mask.window_left = 3;
    o.mask.window_right = 1;
    o.mask.align = ATTEND_TOP_LEFT;
    o.softcap = 2;
    o.scale = 0.7f;
    attend(m, &o, 9, 13, 5, 3);
}
static void attention_bias(struct made *m)
{
    attend_attention_opts o = options();
    o.mask.mask = in(m, S(4, 1, 7));
    o.alibi = in(m, S(4));
    o.sinks = in(m, S(4));
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    attend(m, &o, 5, 7, 6, 6);
}
static void attention_bias_full(struct made *m)
{
    attend_attention_opts o = options();
    o.mask.mask = in(m, S(2, 4, 5, 7));
    o.scale = -0.5f;
    attend(m, &o, 5, 7, 6, 6);
}
static void attention_hidden(struct made *m) /* LSE may be -inf, so it is no output */
{
    attend_attention_opts o = options();
    o.mask.mask = bools(m, S(2, 1, 9, 5));
    o.mask.causal = 1;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    attend(m, &o, 9, 5, 6, 6);
    m->nout = 1;
}
static void attention_dropout(struct made *m)
{
    attend_attention_opts o = options();
    o.dropout = 0.3f;
    o.seed = 12;
    attend(m, &o, 5, 7, 6, 6);
}
static void attention_packed(struct made *m)
{
    static const int32_t rows[] = {0, 3, 3, 8}, keys[] = {0, 4, 6, 11};
    attend_tensor lse;
    attend_attention_opts o = options();
    o.q_lens = ints(m, S(4), rows);
    o.kv_lens = ints(m, S(4), keys);
    o.mask.causal = 1;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    attend_tensor q = in(m, S(9, 4, 6)), k = in(m, S(12, 2, 6)), v = in(m, S(12, 2, 5));
    out(m, attend_graph_attention(m->g, q, k, v, &o, &lse));
}
static void attention_score(struct made *m)
{
    attend_attention_opts o = options();
    attend_capture c[] = {
        {"bias", in(m, S(4,   9))},
        {"gain",      in(m,     S(4))}
    };
    o.captures = c;
    o.ncaptures = 2;
    o.score = "score * (1 + 0.5 * tanh(gain[h])) + bias[h, i - j + 4] * bias[0, j % 3]";
    o.mask_expr = "j != 2 || i < 3";
    attend(m, &o, 5, 7, 6, 6);
}
/* Packed; a gain beyond its extent, and a tensor that is read elsewhere only. */
static void attention_score_packed(struct made *m)
{
    static const int32_t rows[] = {0, 3, 3, 8}, keys[] = {0, 4, 6, 11};
    attend_attention_opts o = options();
    attend_capture c[] = {
        {"gain",  in(m, S(3))},
        {"other", in(m, S(2))}
    };
    o.captures = c;
    o.ncaptures = 2;
    o.score = "score + gain[h] * score + gain[j - 1]";
    o.q_lens = ints(m, S(4), rows);
    o.kv_lens = ints(m, S(4), keys);
    attend_tensor q = in(m, S(9, 4, 6)), k = in(m, S(12, 2, 6)), v = in(m, S(12, 2, 5));
    out(m, attend_graph_attention(m->g, q, k, v, &o, NULL));
    out(m, attend_graph_tanh(m->g, c[1].tensor));
}
static void attention_additive(struct made *m)
{
    attend_tensor q = in(m, S(2, 5, 6)), k = in(m, S(2, 7, 4)), v = in(m, S(2, 7, 3));
    attend_tensor wq = in(m, S(8, 6)), wk = in(m, S(8, 4)), va = in(m, S(8)), lse;
    out(m, attend_graph_additive_attention(m->g, q, k, v, wq, wk, va, NULL, &lse));
    out(m, lse);
}
static void attention_wide(struct made *m)
{
    attend_tensor q = in(m, S(1, 1, 3, 300)), k = in(m, S(1, 1, 4, 300)),
                  v = in(m, S(1, 1, 4, 290));
    out(m, attend_graph_attention(m->g, q, k, v, NULL, NULL));
}
/* Views on both sides, as layers have them. */
static void layer(struct made *m)
{
    attend_multi_head_opts o;
    attend_attention_opts a = options();
    attend_multi_head_opts_init(&o);
    attend_tensor x = in(m, S(2, 5, 12));
    o.heads = 4;
    o.kv_heads = 2;
    o.wqkv = in(m, S(24, 12));
    o.bqkv = in(m, S(24));
    o.wo = in(m, S(12, 12));
    a.mask.causal = 1;
    a.mask.align = ATTEND_TOP_LEFT;
    o.attention = &a;
    out(m, attend_graph_multi_head(m->g, x, attend_none(), &o, NULL));
}
static attend_tensor composed_of(struct made *m, attend_tensor weights[1])
{
    attend_mask_opts o;
    attend_mask_opts_init(&o);
    o.causal = 1;
    o.align = ATTEND_BOTTOM_RIGHT;
    o.mask = in(m, S(5, 7));
    attend_tensor q = in(m, S(2, 4, 5, 6)), k = in(m, S(2, 4, 7, 6)), v = in(m, S(2, 4, 7, 3));
    attend_tensor s = attend_graph_scale(m->g, attend_graph_matmul_nt(m->g, q, k), 0.4f);
    s = attend_graph_scale(m->g, attend_graph_tanh(m->g, attend_graph_scale(m->g, s, 0.5f)), 2);
    weights[0] = attend_graph_softmax(m->g, attend_graph_mask(m->g, s, &o));
    return attend_graph_matmul(m->g, weights[0], v);
}
static void composed(struct made *m)
{
    attend_tensor weights;
    out(m, composed_of(m, &weights));
}
static void composed_unfused(struct made *m) /* a second reader of the weights */
{
    attend_tensor weights, o = composed_of(m, &weights);
    out(m, o);
    out(m, weights);
}

static const struct {
    const char *name;
    void (*build)(struct made *m);
} cases[] = {
#define CASE(name)                                                                                 \
    {                                                                                              \
#        name, name                                                                                \
    }
    CASE(matmul),
    CASE(matmul_nt),
    CASE(matmul_weights),
    CASE(matmul_views),
    CASE(broadcasts),
    CASE(choices),
    CASE(functions),
    CASE(functions2),
    CASE(functions3),
    CASE(softmax),
    CASE(norms),
    CASE(rope),
    CASE(gather),
    CASE(concat),
    CASE(views),
    CASE(slices),
    CASE(sums),
    CASE(cross_entropy),
    CASE(square_loss),
    CASE(twice),
    CASE(mask),
    CASE(merge),
    CASE(attention),
    CASE(attention_causal),
    CASE(attention_window),
    CASE(attention_bias),
    CASE(attention_bias_full),
    CASE(attention_hidden),
    CASE(attention_dropout),
    CASE(attention_packed),
    CASE(attention_score),
    CASE(attention_score_packed),
    CASE(attention_additive),
    CASE(attention_wide),
    CASE(layer),
    CASE(composed),
    CASE(composed_unfused),
#undef CASE
};

/* ---- running them ---- */

/* Steps that a device leaves to the host; their names. */
static int hosted;
static char host_names[160];

static void look_for_host(const attend_plan *plan)
{
    const struct at_variant *v = &plan->variant[0];
    hosted = 0;
    host_names[0] = 0;
    for (int i = 0; i < v->nstep && plan->device->memory; i++) {
        if (v->step[i].device->memory)
            continue;
        size_t n = strlen(host_names);
        hosted++;
        snprintf(host_names + n, sizeof host_names - n, " %s", at_ops[v->step[i].op].name);
    }
}

/* Values of the outputs at v->in; and gradients, where opts are given. */
static void run(void (*build)(struct made *), const char *device, struct values *v,
                const attend_grad_opts *opts)
{
    struct made m = {.g = attend_graph_new(ctx)};
    attend_binding bind[2 * MAX_IN + 2 * MAX_OUT];
    /* clang-format off */
    static const char *const names[][MAX_IN] = {
        {"x0",  "x1", "x2",           "x3", "x4", "x5", "x6", "x7", "x8"},
        {"y0",  "y1", "y2"          },
        {"s0", "s1", "s2"},
        {"g0",      "g1",           "g2",                          "g3",     "g4",      "g5",      "g6",      "g7",          "g8"          }
    };
    /* clang-format on */
    attend_tensor seed[MAX_OUT], grad[MAX_IN];
    attend_exec *x;
    int n = 0;
    build(&m);
    for (int k = 0; k < m.nin; k++)
        bind[n++] = (attend_binding){names[0][k], v->in[k], size_of(m.in[k]) * 4, NULL, 0, 0};
    for (int k = 0; k < m.nout; k++) {
        seed[k] =
            opts ? attend_graph_input(m.g, names[2][k], ATTEND_F32, attend_tensor_shape(m.out[k]))
                 : attend_none();
        if (opts)
            bind[n++] = (attend_binding){names[2][k], seeds[k], size_of(m.out[k]) * 4, NULL, 0, 0};
        else
            attend_graph_output(m.g, names[1][k], m.out[k]);
        if (!opts)
            bind[n++] = (attend_binding){names[1][k], v->out[k], size_of(m.out[k]) * 4, NULL, 0, 0};
    }
    if (opts && attend_grad(m.g, m.out, seed, m.nout, m.in, m.nin, grad, opts) < 0)
        bail("attend_grad: %s", attend_graph_error(m.g));
    for (int k = 0; opts && k < m.nin; k++) {
        attend_graph_output(m.g, names[3][k], grad[k]);
        bind[n++] = (attend_binding){names[3][k], v->grad[k], size_of(m.in[k]) * 4, NULL, 0, 0};
    }
    attend_plan *plan = help_compile(m.g, device, 1);
    look_for_host(plan);
    if (attend_exec_new(plan, &x) < 0 || attend_bind(x, bind, n) < 0 || attend_run(x) < 0)
        bail("%s: %s", device, attend_exec_error(x));
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_graph_free(m.g);
}

static int64_t sizes[MAX_IN], out_sizes[MAX_OUT];
static int nin, nout;

static void measure(void (*build)(struct made *))
{
    struct made m = {.g = attend_graph_new(ctx)};
    build(&m);
    if (attend_graph_status(m.g) < 0)
        bail("%s", attend_graph_error(m.g));
    nin = m.nin;
    nout = m.nout;
    for (int k = 0; k < nin; k++)
        sizes[k] = size_of(m.in[k]);
    for (int k = 0; k < nout; k++)
        out_sizes[k] = size_of(m.out[k]);
    attend_graph_free(m.g);
}

/* (L(x + h d) - L(x - h d)) - grad . (2 h d), over h, for input k; *noise: what rounding y may add.
 */
static double slope_error(void (*build)(struct made *), int k, const float *d, double h,
                          double *noise)
{
    double by_grad = 0, by_values = 0;
    low = high = base;
    *noise = 0;
    for (int64_t i = 0; i < sizes[k]; i++) {
        low.in[k][i] = (float)((double)base.in[k][i] - h * (double)d[i]);
        high.in[k][i] = (float)((double)base.in[k][i] + h * (double)d[i]);
        by_grad += (double)base.grad[k][i] * ((double)high.in[k][i] - (double)low.in[k][i]);
    }
    run(build, "ref", &low, NULL);
    run(build, "ref", &high, NULL);
    for (int y = 0; y < nout; y++)
        for (int64_t i = 0; i < out_sizes[y]; i++) {
            double s = (double)seeds[y][i];
            by_values += s * ((double)high.out[y][i] - (double)low.out[y][i]);
            *noise += fabs(s * (double)high.out[y][i]) * 0x1p-23;
        }
    *noise /= h;
    return (by_values - by_grad) / h;
}

/* Halving h divides what is left of the third order by 4, so it is at most 4/3 of the change; steps
 * between temporaries round as y does, a dozen of them. */
static void check_differences(int c)
{
    float d[MAX_SIZE];
    uint64_t draw = 99;
    for (int k = 0; k < nin; k++) {
        double noise, n2, norm = 0;
        help_normal(&draw, d, sizes[k]);
        double one = slope_error(cases[c].build, k, d, 0.02, &n2);
        double two = slope_error(cases[c].build, k, d, 0.01, &noise);
        for (int64_t i = 0; i < sizes[k]; i++)
            norm += fabs((double)base.grad[k][i] * (double)d[i]);
        double bound = 1.5 * fabs(one - two) + 12 * noise + norm * 0x1p-21;
        ok(fabs(two) <= bound, "%s: input %d by differences", cases[c].name, k);
        if (!(fabs(two) <= bound))
            diag("off by %g, bound %g, sum |g d| %g", two, bound, norm);
    }
}

/* How far gradients go where every input moves by 8 units of f32, one way or the other: as much as
 * the roundings between it and them may do, where sums cancel or exponents are large. */
static double moved[MAX_IN];

static void measure_moves(int c, const attend_grad_opts *opts)
{
    uint64_t draw = 1000 + (uint64_t)c;
    other = base;
    for (int k = 0; k < nin; k++)
        for (int64_t i = 0; i < sizes[k]; i++)
            other.in[k][i] *= help_below(&draw, 2) ? 1 - 0x1p-21f : 1 + 0x1p-21f;
    run(cases[c].build, "ref", &other, opts);
    for (int k = 0; k < nin; k++) {
        moved[k] = 0;
        for (int64_t i = 0; i < sizes[k]; i++)
            moved[k] = fmax(moved[k], fabs((double)other.grad[k][i] - (double)base.grad[k][i]));
    }
}

/* Sums of up to a few hundred terms in f32: each of them rounded, no larger than the largest
 * gradient times their number allows; of terms that are off themselves. */
static void check_device(int c, const char *device, const attend_grad_opts *opts, const char *what)
{
    other = base;
    memset(other.grad, 0x7f, sizeof other.grad);
    run(cases[c].build, device, &other, opts);
    for (int k = 0; k < nin; k++) {
        double most = 0, worst = 0;
        for (int64_t i = 0; i < sizes[k]; i++) {
            double e = fabs((double)other.grad[k][i] - (double)base.grad[k][i]);
            most = fmax(most, fabs((double)base.grad[k][i]));
            worst = e > worst || isnan(e) ? e : worst;
        }
        if (!ok(worst <= 64 * 0x1p-24 * most + moved[k] + 1e-6, "%s %s: input %d%s", cases[c].name,
                device, k, what))
            diag("off by %g of %g", worst, most);
    }
}

static void check_case(int c)
{
    attend_device_info info;
    attend_grad_opts opts, apart, again;
    attend_grad_opts_init(&opts);
    attend_grad_opts_init(&apart);
    attend_grad_opts_init(&again);
    apart.fuse = 0;
    again.recompute = 1;
    measure(cases[c].build);
    uint64_t draw = (uint64_t)c;
    for (int k = 0; k < nin; k++)
        help_normal(&draw, base.in[k], sizes[k]);
    for (int k = 0; k < nout; k++)
        help_normal(&draw, seeds[k], out_sizes[k]);
    run(cases[c].build, "ref", &base, &opts);
    check_differences(c);
    measure_moves(c, &opts);
    check_device(c, "ref", &apart, ", nothing fused");
    for (int i = 1; i < attend_device_count(ctx); i++)
        if (attend_device_get(ctx, i, &info) == 0 && info.present) {
            check_device(c, info.name, &opts, "");
            if (!ok(hosted == 0, "%s %s: nothing is left to the host", cases[c].name, info.name))
                diag("on the host:%s", host_names);
        }
    low = other = base;
    run(cases[c].build, "auto", &other, &opts);
    run(cases[c].build, "auto", &low, &again);
    ok(memcmp(low.grad, other.grad, sizeof low.grad) == 0, "%s: the same bits when recomputed",
       cases[c].name);
}

/* ---- what is refused, and by which words ---- */

/* Attention whose keys are of a type, in pages or not; or its weights.  What attend_grad says. */
static void refused_attention(attend_type type, bool paged, bool weights, const char *words)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts o = options();
    attend_tensor grad, lse, q = attend_graph_input(g, "q", ATTEND_F32, S(1, 2, 3, 32));
    attend_tensor k = attend_graph_input(g, "k", type, S(1, 2, 4, 32)),
                  v = attend_graph_input(g, "v", type, S(1, 2, 4, 32));
    if (paged) {
        o.block_table = attend_graph_input(g, "table", ATTEND_I32, S(1, 2));
        o.mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, S(1));
    }
    attend_graph_label(g, "l0");
    attend_tensor out = attend_graph_attention(g, q, k, v, &o, &lse);
    if (weights)
        out = attend_graph_attention_weights(g, q, k, lse, &o, NULL, NULL);
    attend_tensor sum = attend_graph_sum(g, out, (attend_shape){0});
    is_int(attend_grad(g, &sum, NULL, 1, &q, 1, &grad, NULL), ATTEND_EUNSUPPORTED, "%s", words);
    is_str(attend_graph_error(g), words, "in these words");
    attend_graph_free(g);
}

static void refusals(void)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor grad;
    attend_tensor pool = attend_graph_state(g, "pool", ATTEND_F32, S(2, 1, 4, 8));
    attend_tensor rows = attend_graph_input(g, "rows", ATTEND_F32, S(1, 1, 3, 8));
    attend_graph_label(g, "cache");
    attend_tensor next =
        attend_graph_append(g, pool, rows, attend_graph_input(g, "slots", ATTEND_I32, S(1, 3)));
    attend_tensor sum = attend_graph_sum(g, next, (attend_shape){0});
    is_int(attend_grad(g, &sum, NULL, 1, &rows, 1, &grad, NULL), ATTEND_EUNSUPPORTED,
           "through a state");
    is_str(attend_graph_error(g),
           "append 'cache': no gradient: a state that was written is behind it", "in these words");
    attend_graph_free(g);
    g = attend_graph_new(ctx);
    rows = attend_graph_input(g, "rows", ATTEND_F32, S(3));
    is_int(attend_grad(g, &rows, NULL, 1, &rows, 1, &grad, NULL), ATTEND_EINVAL, "no seed");
    attend_graph_free(g);
    g = attend_graph_new(ctx);
    rows = attend_graph_input(g, "rows", ATTEND_F32, S(3));
    attend_tensor index = attend_graph_input(g, "index", ATTEND_I32, S(3));
    sum = attend_graph_sum(g, rows, (attend_shape){0});
    is_int(attend_grad(g, &sum, NULL, 1, &index, 1, &grad, NULL), ATTEND_EINVAL,
           "an integer input");
    attend_graph_free(g);
    refused_attention(ATTEND_F32, true, false,
                      "attention 'l0': no gradient: its keys are pages of a cache");
    refused_attention(ATTEND_Q8_0, false, false,
                      "attention 'l0': no gradient: its keys are quantised");
    refused_attention(ATTEND_F8, false, false,
                      "attention 'l0': no gradient: its keys are quantised");
    refused_attention(ATTEND_F32, false, true, "weights 'l0': no gradient: the operator has none");
}

/* t/700-grad.t NAME...: these cases alone. */
static bool asked(int argc, char **argv, const char *name)
{
    bool any = false;
    for (int i = 1; i < argc; i++)
        any = any || !strcmp(argv[i], name);
    return any;
}

#ifdef FEW /* where each instruction is emulated */
static const char *few[] = {"",
                            "functions",
                            "functions3",
                            "softmax",
                            "norms",
                            "gather",
                            "views",
                            "sums",
                            "cross_entropy",
                            "square_loss",
                            "attention_bias",
                            "attention_packed",
                            "attention_dropout",
                            "attention_additive",
                            "attention_score"};
#endif

int main(int argc, char **argv)
{
    int left = 0;
#ifdef FEW
    argv = argc < 2 ? (char **)(uintptr_t)few : argv;
    argc = argc < 2 ? AT_LEN(few) : argc;
#endif
    ctx = help_context(2);
    for (int c = 0; c < AT_LEN(cases); c++)
        if (argc < 2 || asked(argc, argv, cases[c].name))
            check_case(c);
        else
            left++;
    if (left > 0)
        skip("%d cases were not asked for", left);
    refusals();
    attend_ctx_free(ctx);
    return done_testing();
}
