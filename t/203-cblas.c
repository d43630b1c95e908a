/* SPDX-License-Identifier: MIT */
/* Large products by a CBLAS library, where this machine has one: every layout beside the reference,
 * rows that it cannot take, and the reasons in the plan where it is not used.  Inputs are small
 * whole numbers, so all orders of summation give the same bits. */
#include "graph_help.h"
#include "setenv.h"

#include <string.h>

enum { B = 2, M = 130, N = 128, K = 144, A = B * M * 2 * K };
static float a[A], b[N * K], want[B * M * N], got[B * M * N];

enum kind { ROWS, COLUMNS, TURNED, PART, REPEATED };

static attend_graph *product(attend_ctx *ctx, enum kind kind)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor ta = attend_graph_input(g, "a", ATTEND_F32, ATTEND_SHAPE(B, M, 2 * K));
    attend_tensor tb = attend_graph_input(
        g, "b", ATTEND_F32, kind == COLUMNS ? ATTEND_SHAPE(K, N) : ATTEND_SHAPE(N, K));
    if (kind == TURNED)
        ta = attend_graph_permute(g, attend_graph_reshape(g, ta, ATTEND_SHAPE(B, 2 * K, M)),
                                  (int[]){0, 2, 1});
    ta = attend_graph_slice(g, ta, 2, kind == PART ? K : 0, K);
    if (kind == REPEATED)
        ta = attend_graph_expand(g, attend_graph_slice(g, ta, 1, 3, 1), ATTEND_SHAPE(B, M, K));
    attend_graph_output(g, "y",
                        kind == COLUMNS ? attend_graph_matmul(g, ta, tb)
                                        : attend_graph_matmul_nt(g, ta, tb));
    return g;
}

static attend_plan *make_plan(attend_ctx *ctx, const char *device, enum kind kind, int fixed)
{
    attend_graph *g = product(ctx, kind);
    attend_compile_opts o;
    attend_plan *plan;
    attend_compile_opts_init(&o);
    o.device = device;
    o.deterministic = fixed;
    if (attend_compile(g, &o, &plan) < 0)
        bail("%s", attend_graph_error(g));
    attend_graph_free(g);
    return plan;
}

static void compute(attend_plan *plan, float *y)
{
    attend_exec *x;
    const attend_binding bind[] = {
        HELP_DATA("a", a), HELP_DATA("b", b), {.name = "y", .data = y, .bytes = sizeof want}
    };
    if (attend_exec_new(plan, &x) < 0 || attend_bind(x, bind, NELEM(bind)) < 0 || attend_run(x) < 0)
        bail("a product does not run");
    attend_exec_free(x);
}

static bool says(const attend_plan *plan, const char *part)
{
    char *text = attend_plan_describe(plan, ATTEND_TEXT);
    bool found = text && strstr(text, part);
    if (!found)
        diag("%s", text ? text : "no text");
    attend_free(text);
    return found;
}

static void test_products(attend_ctx *ctx)
{
    static const char *const names[] = {"a b^T", "a b", "a turned", "part of the channels",
                                        "one row repeated"};
    for (int kind = ROWS; kind <= REPEATED; kind++) {
        attend_plan *ref = make_plan(ctx, "ref", kind, 0), *plan = make_plan(ctx, "simd", kind, 0);
        memset(got, 0xff, sizeof got);
        compute(ref, want);
        compute(plan, got);
        ok(says(plan, "/cblas"), "%s: the plan has the library", names[kind]);
        is_mem(got, want, sizeof got, "%s: the same product", names[kind]);
        attend_plan_free(ref);
        attend_plan_free(plan);
    }
    attend_plan *plan = make_plan(ctx, "simd", ROWS, 1);
    ok(says(plan, "cblas: the plan is deterministic") && says(plan, "/gemm"),
       "a deterministic plan refuses it");
    attend_plan_free(plan);
}

int main(void)
{
    attend_ctx *ctx = help_context(1);
    for (int i = 0; i < A; i++)
        a[i] = (float)(i * 5 % 17 - 8);
    for (int i = 0; i < N * K; i++)
        b[i] = (float)(i * 7 % 13 - 6);
    unsetenv("ATTEND_LIBCBLAS");
    attend_plan *plan = make_plan(ctx, "simd", ROWS, 0);
    ok(!says(plan, "cblas"), "nobody asks: not a word of it");
    attend_plan_free(plan);
    setenv("ATTEND_LIBCBLAS", "no-such-library", 1);
    plan = make_plan(ctx, "simd", ROWS, 0);
    ok(says(plan, "cblas: ATTEND_LIBCBLAS names no library"), "a name of no library is said");
    attend_plan_free(plan);
    setenv("ATTEND_LIBCBLAS", "1", 1);
    plan = make_plan(ctx, "simd", ROWS, 0);
    bool found = says(plan, "/cblas");
    attend_plan_free(plan);
    if (found)
        test_products(ctx);
    else
        skip("no CBLAS library here");
    attend_ctx_free(ctx);
    return done_testing();
}
