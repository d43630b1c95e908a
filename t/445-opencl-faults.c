/* SPDX-License-Identifier: MIT */
/* OpenCL when calls of it fail: a sentence that names the call, the code and the sizes; a device
 * that is lost stays lost to its context and to no other.  Compilers that fail, and groups that
 * are too large, leave a step to another row; other failures, in trials too, are errors. The calls
 * are those of the context's own table, replaced one at a time. */
#include "graph_help.h"
#include "opencl.h"
#include "setenv.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N = 16 };
static float a[N * N], b[N * N], want[N * N], got[N * N];

static cl_int code; /* what the replaced call returns */

static cl_int no_launch(cl_command_queue q, cl_kernel k, cl_uint n, const size_t *o,
                        const size_t *g, const size_t *l, cl_uint ne, const cl_event *e,
                        cl_event *to)
{
    (void)q, (void)k, (void)n, (void)o, (void)g, (void)l, (void)ne, (void)e, (void)to;
    return code;
}

static cl_int(AT_CL_CALL *real_finish)(cl_command_queue);

static cl_int no_finish(cl_command_queue q) /* what was enqueued uses memory that is freed then */
{
    real_finish(q);
    return code;
}

static cl_int no_arg(cl_kernel k, cl_uint i, size_t n, const void *p)
{
    (void)k, (void)i, (void)n, (void)p;
    return code;
}

static cl_mem no_buffer(cl_context c, cl_bitfield f, size_t n, void *p, cl_int *e)
{
    (void)c, (void)f, (void)n, (void)p;
    *e = code;
    return NULL;
}

static cl_context no_context(const intptr_t *p, cl_uint n, const cl_device_id *d,
                             void (*f)(const char *, const void *, size_t, void *), void *x,
                             cl_int *e)
{
    (void)p, (void)n, (void)d, (void)f, (void)x;
    *e = code;
    return NULL;
}

static cl_int no_build(cl_program p, cl_uint n, const cl_device_id *d, const char *o,
                       void (*f)(cl_program, void *), void *x)
{
    (void)p, (void)n, (void)d, (void)o, (void)f, (void)x;
    return code;
}

enum where { NOWHERE, LAUNCH, FINISH, ARG, BUFFER, CONTEXT, BUILD };

static void spoil(attend_ctx *ctx, enum where where)
{
    struct at_cl *cl = &((struct at_opencl *)ctx->opencl)->cl;
    if (where == LAUNCH)
        cl->clEnqueueNDRangeKernel = no_launch;
    else if (where == FINISH && cl->clFinish != no_finish) {
        real_finish = cl->clFinish;
        cl->clFinish = no_finish;
    } else if (where == ARG)
        cl->clSetKernelArg = no_arg;
    else if (where == BUFFER)
        cl->clCreateBuffer = no_buffer;
    else if (where == CONTEXT)
        cl->clCreateContext = no_context;
    else if (where == BUILD)
        cl->clBuildProgram = no_build;
}

/* y = a b on the device of OpenCL; the call fails from the plan on, or from the run on. */
static int run(attend_ctx *ctx, enum where at_plan, enum where at_run, char err[480])
{
    attend_graph *g = attend_graph_new(ctx);
    attend_shape shape = {
        2, {N, N}
    };
    attend_plan *plan = NULL;
    attend_exec *x = NULL;
    attend_compile_opts opts;
    attend_binding bind[] = {HELP_DATA("a", a), HELP_DATA("b", b), HELP_DATA("y", got)};
    attend_graph_output(g, "y",
                        attend_graph_matmul(g, attend_graph_input(g, "a", ATTEND_F32, shape),
                                            attend_graph_input(g, "b", ATTEND_F32, shape)));
    attend_compile_opts_init(&opts);
    opts.device = "opencl:0";
    spoil(ctx, at_plan);
    int status = attend_compile(g, &opts, &plan);
    snprintf(err, 480, "%s", attend_graph_error(g));
    if (status == 0)
        status = attend_exec_new(plan, &x);
    spoil(ctx, at_run);
    if (status == 0)
        status = attend_bind(x, bind, 3);
    if (status == 0)
        status = attend_run(x);
    if (x)
        snprintf(err, 480, "%s", attend_exec_error(x));
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_graph_free(g);
    return status;
}

static attend_ctx *context(void)
{
    attend_ctx *ctx = help_context(1);
    attend_device_count(ctx); /* finds the devices */
    return ctx;
}

int main(void)
{
    static const struct {
        enum where at_plan, at_run;
        cl_int code;
        int status;
        const char *says;
        bool lost;
    } cases[] = {
        {NOWHERE, LAUNCH,  -5,  ATTEND_EDEVICE,      "CL_OUT_OF_RESOURCES (-5)",                true },
        {NOWHERE, FINISH,  -36, ATTEND_EDEVICE,      "clFinish",                                true },
        {NOWHERE, FINISH,  -14, ATTEND_EDEVICE,      "lost",                                    true },
        {NOWHERE, LAUNCH,  -54, ATTEND_EUNSUPPORTED, "CL_INVALID_WORK_GROUP_SIZE (-54)",        false},
        {NOWHERE, ARG,     -51, ATTEND_EDEVICE,      "clSetKernelArg of matmul",                false},
        {NOWHERE, BUFFER,  -4,  ATTEND_ENOMEM,       "bytes: CL_MEM_OBJECT_ALLOCATION_FAILURE", false},
        {CONTEXT, NOWHERE, -2,  ATTEND_EDEVICE,      "clCreateContext",                         false},
        {BUILD,   NOWHERE, -11, 0,                   "",                                        false},
        {LAUNCH,  NOWHERE, -54, 0,                   "",                                        false},
        {LAUNCH,  NOWHERE, -5,  ATTEND_EDEVICE,      "its trial failed",                        true },
        {FINISH,  NOWHERE, -36, ATTEND_EDEVICE,      "its trial failed",                        true },
        {BUFFER,  NOWHERE, -4,  ATTEND_ENOMEM,       "its trial failed",                        false},
    };
    attend_ctx *ctx = context();
    attend_device_info info;
    char err[480];
    bool there = false;
    uint64_t seed = 445;
    setenv("ATTEND_CACHE", "off", 1); /* each context tries its kernels */
    for (int i = 0; i < attend_device_count(ctx); i++)
        there = there || (attend_device_get(ctx, i, &info) == 0 && info.present &&
                          !strcmp(info.name, "opencl:0"));
    if (!there) {
        skip("there is no OpenCL device");
        attend_ctx_free(ctx);
        return done_testing();
    }
    help_normal(&seed, a, N * N);
    help_normal(&seed, b, N * N);
    ok(run(ctx, NOWHERE, NOWHERE, err) == 0, "nothing fails");
    memcpy(want, got, sizeof want);
    attend_ctx_free(ctx);
    for (int i = 0; i < AT_LEN(cases); i++) {
        ctx = context();
        code = cases[i].code;
        memset(got, 0, sizeof got);
        int status = run(ctx, cases[i].at_plan, cases[i].at_run, err);
        ok(status == cases[i].status && (status == 0 || strstr(err, cases[i].says)),
           "code %d: status %d, %s", (int)code, status, err);
        if (cases[i].status == 0) {
            float worst = 0;
            for (int k = 0; k < N * N; k++)
                worst = fmaxf(worst, fabsf(got[k] - want[k]));
            ok(worst < 1e-5f, "and another row has the result");
        }
        if (cases[i].lost) {
            status = run(ctx, NOWHERE, NOWHERE, err);
            ok(status == ATTEND_EDEVICE && strstr(err, "was lost"), "then the device is lost: %s",
               err);
        }
        attend_ctx_free(ctx);
    }
    ctx = context();
    ok(run(ctx, NOWHERE, NOWHERE, err) == 0 && !memcmp(got, want, sizeof got),
       "and a new context has it again");
    attend_ctx_free(ctx);
    return done_testing();
}
