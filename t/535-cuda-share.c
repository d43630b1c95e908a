/* SPDX-License-Identifier: MIT */
/* A stream and device pointers of the caller's, on the emulated driver: a run follows what was
 * enqueued before it, reads and writes there without copies, and refuses what does not fit; and
 * spans of the device's clock, for traces. */
#include "emu.h"
#include "graph_help.h"

#include <string.h>

enum { H = 2, S = 21, D = 16, N = H * S * D, AT = 256 };

static float q[N], k[N], v[N], want[N], got[N], twice[N];

static attend_plan *make_plan(attend_ctx *ctx, const char *device)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_shape shape = {
        4, {1, H, S, D}
    };
    attend_tensor tq = attend_graph_input(g, "q", ATTEND_F32, shape),
                  tk = attend_graph_input(g, "k", ATTEND_F32, shape),
                  tv = attend_graph_input(g, "v", ATTEND_F32, shape);
    attend_tensor t = attend_graph_attention(g, tq, tk, tv, NULL, NULL);
    attend_graph_output(g, "o", t);
    attend_graph_output(g, "twice", attend_graph_scale(g, t, 2));
    attend_plan *plan = help_compile(g, device, 1);
    attend_graph_free(g);
    return plan;
}

static attend_binding on(const char *name, cu_deviceptr p, int64_t at, int64_t bytes)
{
    return (attend_binding){
        .name = name, .data = (void *)(uintptr_t)p, .bytes = bytes, .value = at, .on_device = 1};
}

static void check_runs(attend_exec *x, cu_stream stream)
{
    cu_deviceptr dq = emu_alloc(sizeof q), kv = emu_alloc(AT + 2 * sizeof k),
                 dout = emu_alloc(AT + sizeof got);
    attend_binding there[] = {on("q", dq, 0, sizeof q), on("k", kv, AT, sizeof k),
                              on("v", kv, AT + sizeof k, sizeof v), on("o", dout, AT, sizeof got)};
    ok(attend_bind(x, there, 4) == 0, "device pointers are bound: %s", attend_exec_error(x));
    /* enqueued after the bind, before the run, and not waited for: the emulator runs it late */
    emu_cu.copy_in(kv + AT, k, sizeof k, stream);
    emu_cu.copy_in(kv + AT + sizeof k, v, sizeof v, stream);
    emu_cu.copy_in(dq, q, sizeof q, stream);
    attend_fence fence;
    ok(attend_submit(x, &fence) == 0, "a run is enqueued: %s", attend_exec_error(x));
    emu_cu.copy_out(got, dout + AT, sizeof got, stream);
    ok(attend_wait(fence) == 0, "and waited for: %s", attend_exec_error(x));
    emu_cu.stream_synchronize(stream);
    ok(!memcmp(got, want, sizeof got), "the same bits as from the host's memory");
    int wrong = 0;
    for (int i = 0; i < N; i++)
        wrong += twice[i] != 2 * want[i];
    ok(wrong == 0, "beside an output that is the host's");

    attend_binding bad = on("q", dq, 64, sizeof q);
    ok(attend_bind(x, &bad, 1) == ATTEND_EINVAL &&
           strstr(attend_exec_error(x), "bytes 64 to 2752 are bound"),
       "memory that is too short: %s", attend_exec_error(x));
    bad = on("q", dq + 4, 0, sizeof q - 4);
    ok(attend_bind(x, &bad, 1) == ATTEND_EINVAL, "an odd pointer: %s", attend_exec_error(x));
    bad = on("q", 4096, 0, sizeof q);
    ok(attend_bind(x, &bad, 1) == ATTEND_EINVAL, "no memory at all: %s", attend_exec_error(x));
    bad = on("o", kv, AT, sizeof got);
    ok(attend_bind(x, &bad, 1) == ATTEND_EINVAL && strstr(attend_exec_error(x), "overlaps"),
       "an output over an input: %s", attend_exec_error(x));
    ok(attend_bind(x, NULL, 0) == 0 && attend_run(x) == 0, "the bindings before are kept");
    emu_cu.mem_free(dq);
    emu_cu.mem_free(kv);
    emu_cu.mem_free(dout);
}

/* ---- spans by the device's clock ---- */

struct traced {
    int steps, spans, wrong;
    int64_t end;
};

static void note(void *arg, const attend_span *s)
{
    struct traced *t = arg;
    t->steps += s->kind == ATTEND_SPAN_STEP;
    if (s->kind != ATTEND_SPAN_DEVICE)
        return;
    t->wrong += s->step != t->spans++ || strcmp(s->device, "cuda:0") != 0 || s->begin < t->end ||
                s->end < s->begin;
    t->end = s->end;
}

static void test_marks(void)
{
    struct traced t = {0};
    attend_ctx_opts opts;
    attend_ctx *ctx;
    attend_exec *x;
    attend_ctx_opts_init(&opts);
    opts.trace = note;
    opts.trace_arg = &t;
    if (attend_ctx_new(&opts, &ctx) < 0)
        bail("no context");
    attend_plan *plan = make_plan(ctx, "cuda:0");
    attend_binding host[] = {HELP_DATA("q", q), HELP_DATA("k", k), HELP_DATA("v", v),
                             HELP_DATA("o", got), HELP_DATA("twice", twice)};
    if (attend_exec_new(plan, &x) < 0 || attend_bind(x, host, 5) < 0)
        bail("no exec");
    for (int runs = 1; runs <= 2; runs++) {
        ok(attend_run(x) == 0, "a traced run: %s", attend_exec_error(x));
        is_int(t.steps, 2 * runs, "its steps as the host walked them");
        is_int(t.spans, 2, "a span of the device's clock for each");
        is_int(t.wrong, 0, "one after another, in order");
        t.spans = 0;
    }
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_ctx_free(ctx);
}

int main(void)
{
    const char *why, *name = NULL;
    uint64_t seed = 540;
    cu_stream stream = NULL;
    attend_exec *x;
    if (!emu_nvrtc(&why))
        skip_all("%s", why);
    emu_open(80);
    emu_cu.stream_create(&stream, CU_STREAM_NON_BLOCKING);
    help_normal(&seed, q, N);
    help_normal(&seed, k, N);
    help_normal(&seed, v, N);
    attend_ctx *ctx = help_context(1);
    is_int(attend_ctx_use_cuda(ctx, 7, stream, &name), ATTEND_EUNSUPPORTED, "no such device");
    is_int(attend_ctx_use_cuda(ctx, 0, stream, &name), 0, "a stream of the caller's");
    is_str(name, "cuda:0", "its device");
    attend_plan *plan = make_plan(ctx, name);
    if (attend_exec_new(plan, &x) < 0)
        bail("no exec");
    is_int(attend_ctx_use_cuda(ctx, 0, NULL, &name), ATTEND_ESTATE, "only before the first use");
    attend_binding host[] = {HELP_DATA("q", q), HELP_DATA("k", k), HELP_DATA("v", v),
                             HELP_DATA("o", want), HELP_DATA("twice", twice)};
    ok(attend_bind(x, host, 5) == 0 && attend_run(x) == 0, "on the host's memory%s",
       attend_exec_error(x));
    memset(twice, 0, sizeof twice);
    check_runs(x, stream);
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_ctx_free(ctx);
    is_int(emu_cu.stream_synchronize(stream), 0, "the stream is still the caller's");
    emu_cu.stream_destroy(stream);
    test_marks();
    emu_close();
    if (!is_int(emu_reports(), 0, "nothing is reported"))
        diag("%s: %s", emu_kind(), emu_report());
    return done_testing();
}
