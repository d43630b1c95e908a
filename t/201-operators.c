/* SPDX-License-Identifier: MIT */
/* Every operator on every device, against values worked out by hand. */
#include "attend.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WANT(...)                                                                                  \
    (const float[])                                                                                \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static attend_ctx *ctx;
static const char *device;

/* ---- one graph at a time: inputs by appearance, one output ---- */

static attend_graph *g;
static attend_binding bind[10];
static int nbind;

static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};

static void begin(void)
{
    g = attend_graph_new(ctx);
    nbind = 0;
    if (!g)
        bail("no memory");
}

static int64_t bytes_of(attend_type type, attend_shape s)
{
    int64_t n =
        s.rank ? attend_type_row_bytes(type, s.dim[s.rank - 1]) : attend_type_row_bytes(type, 1);
    for (int d = 0; d + 1 < s.rank; d++)
        n *= s.dim[d];
    return n;
}

static attend_tensor add_bind(attend_tensor t, attend_type type, attend_shape shape,
                              const void *data)
{
    bind[nbind] = (attend_binding){
        .name = names[nbind], .data = (void *)(uintptr_t)data, .bytes = bytes_of(type, shape)};
    nbind++;
    return t;
}

static attend_tensor input(attend_type type, attend_shape shape, const void *data)
{
    return add_bind(attend_graph_input(g, names[nbind], type, shape), type, shape, data);
}

static attend_tensor state(attend_type type, attend_shape shape, void *data)
{
    return add_bind(attend_graph_state(g, names[nbind], type, shape), type, shape, data);
}

static attend_tensor floats(attend_shape shape, const float *data)
{
    return input(ATTEND_F32, shape, data);
}

/* Compiles for the device, binds y (NULL: nothing) and runs; the sentence of a failure in err. */
static int run(void *y, int64_t bytes, char err[320])
{
    attend_compile_opts opts;
    attend_plan *plan = NULL;
    attend_exec *exec = NULL;
    attend_compile_opts_init(&opts);
    opts.device = device;
    bind[nbind] = (attend_binding){.name = "y", .data = y, .bytes = bytes};
    int status = attend_compile(g, &opts, &plan);
    strcpy(err, attend_graph_error(g));
    if (status == 0)
        status = attend_exec_new(plan, &exec);
    if (status == 0)
        status = attend_bind(exec, bind, nbind + (y != NULL));
    if (status == 0)
        status = attend_run(exec);
    if (exec)
        strcpy(err, attend_exec_error(exec));
    attend_exec_free(exec);
    attend_plan_free(plan);
    attend_graph_free(g);
    return status;
}

/* The elements of t, an f32 tensor, are within |want| * 4e-7 + bound of what they should be. */
static void is_tensor(attend_tensor t, const float *want, double bound, const char *name)
{
    float y[4096];
    char err[320];
    attend_shape s = attend_tensor_shape(t);
    int64_t bytes = bytes_of(ATTEND_F32, s), wrong = -1;
    attend_graph_output(g, "y", t);
    memset(y, 0xff, sizeof y);
    int status = bytes > (int64_t)sizeof y ? ATTEND_ELIMIT : run(y, bytes, err);
    for (int64_t k = 0; k < bytes / 4 && status == 0 && wrong < 0; k++) {
        double off = fabs((double)y[k] - (double)want[k]);
        if (y[k] != want[k] && !(off <= fabs((double)want[k]) * 4e-7 + bound))
            wrong = k;
    }
    if (!ok(status == 0 && wrong < 0, "%s on %s", name, device)) {
        diag("status %d: %s", status, err);
        if (wrong >= 0)
            diag("element %d is %g, wants %g", (int)wrong, (double)y[wrong], (double)want[wrong]);
    }
}

/* The run, or the bind before it, is refused with a sentence that has all of this in it. */
static void is_refused(attend_tensor t, const char *says, const char *name)
{
    float y[4096];
    char err[320] = "";
    attend_graph_output(g, "y", t);
    is_int(run(y, bytes_of(ATTEND_F32, attend_tensor_shape(t)), err), ATTEND_EINVAL, "%s on %s",
           name, device);
    ok(strstr(err, says) != NULL, "says \"%s\": %s", says, err);
}

/* ---- products ---- */

static void test_matmul(void)
{
    static const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 0, 0, 1, 1, 1},
                       bt[] = {1, 0, 1, 0, 1, 1};
    begin();
    is_tensor(attend_graph_matmul(g, floats(ATTEND_SHAPE(2, 3), a), floats(ATTEND_SHAPE(3, 2), b)),
              WANT(4, 5, 10, 11), 0, "matmul");
    begin();
    is_tensor(
        attend_graph_matmul_nt(g, floats(ATTEND_SHAPE(2, 3), a), floats(ATTEND_SHAPE(2, 3), bt)),
        WANT(4, 5, 10, 11), 0, "matmul_nt");
    begin();
    is_tensor(attend_graph_matmul_nt(g, floats(ATTEND_SHAPE(2, 1, 3), a),
                                     floats(ATTEND_SHAPE(1, 2, 3), bt)),
              WANT(4, 5, 10, 11), 0, "matmul_nt with broadcast batches");
    begin();
    const int perm[] = {1, 0};
    attend_tensor t = attend_graph_permute(g, floats(ATTEND_SHAPE(2, 3), bt), perm);
    is_tensor(attend_graph_matmul(g, floats(ATTEND_SHAPE(2, 3), a), t), WANT(4, 5, 10, 11), 0,
              "matmul with a transposed view");
}

/* More than one block of rows and columns, in every type of weight: small integers, exact. */
static void test_matmul_types(void)
{
    enum { M = 37, N = 70, K = 64 };
    static const attend_type types[] = {ATTEND_F32,  ATTEND_F16,  ATTEND_BF16,
                                        ATTEND_Q8_0, ATTEND_Q4_0, ATTEND_Q4_1};
    static float a[M * K], b[N * K], back[N * K], want[M * N];
    static uint16_t w[2 * N * K];
    for (int e = 0; e < M * K; e++)
        a[e] = (float)(e * 7 % 11 - 5);
    for (int e = 0; e < N * K; e++)
        b[e] = e % 32 == 0 ? -8 : (float)(e * 5 % 13 - 6); /* the extreme value sets the scale */
    for (size_t t = 0; t < NELEM(types); t++) {
        if (attend_convert(types[t], w, ATTEND_F32, b, N * K) < 0 ||
            attend_convert(ATTEND_F32, back, types[t], w, N * K) < 0)
            bail("cannot convert to %s", attend_type_name(types[t]));
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) {
                double sum = 0;
                for (int k = 0; k < K; k++)
                    sum += (double)a[m * K + k] * (double)back[n * K + k];
                want[m * N + n] = (float)sum;
            }
        begin();
        attend_tensor c = attend_graph_const(g, "w", types[t], ATTEND_SHAPE(N, K), w,
                                             bytes_of(types[t], ATTEND_SHAPE(N, K)));
        /* |a||b| sums to at most 64 * 5 * 8; each of 64 additions may lose half an ulp of it */
        is_tensor(attend_graph_matmul_nt(g, floats(ATTEND_SHAPE(M, K), a), c), want,
                  64 * 64 * 40 * 0x1p-24, attend_type_name(types[t]));
    }
}

/* b as a view of its transpose, both ways: small integers, exact.  Few rows and many. */
static void test_matmul_views(void)
{
    enum { M = 37, N = 70, K = 48 };
    static float a[M * K], b[N * K], bt[K * N], want[M * N];
    const int perm[] = {1, 0};
    for (int e = 0; e < M * K; e++)
        a[e] = (float)(e * 7 % 11 - 5);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++)
            b[n * K + k] = bt[k * N + n] = (float)((n * K + k) * 5 % 13 - 6);
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            want[m * N + n] = 0;
            for (int k = 0; k < K; k++)
                want[m * N + n] += a[m * K + k] * b[n * K + k];
        }
    for (int64_t m = 3; m <= M; m += M - 3) {
        begin();
        attend_tensor t = attend_graph_permute(g, floats(ATTEND_SHAPE(N, K), b), perm);
        is_tensor(attend_graph_matmul(g, floats(ATTEND_SHAPE(m, K), a), t), want, 0,
                  "matmul with a view of b by rows");
        begin();
        t = attend_graph_permute(g, floats(ATTEND_SHAPE(K, N), bt), perm);
        is_tensor(attend_graph_matmul_nt(g, floats(ATTEND_SHAPE(m, K), a), t), want, 0,
                  "matmul_nt with a view of b by columns");
    }
    begin();
    attend_tensor t = attend_graph_permute(g, floats(ATTEND_SHAPE(N, K), b), perm);
    is_tensor(attend_graph_reshape(g, t, ATTEND_SHAPE(K * N)), bt, 0, "a copy of columns");
}

/* The CPU takes these, and functions and choices, by its own kernels. */
static void test_rows_taken(void)
{
    const int perm[] = {1, 0};
    static const float x[6];
    attend_plan *plan;
    if (strncmp(device, "simd", 4))
        return;
    begin();
    attend_tensor t = attend_graph_permute(g, floats(ATTEND_SHAPE(2, 3), x), perm);
    attend_graph_output(g, "product", attend_graph_matmul(g, floats(ATTEND_SHAPE(2, 3), x), t));
    attend_graph_output(g, "y", attend_graph_reshape(g, t, ATTEND_SHAPE(6)));
    attend_tensor a = floats(ATTEND_SHAPE(2, 3), x),
                  cond = input(ATTEND_BOOL, ATTEND_SHAPE(2, 1), "\1");
    attend_tensor all = attend_graph_add(g, attend_graph_relu(g, a), attend_graph_erf(g, a));
    all = attend_graph_add(g, all, attend_graph_sigmoid(g, attend_graph_pow(g, a, 2)));
    all = attend_graph_select(g, cond, attend_graph_where(g, cond, all, 1), a);
    attend_graph_output(g, "all", all);
    attend_compile_opts opts;
    attend_compile_opts_init(&opts);
    opts.device = device;
    if (attend_compile(g, &opts, &plan) < 0)
        bail("%s", attend_graph_error(g));
    char *text = attend_plan_describe(plan, ATTEND_TEXT);
    ok(text && !strstr(text, "-> ref"), "%s: nothing of these falls to the reference", device);
    attend_free(text);
    attend_plan_free(plan);
    attend_graph_free(g);
}

/* ---- elementwise ---- */

static void test_elementwise(void)
{
    static const float a[] = {1, 2, 3, 4, 5, 6}, row[] = {10, 20, 30}, col[] = {100, 200};
    static const uint8_t seen[] = {1, 0, 7};
    begin();
    is_tensor(attend_graph_add(g, floats(ATTEND_SHAPE(2, 3), a), floats(ATTEND_SHAPE(3), row)),
              WANT(11, 22, 33, 14, 25, 36), 0, "add a row");
    begin();
    is_tensor(attend_graph_add(g, floats(ATTEND_SHAPE(2, 1), col), floats(ATTEND_SHAPE(3), row)),
              WANT(110, 120, 130, 210, 220, 230), 0, "add a column and a row");
    begin();
    is_tensor(attend_graph_mul(g, floats(ATTEND_SHAPE(2, 3), a), floats(ATTEND_SHAPE(2, 1), col)),
              WANT(100, 200, 300, 800, 1000, 1200), 0, "mul by a column");
    begin();
    is_tensor(attend_graph_scale(g, floats(ATTEND_SHAPE(3), row), -0.5f), WANT(-5, -10, -15), 0,
              "scale");
    begin();
    is_tensor(attend_graph_where(g, input(ATTEND_BOOL, ATTEND_SHAPE(3), seen),
                                 floats(ATTEND_SHAPE(2, 3), a), -INFINITY),
              WANT(1, -INFINITY, 3, 4, -INFINITY, 6), 0, "where");
    begin();
    static const float hidden[] = {NAN, 7, NAN};
    attend_tensor b = floats(ATTEND_SHAPE(1, 3), hidden);
    is_tensor(attend_graph_select(g, input(ATTEND_BOOL, ATTEND_SHAPE(3), seen),
                                  floats(ATTEND_SHAPE(2, 3), a), b),
              WANT(1, 7, 3, 4, 7, 6), 0, "select, of which what is not taken does not show");
}

static void test_functions(void)
{
    static const float x[] = {0, 1.0986123f, -1.0986123f, 1, -3}; /* ln 3 */
    begin();
    is_tensor(attend_graph_silu(g, floats(ATTEND_SHAPE(3), x)), WANT(0, 0.82395922f, -0.27465307f),
              1e-7, "silu");
    begin();
    is_tensor(attend_graph_gelu(g, floats(ATTEND_SHAPE(2), x + 3)),
              WANT(0.84134475f, -0.0040496940f), 1e-6, "gelu");
    begin();
    is_tensor(attend_graph_gelu_tanh(g, floats(ATTEND_SHAPE(2), x + 3)),
              WANT(0.84119199f, -0.0036373921f), 1e-6, "gelu_tanh");
    begin();
    is_tensor(attend_graph_tanh(g, floats(ATTEND_SHAPE(3), x)), WANT(0, 0.8f, -0.8f), 3e-7, "tanh");
    begin();
    is_tensor(attend_graph_sigmoid(g, floats(ATTEND_SHAPE(3), x)), WANT(0.5f, 0.75f, 0.25f), 1e-7,
              "sigmoid");
    begin();
    is_tensor(attend_graph_relu(g, floats(ATTEND_SHAPE(2), x + 3)), WANT(1, 0), 0, "relu");
    begin();
    is_tensor(attend_graph_erf(g, floats(ATTEND_SHAPE(2), x + 3)), WANT(0.84270079f, -0.99997791f),
              0, "erf");
    static const float four[] = {4, 0.25f};
    begin();
    is_tensor(attend_graph_pow(g, floats(ATTEND_SHAPE(2), four), -0.5f), WANT(0.5f, 2), 0, "pow");
}

/* ---- rows ---- */

static void test_rows(void)
{
    static const float logits[] = {0, 1.0986123f, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    static const float a[] = {3, 4, 6, 8}, two[] = {1, 3}, weight[] = {2, 10}, bias[] = {5, 7};
    begin();
    is_tensor(attend_graph_softmax(g, floats(ATTEND_SHAPE(2, 3), logits)),
              WANT(0.25f, 0.75f, 0, 0, 0, 0), 1e-7, "softmax, also of a row of -inf");
    float r = sqrtf(12.5f);
    begin();
    is_tensor(attend_graph_rms_norm(g, floats(ATTEND_SHAPE(2, 2), a), attend_none(), 0),
              WANT(3 / r, 4 / r, 3 / r, 4 / r), 1e-6, "rms_norm");
    begin();
    is_tensor(attend_graph_rms_norm(g, floats(ATTEND_SHAPE(1, 2), a),
                                    floats(ATTEND_SHAPE(2), weight), 12.5f),
              WANT(6.0f / 5, 40.0f / 5), 1e-6, "rms_norm with weight and eps");
    begin();
    is_tensor(attend_graph_layer_norm(g, floats(ATTEND_SHAPE(1, 2), two),
                                      floats(ATTEND_SHAPE(2), weight),
                                      floats(ATTEND_SHAPE(2), bias), 0),
              WANT(3, 17), 1e-5, "layer_norm with weight and bias");
    begin();
    is_tensor(attend_graph_layer_norm(g, floats(ATTEND_SHAPE(1, 2), two), attend_none(),
                                      attend_none(), 3),
              WANT(-0.5f, 0.5f), 1e-6, "layer_norm with eps");
}

static void test_rope(void)
{
    static const float a[] = {1, 2, 3, 4, 5, 1, 2, 3, 4, 5};
    static const int32_t pos[] = {0, 3};
    float c0 = cosf(3), s0 = sinf(3), c1 = cosf(0.03f), s1 = sinf(0.03f); /* 10000^(-1/2) = 0.01 */
    attend_rope_opts opts;
    attend_rope_opts_init(&opts);
    opts.dims = 4;
    opts.pairing = ATTEND_ROPE_HALF;
    begin();
    is_tensor(attend_graph_rope(g, floats(ATTEND_SHAPE(1, 1, 2, 5), a),
                                input(ATTEND_I32, ATTEND_SHAPE(2), pos), &opts),
              WANT(1, 2, 3, 4, 5, c0 - 3 * s0, 2 * c1 - 4 * s1, s0 + 3 * c0, 2 * s1 + 4 * c1, 5),
              2e-6, "rope by halves, 4 of 5 channels");
    opts.pairing = ATTEND_ROPE_INTERLEAVED;
    begin();
    is_tensor(attend_graph_rope(g, floats(ATTEND_SHAPE(2, 1, 1, 5), a),
                                input(ATTEND_I32, ATTEND_SHAPE(2, 1), pos), &opts),
              WANT(1, 2, 3, 4, 5, c0 - 2 * s0, s0 + 2 * c0, 3 * c1 - 4 * s1, 3 * s1 + 4 * c1, 5),
              2e-6, "rope interleaved, a position for each batch entry");
    static const float factors[] = {1, 0.01f};
    begin();
    opts.factors = floats(ATTEND_SHAPE(2), factors);
    is_tensor(attend_graph_rope(g, floats(ATTEND_SHAPE(1, 1, 2, 5), a),
                                input(ATTEND_I32, ATTEND_SHAPE(2), pos), &opts),
              WANT(1, 2, 3, 4, 5, c0 - 2 * s0, s0 + 2 * c0, 3 * c0 - 4 * s0, 3 * s0 + 4 * c0, 5),
              2e-6, "rope with factors");
}

/* ---- rows by index ---- */

static void test_gather(void)
{
    static const float table[] = {1, 2, 3, 4, 5, 6};
    static const int32_t index[] = {2, 0, 2, 1}, bad[] = {0, 3};
    float x[64], want[64];
    uint8_t blocks[2 * 34];
    begin();
    is_tensor(attend_graph_gather(g, floats(ATTEND_SHAPE(3, 2), table),
                                  input(ATTEND_I32, ATTEND_SHAPE(2, 2), index)),
              WANT(5, 6, 1, 2, 5, 6, 3, 4), 0, "gather");
    for (int k = 0; k < 64; k++)
        x[k] = (float)(k % 32 * 4) * (k < 32 ? 1 : -2);
    if (attend_convert(ATTEND_Q8_0, blocks, ATTEND_F32, x, 64) < 0 ||
        attend_convert(ATTEND_F32, want, ATTEND_Q8_0, blocks, 64) < 0)
        bail("cannot convert to q8_0");
    begin();
    attend_tensor t = attend_graph_const(g, "t", ATTEND_Q8_0, ATTEND_SHAPE(2, 32), blocks, 68);
    is_tensor(attend_graph_gather(g, t, input(ATTEND_I32, ATTEND_SHAPE(1), index + 3)), want + 32,
              0, "gather from q8_0");
    begin();
    is_refused(attend_graph_gather(g, floats(ATTEND_SHAPE(3, 2), table),
                                   input(ATTEND_I32, ATTEND_SHAPE(2), bad)),
               "index 3 at place 1 is outside [0, 3)", "gather past the end");
}

static void test_append(void)
{
    static const float rows[] = {1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60};
    static const int32_t slots[] = {3, -1, 0}, bad[] = {0, 4, 1};
    float pool[16];
    memset(pool, 0, sizeof pool);
    begin();
    attend_tensor p = state(ATTEND_F32, ATTEND_SHAPE(2, 2, 2, 2), pool); /* pages, heads, rows */
    p = attend_graph_append(g, p, floats(ATTEND_SHAPE(1, 2, 3, 2), rows),
                            input(ATTEND_I32, ATTEND_SHAPE(1, 3), slots));
    is_tensor(attend_graph_scale(g, p, 1), WANT(5, 6, 0, 0, 50, 60, 0, 0, 0, 0, 1, 2, 0, 0, 10, 20),
              0, "append to pages");
    static uint16_t half[4];
    begin();
    p = state(ATTEND_F16, ATTEND_SHAPE(1, 1, 2, 2), half);
    p = attend_graph_append(g, p, floats(ATTEND_SHAPE(1, 1, 1, 2), rows),
                            input(ATTEND_I32, ATTEND_SHAPE(1, 1), slots + 2));
    is_tensor(attend_graph_scale(g, p, 1), WANT(1, 2, 0, 0), 0, "append to f16");
    begin();
    p = state(ATTEND_F32, ATTEND_SHAPE(2, 2, 2, 2), pool);
    p = attend_graph_append(g, p, floats(ATTEND_SHAPE(1, 2, 3, 2), rows),
                            input(ATTEND_I32, ATTEND_SHAPE(1, 3), bad));
    is_refused(attend_graph_scale(g, p, 1), "index 4 at place 1 is outside [0, 4)",
               "append past the end");
}

static void test_copies(void)
{
    static const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {7, 8};
    static const float fine[] = {1.00048828125f, 1.001f, 70000}; /* 1 + 2^-11: a tie */
    const int perm[] = {1, 0};
    begin();
    attend_tensor parts[] = {floats(ATTEND_SHAPE(2, 3), a), floats(ATTEND_SHAPE(2, 1), b)};
    is_tensor(attend_graph_concat(g, parts, 2, 1), WANT(1, 2, 3, 7, 4, 5, 6, 8), 0,
              "concat of columns");
    begin();
    parts[0] = floats(ATTEND_SHAPE(3, 2), a);
    parts[1] = floats(ATTEND_SHAPE(1, 2), b);
    is_tensor(attend_graph_concat(g, parts, 2, 0), WANT(1, 2, 3, 4, 5, 6, 7, 8), 0,
              "concat of rows");
    begin();
    attend_tensor t = attend_graph_permute(g, floats(ATTEND_SHAPE(2, 3), a), perm);
    is_tensor(attend_graph_reshape(g, t, ATTEND_SHAPE(6)), WANT(1, 4, 2, 5, 3, 6), 0,
              "a copy where a reshape needs one");
    begin();
    t = attend_graph_cast(g, floats(ATTEND_SHAPE(3), fine), ATTEND_F16);
    is_tensor(attend_graph_cast(g, t, ATTEND_F32), WANT(1, 1.0009765625f, INFINITY), 0,
              "cast to f16");
    begin();
    t = attend_graph_cast(g, floats(ATTEND_SHAPE(3), fine), ATTEND_BF16);
    is_tensor(attend_graph_cast(g, t, ATTEND_F32), WANT(1, 1, 70144), 0, "cast to bf16");
}

/* ---- masks and attention ---- */

static void test_mask(void)
{
    static const float s[] = {4, 5, NAN, 7, 8, 9}, added[] = {0, 10, -INFINITY};
    static const int32_t used[] = {2};
    attend_mask_opts o;
    attend_mask_opts_init(&o);
    o.causal = 1;
    begin();
    float n = -INFINITY;
    o.mask = floats(ATTEND_SHAPE(3), added);
    is_tensor(attend_graph_mask(g, floats(ATTEND_SHAPE(1, 1, 1, 3), s + 3), NULL), WANT(7, 8, 9), 0,
              "a mask without conditions");
    begin();
    o.mask = floats(ATTEND_SHAPE(3), added);
    o.align = ATTEND_BOTTOM_RIGHT;
    is_tensor(attend_graph_mask(g, floats(ATTEND_SHAPE(1, 1, 2, 3), s), &o),
              WANT(4, 15, n, 7, 18, n), 0, "causal, bottom right, with a bias that hides NaN");
    begin();
    o.mask = attend_none();
    o.align = ATTEND_TOP_LEFT;
    o.kv_used = input(ATTEND_I32, ATTEND_SHAPE(1), used);
    is_tensor(attend_graph_mask(g, floats(ATTEND_SHAPE(1, 1, 2, 3), s), &o), WANT(4, n, n, 7, 8, n),
              0, "causal, top left, of used keys");
}

/* One channel, scale 1: the scores are the keys; weights 1 : 2 : 4. */
static const float ones[] = {1, 1, 1, 1};
static const float key[] = {0, 0.69314718f, 1.38629436f};
static const float val[] = {1, 10, 100};

static attend_tensor attention(int64_t nq, const attend_attention_opts *o)
{
    attend_tensor q = floats(ATTEND_SHAPE(1, 1, nq, 1), ones);
    attend_tensor k = floats(ATTEND_SHAPE(1, 1, 3, 1), key);
    return attend_graph_attention(g, q, k, floats(ATTEND_SHAPE(1, 1, 3, 1), val), o, NULL);
}

static void test_attention(void)
{
    static const int32_t two[] = {2}, four[] = {4}, far[] = {-1};
    attend_attention_opts o;
    begin();
    is_tensor(attention(1, NULL), WANT(421.0f / 7), 2e-5, "attention");

    attend_attention_opts_init(&o);
    o.mask.causal = 1;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    begin();
    is_tensor(attention(2, &o), WANT(7, 421.0f / 7), 2e-5, "causal attention, bottom right");
    begin();
    o.mask.kv_used = input(ATTEND_I32, ATTEND_SHAPE(1), two);
    is_tensor(attention(4, &o), WANT(0, 0, 1, 7), 2e-5, "of 2 used keys, for 4 rows");
    begin();
    o.mask.kv_used = input(ATTEND_I32, ATTEND_SHAPE(1), four);
    is_refused(attention(4, &o), "kv_used[0] is 4, outside [0, 3]",
               "more keys used than there are");
    begin();
    o.mask.kv_used = attend_none();
    o.mask.align = ATTEND_ALIGN_UNSET;
    o.mask.q_offset = input(ATTEND_I32, ATTEND_SHAPE(1), far);
    is_tensor(attention(3, &o), WANT(0, 1, 7), 2e-5, "causal attention at an offset of -1");
    begin();
    o.mask.q_offset = attend_none();
    o.mask.kv_used = input(ATTEND_I32, ATTEND_SHAPE(1), two);
    is_refused(attention(3, &o), "3 query rows and 2 keys", "no alignment where lengths differ");
}

/* Two sequences of 1 and 2 rows, 2 and 1 keys; a row of q that belongs to neither. */
static attend_tensor packed(const int32_t *q_lens, const int32_t *kv_lens, int causal)
{
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    attend_tensor q = floats(ATTEND_SHAPE(4, 1, 1), ones), k = floats(ATTEND_SHAPE(3, 1, 1), key);
    attend_tensor v = floats(ATTEND_SHAPE(3, 1, 1), val);
    o.q_lens = input(ATTEND_I32, ATTEND_SHAPE(3), q_lens);
    o.kv_lens = input(ATTEND_I32, ATTEND_SHAPE(3), kv_lens);
    o.mask.causal = causal;
    o.mask.align = causal ? ATTEND_BOTTOM_RIGHT : ATTEND_ALIGN_UNSET;
    return attend_graph_attention(g, q, k, v, &o, NULL);
}

static void test_packed(void)
{
    static const int32_t q[] = {0, 1, 3}, kv[] = {0, 2, 3};
    static const int32_t first[] = {1, 2, 3}, falls[] = {0, 2, 1}, past[] = {0, 2, 4};
    begin();
    is_tensor(packed(q, kv, 0), WANT(7, 100, 100, 0), 2e-5, "packed sequences, and an unused row");
    begin();
    is_tensor(packed(q, kv, 1), WANT(7, 0, 100, 0), 2e-5, "causal, bottom right in each");
    begin();
    is_refused(packed(first, kv, 0), "q_lens[0] is 1; prefix sums begin with 0", "sums from 1");
    begin();
    is_refused(packed(q, falls, 0), "kv_lens[2] is 1, below the 2 before it", "sums that fall");
    begin();
    is_refused(packed(q, past, 0), "kv_lens[2] is 4 but there are 3 rows", "sums past the end");
}

int main(void)
{
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    for (int k = 0; k < attend_device_count(ctx); k++) {
        attend_device_info info;
        if (attend_device_get(ctx, k, &info) < 0 || !info.present)
            continue;
        device = info.name;
        test_matmul();
        test_matmul_types();
        test_matmul_views();
        test_rows_taken();
        test_elementwise();
        test_functions();
        test_rows();
        test_rope();
        test_gather();
        test_append();
        test_copies();
        test_mask();
        test_attention();
        test_packed();
    }
    attend_ctx_free(ctx);
    return done_testing();
}
