/* SPDX-License-Identifier: MIT */
/* The CUDA backend on the emulated driver when things go wrong: each call of the driver fails in
 * turn, and two threads with contexts of their own work at once.  A failure is a status with a
 * sentence; nothing leaks, nothing wrong is computed. */
#include "emu.h"
#include "graph_help.h"

#include "os.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 8

static const float a[N * N] = {1, 2, 3, 4, 5, 6, 7, 8}, b[N * N] = {2, 0, 0, 0, 0, 0, 0, 0, 0, 3};

static _Thread_local int steps_there; /* steps of the last plan that run on the device */

static void count_steps(const attend_plan *plan)
{
    char *text = attend_plan_describe(plan, ATTEND_TEXT);
    steps_there = 0;
    for (const char *p = text; p && (p = strstr(p, "-> cuda:0/")); p++)
        steps_there++;
    attend_free(text);
}

/* y = silu(a b) + a on cuda:0.  The status, and the sentence where it has one. */
static int whole_run(float y[N * N], char err[480])
{
    attend_ctx *ctx = NULL;
    attend_plan *plan = NULL;
    attend_exec *exec = NULL;
    attend_compile_opts opts;
    err[0] = 0;
    int status = attend_ctx_new(NULL, &ctx);
    if (status < 0) {
        strcpy(err, "no context");
        return status;
    }
    attend_graph *g = attend_graph_new(ctx);
    attend_shape shape = {
        2, {N, N}
    };
    attend_tensor ta = attend_graph_input(g, "a", ATTEND_F32, shape),
                  tb = attend_graph_input(g, "b", ATTEND_F32, shape);
    attend_tensor t = attend_graph_add(g, attend_graph_silu(g, attend_graph_matmul(g, ta, tb)), ta);
    attend_graph_output(g, "y", t);
    attend_binding bind[] = {
        {.name = "a", .data = (void *)(uintptr_t)a, .bytes = sizeof a         },
        {.name = "b", .data = (void *)(uintptr_t)b, .bytes = sizeof b         },
        {.name = "y", .data = y,                    .bytes = N * N * sizeof *y},
    };
    attend_compile_opts_init(&opts);
    opts.device = "cuda:0";
    status = attend_compile(g, &opts, &plan);
    snprintf(err, 480, "%s", attend_graph_error(g));
    if (status == 0)
        count_steps(plan);
    if (status == 0)
        status = attend_exec_new(plan, &exec);
    if (status < 0 && !err[0])
        strcpy(err, "no exec");
    if (status == 0)
        status = attend_bind(exec, bind, 3);
    if (status == 0)
        status = attend_run(exec);
    if (exec && status < 0)
        snprintf(err, 480, "%s", attend_exec_error(exec));
    attend_exec_free(exec);
    attend_plan_free(plan);
    attend_graph_free(g);
    attend_ctx_free(ctx);
    return status;
}

static bool right(const float y[N * N])
{
    for (int i = 0; i < N; i++) /* the first row of a b is 2, 6, 0 ... */
        for (int j = 0; j < N; j++) {
            double x = 0;
            for (int k = 0; k < N; k++)
                x += (double)a[i * N + k] * (double)b[k * N + j];
            double want = x / (1 + exp(-x)) + (double)a[i * N + j];
            if (!(fabs((double)y[i * N + j] - want) <= 1e-5))
                return false;
        }
    return true;
}

static void test_faults(void)
{
    float y[N * N];
    char err[480];
    emu_set("CUEMU_FAIL", "");
    int status = whole_run(y, err);
    if (!ok(status == 0 && right(y), "without faults"))
        diag("%d: %s", status, err);
    is_int(steps_there, 3, "all steps are on the device");
    emu_clear();
    emu_set("CUEMU_FAIL", "");
    status = whole_run(y, err);
    int calls = (int)emu_calls(), failed = 0, silent = 0, wrong = 0, leaked = 0;
    for (int n = 1; n <= calls; n++) {
        char which[24];
        snprintf(which, sizeof which, "*:%d", n);
        emu_clear();
        emu_set("CUEMU_FAIL", which);
        memset(y, 0xff, sizeof y);
        status = whole_run(y, err);
        failed += status < 0;
        if (status < 0 && !err[0] && ++silent)
            diag("call %d failed with status %d and no sentence", n, status);
        if (status == 0 && !right(y) && ++wrong)
            diag("call %d failed, and the result is wrong", n);
        if (emu_reports() && ++leaked)
            diag("call %d failed: %s: %s", n, emu_kind(), emu_report());
    }
    emu_set("CUEMU_FAIL", "");
    ok(failed > calls / 3, "%d of %d failing calls of the driver are errors", failed, calls);
    is_int(silent, 0, "each has a sentence");
    is_int(wrong, 0, "the others did not matter");
    is_int(leaked, 0, "nothing leaks");
}

struct job {
    bool good;
    char err[480];
};

static void work(void *arg)
{
    struct job *j = arg;
    float y[N * N];
    j->good = true;
    for (int i = 0; i < 3; i++)
        j->good = j->good && whole_run(y, j->err) == 0 && right(y);
}

static void test_threads(void)
{
    struct at_os_thread *t[2];
    struct job job[2];
    emu_clear();
    for (int i = 0; i < 2; i++) {
        if (at_os_thread_new(&t[i], work, &job[i], NULL, 0))
            bail("no thread");
    }
    for (int i = 0; i < 2; i++)
        at_os_thread_join(t[i]);
    if (!ok(job[0].good && job[1].good, "two threads with two contexts"))
        diag("%s; %s", job[0].err, job[1].err);
    is_int(emu_reports(), 0, "nothing is reported");
}

int main(void)
{
    const char *why;
    if (!emu_nvrtc(&why))
        skip_all("%s", why);
    emu_open(80);
    emu_close();
    test_faults();
    test_threads();
    return done_testing();
}
