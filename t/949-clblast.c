/* SPDX-License-Identifier: MIT */
/* CLBlast on the first OpenCL device, where both are here: measured against our kernel once, which
 * the next context knows; a reason in the plan where it is not taken; and products by it, batched,
 * of parts of tensors and of rows that it cannot take, beside the reference's, with its own
 * parameters and with ours.
 *
 * A sum of K products in f32, in any order, is off by at most (K + 1) u sum |a b|, u = 2^-24. */
#include "env.h"
#include "graph_help.h"
#include "opencl.h"
#include "setenv.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { B = 2, M = 40, N = 192, K = 256, A = B * M * 2 * K };
static float a[A], b[N * K], want[B * M * N], got[B * M * N];

enum kind { ROWS, COLUMNS, PART, REPEATED };

static attend_graph *product(attend_ctx *ctx, enum kind kind)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor ta = attend_graph_input(
        g, "a", ATTEND_F32, kind == REPEATED ? ATTEND_SHAPE(1, K) : ATTEND_SHAPE(B, M, 2 * K));
    attend_tensor tb = attend_graph_input(
        g, "b", ATTEND_F32, kind == COLUMNS ? ATTEND_SHAPE(K, N) : ATTEND_SHAPE(N, K));
    if (kind == REPEATED)
        ta = attend_graph_expand(g, ta, ATTEND_SHAPE(M, K));
    else
        ta = attend_graph_slice(g, ta, 2, kind == PART ? K : 0, K);
    attend_graph_output(g, "y",
                        kind == COLUMNS ? attend_graph_matmul(g, ta, tb)
                                        : attend_graph_matmul_nt(g, ta, tb));
    return g;
}

/* y, and the text of the plan, which the caller frees. */
static char *compute(attend_ctx *ctx, const char *device, enum kind kind, float *y)
{
    attend_graph *g = product(ctx, kind);
    attend_plan *plan = help_compile(g, device, 1);
    attend_exec *x;
    attend_binding bind[] = {
        {.name = "a", .data = a, .bytes = (kind == REPEATED ? K : A) * (int64_t)sizeof *a        },
        {.name = "b", .data = b, .bytes = sizeof b                                               },
        {.name = "y", .data = y, .bytes = (kind == REPEATED ? 1 : B) * M * N * (int64_t)sizeof *y},
    };
    if (attend_exec_new(plan, &x) < 0)
        bail("no exec");
    if (attend_bind(x, bind, NELEM(bind)) < 0 || attend_run(x) < 0)
        bail("%s", attend_exec_error(x));
    char *text = attend_plan_describe(plan, ATTEND_TEXT);
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_graph_free(g);
    return text;
}

/* What the plan of a context of its own says of the library, or that it has the step. */
static void said_of(char *to, size_t size)
{
    attend_ctx *ctx = help_context(2);
    char *text = compute(ctx, "opencl:0", ROWS, got);
    const char *at = strstr(text, "library");
    snprintf(to, size, "%.*s", at ? (int)strcspn(at, ";)") : 0, at ? at : "");
    attend_free(text);
    attend_ctx_free(ctx);
}

static void check_products(attend_ctx *ctx, const char *by)
{
    static const char *const names[] = {"a b^T", "a b", "part of the channels", "one row repeated"};
    for (int kind = ROWS; kind <= REPEATED; kind++) {
        int64_t wrong = 0, rows = kind == REPEATED ? M : B * M;
        char *text = compute(ctx, "ref", kind, want);
        attend_free(text);
        text = compute(ctx, "opencl:0", kind, got);
        ok(text && strstr(text, "opencl:0/library"), "%s: by the library, %s", names[kind], by);
        for (int64_t e = 0; e < rows * N; e++) {
            const float *x = kind == REPEATED ? a : a + e / N * 2 * K + (kind == PART ? K : 0);
            double sum = 0;
            for (int64_t k = 0; k < K; k++)
                sum += fabs((double)x[k] *
                            (double)(kind == COLUMNS ? b[k * N + e % N] : b[e % N * K + k]));
            wrong += !(fabs((double)got[e] - (double)want[e]) <= 2 * (K + 1) * 0x1p-24 * sum);
        }
        ok(wrong == 0, "%s: right, %s", names[kind], by);
        attend_free(text);
    }
}

static struct at_cl_device *first(attend_ctx *ctx)
{
    attend_device_count(ctx);
    struct at_opencl *o = ctx->opencl;
    return o && o->ndevice ? &o->device[0] : NULL;
}

int main(void)
{
    char one[400], other[400];
    uint64_t seed = 949;
    attend_ctx *ctx = help_context(2);
    struct at_cl_device *d = first(ctx);
    if (!d)
        skip_all("no OpenCL device");
    if (!at_env(AT_ENV_LIBCLBLAST))
        setenv("ATTEND_LIBCLBLAST", "libclblast.so.1", 1);
    help_normal(&seed, a, A);
    help_normal(&seed, b, N * K);
    said_of(one, sizeof one);
    if (strstr(one, "names no library"))
        skip_all("CLBlast is not here (Debian: libclblast1)");
    diag("%s", one);
    ok(strstr(one, "took CLBlast") || !strcmp(one, "library"), "it was measured");
    said_of(other, sizeof other);
    is_str(other, one, "and the next context knows what came of it");
    char *text = compute(ctx, "opencl:0", ROWS, got);
    attend_free(text);
    atomic_store(&d->clblast, AT_CLBLAST_THEIRS); /* whichever is faster here */
    check_products(ctx, "as it was set");
    for (int set = 0; set < AT_CLBLAST_SETS; set++) {
        char by[40];
        snprintf(by, sizeof by, "with parameters %d", set);
        if (at_cl_library_tune(d, set))
            check_products(ctx, by);
        else
            skip("the device or the library has not room for parameters %d", set);
    }
    attend_ctx_free(ctx);
    setenv("ATTEND_LIBCLBLAST", "none", 1);
    said_of(one, sizeof one);
    help_holds(one, "ATTEND_LIBCLBLAST names no library", "a name of no library is said");
    return done_testing();
}
