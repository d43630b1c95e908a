/* SPDX-License-Identifier: MIT */
/* A context, a queue and memory that the caller made with OpenCL: attention works there, reads and
 * writes cl_mem from offsets, follows what was enqueued before it, and refuses what does not fit.
 * Compared with the same plan on the host's memory. */
#include "graph_help.h"
#include "opencl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { H = 2, S = 37, D = 16, N = H * S * D, AT = 256 };

static float q[N], k[N], v[N], want[N], got[N];

/* softmax(q k^T, with the first `used` keys) v, and its double */
static attend_plan *make_plan(attend_ctx *ctx, const char *device)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_shape shape = {
        4, {1, H, S, D}
    };
    attend_tensor tq = attend_graph_input(g, "q", ATTEND_F32, shape),
                  tk = attend_graph_input(g, "k", ATTEND_F32, shape),
                  tv = attend_graph_input(g, "v", ATTEND_F32, shape);
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, (attend_shape){1, {1}});
    attend_tensor t = attend_graph_attention(g, tq, tk, tv, &o, NULL);
    attend_graph_output(g, "o", t);
    attend_graph_output(g, "twice", attend_graph_scale(g, t, 2));
    attend_plan *plan = help_compile(g, device, 1);
    attend_graph_free(g);
    return plan;
}

/* The device of the first OpenCL, found by a context of its own. */
static struct at_cl_device *find(attend_ctx *ctx)
{
    attend_device_count(ctx);
    struct at_opencl *o = ctx->opencl;
    for (int i = 0; i < ctx->ndevice; i++)
        if (ctx->device[i].backend == &at_backend_opencl && ctx->device[i].present)
            return ctx->device[i].handle;
    (void)o;
    return NULL;
}

static cl_mem buffer(const struct at_cl *cl, cl_context c, size_t bytes)
{
    cl_int code;
    cl_mem m = cl->clCreateBuffer(c, CL_MEM_READ_WRITE, bytes, NULL, &code);
    if (!m)
        bail("clCreateBuffer: %d", (int)code);
    return m;
}

static attend_binding on(const char *name, cl_mem m, int64_t at, int64_t bytes)
{
    return (attend_binding){.name = name, .data = m, .bytes = bytes, .value = at, .on_device = 1};
}

static void check_run(attend_ctx *ctx, const char *device, const struct at_cl *cl, cl_context c,
                      cl_command_queue queue)
{
    attend_plan *plan = make_plan(ctx, device);
    attend_exec *x;
    static float twice[N];
    int32_t used[1] = {S};
    if (attend_exec_new(plan, &x) < 0)
        bail("no exec");
    attend_binding host[] = {HELP_DATA("q", q),    HELP_DATA("k", k),
                             HELP_DATA("v", v),    HELP_DATA("used", used),
                             HELP_DATA("o", want), HELP_DATA("twice", twice)};
    used[0] = S - 5;
    ok(attend_bind(x, host, 6) == 0 && attend_run(x) == 0, "on the host's memory%s",
       attend_exec_error(x));
    cl_mem mq = buffer(cl, c, sizeof q), kv = buffer(cl, c, AT + 2 * sizeof k),
           mo = buffer(cl, c, AT + sizeof got), mu = buffer(cl, c, 64);
    cl->clEnqueueWriteBuffer(queue, kv, 0, AT, sizeof k, k, 0, NULL, NULL);
    cl->clEnqueueWriteBuffer(queue, kv, 0, AT + sizeof k, sizeof v, v, 0, NULL, NULL);
    cl->clEnqueueWriteBuffer(queue, mu, 0, 32, sizeof used, used, 0, NULL, NULL);
    cl->clFinish(queue);
    attend_binding there[] = {on("q", mq, 0, sizeof q), on("k", kv, AT, sizeof k),
                              on("v", kv, AT + sizeof k, sizeof v), on("used", mu, 32, 4),
                              on("o", mo, AT, sizeof got)};
    memset(twice, 0, sizeof twice);
    int status = attend_bind(x, there, 5);
    ok(status == 0, "memory of the device is bound: %s", attend_exec_error(x));
    /* enqueued after the bind, before the run, and not waited for */
    cl->clEnqueueWriteBuffer(queue, mq, 0, 0, sizeof q, q, 0, NULL, NULL);
    ok(status == 0 && attend_run(x) == 0, "and run: %s", attend_exec_error(x));
    cl->clEnqueueReadBuffer(queue, mo, 1, AT, sizeof got, got, 0, NULL, NULL);
    ok(!memcmp(got, want, sizeof got), "the same bits as in the host's memory");
    int wrong = 0;
    for (int i = 0; i < N; i++)
        wrong += twice[i] != 2 * want[i];
    ok(wrong == 0, "beside an output that is the host's");

    attend_binding bad = on("q", mq, 64, sizeof q);
    ok(attend_bind(x, &bad, 1) == ATTEND_EINVAL && strstr(attend_exec_error(x), "cl_mem has"),
       "memory that is too short: %s", attend_exec_error(x));
    bad = on("q", mq, 2, sizeof q);
    ok(attend_bind(x, &bad, 1) == ATTEND_EINVAL, "an odd offset: %s", attend_exec_error(x));
    bad = on("o", kv, AT, sizeof got);
    ok(attend_bind(x, &bad, 1) == ATTEND_EINVAL && strstr(attend_exec_error(x), "overlaps"),
       "an output over an input: %s", attend_exec_error(x));
    ok(attend_bind(x, NULL, 0) == 0 && attend_run(x) == 0, "the bindings before are kept");
    attend_exec_free(x);
    attend_plan_free(plan);
    cl->clReleaseMemObject(mq), cl->clReleaseMemObject(kv);
    cl->clReleaseMemObject(mo), cl->clReleaseMemObject(mu);
}

static void check_refusals(attend_ctx *ctx, const char *opencl, const struct at_cl *cl,
                           cl_context c)
{
    attend_exec *x;
    const char *const devices[] = {opencl, "simd"};
    cl_mem m = buffer(cl, c, sizeof q);
    for (int i = 0; i < 2; i++) {
        attend_plan *plan = make_plan(ctx, devices[i]);
        attend_binding b = on("q", m, 0, sizeof q);
        if (attend_exec_new(plan, &x) < 0)
            bail("no exec");
        ok(attend_bind(x, &b, 1) < 0, "%s: memory of another context: %s", devices[i],
           attend_exec_error(x));
        attend_exec_free(x);
        attend_plan_free(plan);
    }
    cl->clReleaseMemObject(m);
}

int main(void)
{
    attend_ctx *ctx = help_context(1), *other = help_context(1);
    struct at_cl_device *d = find(other);
    uint64_t seed = 440;
    const char *name = NULL;
    cl_int code;
    help_normal(&seed, q, N);
    help_normal(&seed, k, N);
    help_normal(&seed, v, N);
    if (!d) {
        ok(attend_ctx_use_opencl(ctx, &seed, NULL, &name) == ATTEND_EUNSUPPORTED,
           "without OpenCL there is nothing to use");
        skip("no OpenCL device");
    } else {
        cl_context c = d->cl->clCreateContext(NULL, 1, &d->id, NULL, NULL, &code);
        cl_command_queue queue = c ? d->cl->clCreateCommandQueue(c, d->id, 0, &code) : NULL;
        if (!queue)
            bail("no queue: %d", (int)code);
        ok(attend_ctx_use_opencl(ctx, NULL, NULL, &name) == ATTEND_EINVAL, "nothing is given");
        ok(attend_ctx_use_opencl(ctx, c, queue, &name) == 0 && name, "a context and a queue");
        check_run(ctx, name, d->cl, c, queue);
        ok(attend_ctx_use_opencl(ctx, NULL, queue, &name) == ATTEND_ESTATE,
           "only before the first use");
        check_refusals(other, name, d->cl, c);
        attend_ctx_free(ctx);
        ok(d->cl->clFinish(queue) == CL_SUCCESS, "the queue is still the caller's");
        ctx = help_context(1);
        ok(attend_ctx_use_opencl(ctx, c, NULL, &name) == 0, "a context alone");
        attend_plan_free(make_plan(ctx, name));
        d->cl->clReleaseCommandQueue(queue);
        d->cl->clReleaseContext(c);
    }
    attend_ctx_free(ctx);
    attend_ctx_free(other);
    return done_testing();
}
