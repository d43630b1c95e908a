/* SPDX-License-Identifier: MIT */
/* Products by cuBLAS, on the emulated driver and a stand-in for the library (cublas_fake.c): both
 * layouts, batches, parts of tensors and rows that it cannot take, beside the reference; the reason
 * in the plan where it is not used, and an error where it fails in a run. */
#include "emu.h"
#include "graph_help.h"
#include "os.h"
#include "setenv.h"

#include <stdio.h>
#include <string.h>

enum { B = 2, M = 40, N = 128, K = 128, A = B * M * 2 * K };
static float a[A], b[N * K], want[B * M * N], got[B * M * N];

enum kind { ROWS, COLUMNS, PART, REPEATED };

static void (*driver)(const struct at_cu *);
static void (*set_fault)(const char *);
static int (*handles)(void);
static int (*calls)(void);
static int (*math)(void);

static attend_plan *make_plan_in(attend_ctx *ctx, const char *device, enum kind kind,
                                 attend_precision precision)
{
    attend_compile_opts o;
    attend_plan *plan;
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
    attend_compile_opts_init(&o);
    o.device = device;
    o.precision = precision;
    if (attend_compile(g, &o, &plan) < 0)
        bail("compile: %s", attend_graph_error(g));
    attend_graph_free(g);
    return plan;
}

static attend_plan *make_plan(attend_ctx *ctx, const char *device, enum kind kind)
{
    return make_plan_in(ctx, device, kind, ATTEND_EXACT);
}

/* What came of a run; its sentence goes to `said`. */
static int compute(attend_plan *plan, enum kind kind, float *y, char said[300])
{
    attend_exec *x;
    attend_binding bind[] = {
        {.name = "a", .data = a, .bytes = (kind == REPEATED ? K : A) * (int64_t)sizeof *a        },
        {.name = "b", .data = b, .bytes = sizeof b                                               },
        {.name = "y", .data = y, .bytes = (kind == REPEATED ? 1 : B) * M * N * (int64_t)sizeof *y},
    };
    if (attend_exec_new(plan, &x) < 0 || attend_bind(x, bind, NELEM(bind)) < 0)
        bail("no exec");
    int status = attend_run(x);
    snprintf(said, 300, "%.299s", attend_exec_error(x));
    attend_exec_free(x);
    return status;
}

static bool by_library(const attend_plan *plan)
{
    char *text = attend_plan_describe(plan, ATTEND_TEXT);
    bool found = text && strstr(text, "cuda:0/library");
    attend_free(text);
    return found;
}

/* Inputs are small whole numbers, so all orders of summation give the same bits. */
static void test_products(void)
{
    static const char *const names[] = {"a b^T", "a b", "part of the channels", "one row repeated"};
    char said[300];
    attend_ctx *ctx = help_context(1);
    for (int kind = ROWS; kind <= REPEATED; kind++) {
        attend_plan *ref = make_plan(ctx, "ref", kind), *plan = make_plan(ctx, "cuda:0", kind);
        int before = calls(), entries = kind == REPEATED ? 0 : B;
        memset(got, 0, sizeof got);
        is_int(compute(ref, kind, want, said), 0, "%s: the reference", names[kind]);
        is_int(compute(plan, kind, got, said), 0, "%s: %s", names[kind], said);
        ok(by_library(plan), "the plan has the library");
        is_int(calls() - before, entries,
               "which is called for each entry of a batch that it takes");
        is_mem(got, want, (kind == REPEATED ? 1 : B) * M * N * sizeof *got, "the same product");
        attend_plan_free(ref);
        attend_plan_free(plan);
    }
    is_int(handles(), 1, "one handle serves all");
    attend_ctx_free(ctx);
    is_int(handles(), 0, "which goes with its context");
}

/* A context that is not to use the library, and says why; its products are right. */
static void test_refusal(const char *fault, const char *reason)
{
    char said[300];
    set_fault(fault);
    attend_ctx *ctx = help_context(1);
    attend_plan *plan = make_plan(ctx, "cuda:0", ROWS), *ref = make_plan(ctx, "ref", ROWS);
    char *text = attend_plan_describe(plan, ATTEND_TEXT);
    help_holds(text ? text : "", reason, "a reason");
    ok(!by_library(plan), "so our kernel has the step");
    is_int(compute(ref, ROWS, want, said), 0, "the reference");
    is_int(compute(plan, ROWS, got, said), 0, "and a run: %s", said);
    is_mem(got, want, sizeof got, "gives the product");
    attend_free(text);
    attend_plan_free(plan);
    attend_plan_free(ref);
    attend_ctx_free(ctx);
    is_int(handles(), 0, "no handle stays");
    set_fault("");
}

/* Operands are rounded where the plan may, and there alone: plans share a handle. */
static void test_tf32(void)
{
    char said[300];
    attend_ctx *ctx = help_context(1);
    attend_plan *exact = make_plan(ctx, "cuda:0", ROWS),
                *plan = make_plan_in(ctx, "cuda:0", ROWS, ATTEND_TF32);
    ok(by_library(plan), "the library has a product in tf32");
    is_int(compute(plan, ROWS, got, said), 0, "a run: %s", said);
    is_int(math(), CUBLAS_TF32_TENSOR_OP_MATH, "by its mode");
    is_int(compute(exact, ROWS, got, said), 0, "then an exact one: %s", said);
    is_int(math(), CUBLAS_PEDANTIC_MATH, "in the other");
    attend_plan_free(exact);
    attend_plan_free(plan);
    attend_ctx_free(ctx);
}

static void test_failure(void)
{
    char said[300];
    attend_ctx *ctx = help_context(1);
    attend_plan *plan = make_plan(ctx, "cuda:0", ROWS);
    set_fault("sgemm");
    is_int(compute(plan, ROWS, got, said), ATTEND_EDEVICE, "a product that fails is an error");
    help_holds(said, "cublasSgemm failed", "that says so");
    set_fault("");
    is_int(compute(plan, ROWS, got, said), 0, "and the next is done: %s", said);
    attend_plan_free(plan);
    attend_ctx_free(ctx);
}

int main(void)
{
    const char *why;
    char err[200];
    struct at_os_lib *lib = NULL;
    if (!emu_nvrtc(&why))
        skip_all("%s", why);
    emu_open(80);
    emu_close();
    emu_clear();
    if (at_os_lib_open(&lib, FAKE, err, sizeof err) < 0)
        bail("%s", err);
    if (!at_os_lib_symbol(lib, "fake_cublas_driver", &driver) ||
        !at_os_lib_symbol(lib, "fake_cublas_fault", &set_fault) ||
        !at_os_lib_symbol(lib, "fake_cublas_handles", &handles) ||
        !at_os_lib_symbol(lib, "fake_cublas_calls", &calls) ||
        !at_os_lib_symbol(lib, "fake_cublas_math", &math))
        bail("%s is not the stand-in", FAKE);
    driver(&emu_cu);
    for (int i = 0; i < A; i++)
        a[i] = (float)(i * 5 % 17 - 8);
    for (int i = 0; i < N * K; i++)
        b[i] = (float)(i * 7 % 13 - 6);
    test_refusal("", "cuBLAS loads the usual driver, not ATTEND_LIBCUDA");
    setenv("ATTEND_LIBCUBLAS", FAKE, 1);
    test_products();
    test_tf32();
    test_refusal("create", "cublasCreate failed (1)");
    test_refusal("product", "cuBLAS gave a wrong product");
    test_failure();
    setenv("ATTEND_LIBCUBLAS", "none", 1);
    test_refusal("", "ATTEND_LIBCUBLAS names no library");
    at_os_lib_keep(lib);
    if (!is_int(emu_reports(), 0, "nothing is reported"))
        diag("%s: %s", emu_kind(), emu_report());
    return done_testing();
}
