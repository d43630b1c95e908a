/* SPDX-License-Identifier: MIT */
/* Memory that runs out: each allocation on the way from a context to a run fails once.  Every call
 * says so, nothing crashes, nothing is lost. */
#include "graph_help.h"
#include "os.h"

#include <stdlib.h>
#include <string.h>

/* ---- an allocator that can refuse ---- */

static int64_t calls, fail_at, live;

static void *hook_alloc(void *arg, size_t bytes, size_t align)
{
    void *p = arg != &calls || ++calls == fail_at ? NULL : at_os_alloc(align, bytes);
    live += p != NULL;
    return p;
}

static void hook_free(void *arg, void *p, size_t bytes)
{
    (void)arg;
    memset(p, 0xdd, bytes); /* the size is the one that was asked for */
    live--;
    at_os_free(p);
}

/* ---- a graph that reaches each kind of memory ---- */

enum { H = 4, G = 2, D = 8, ROOM = 16, MOST = 6, WIDE = H * D };

static float x[MOST * WIDE], o[MOST * WIDE], pool[ROOM * G * D], weight[WIDE];
static uint8_t even[ROOM] = {1, 0, 1}, seen[MOST * ROOM] = {1, 1, 0, 1};
static int32_t positions[MOST] = {0, 1, 2, 3, 4, 5};

static attend_tensor heads(attend_graph *g, attend_tensor t)
{
    t = attend_graph_reshape(g, t, ATTEND_SHAPE(1, ATTEND_INFER, H, D));
    return attend_graph_permute(g, t, (int[]){0, 2, 1, 3});
}

/* An attention with expressions and a mask, which are scheduled. */
static attend_tensor look_again(attend_graph *g, attend_tensor q, attend_tensor kv, int64_t n)
{
    attend_capture captures[] = {
        {"even", attend_graph_input(g, "even", ATTEND_BOOL, ATTEND_SHAPE(ROOM))}
    };
    attend_attention_opts opts;
    attend_attention_opts_init(&opts);
    opts.score = "score * 0.5 - h";
    opts.mask_expr = "even[j] || j <= i";
    opts.captures = captures;
    opts.ncaptures = 1;
    opts.mask.mask = attend_graph_input(g, "seen", ATTEND_BOOL, ATTEND_SHAPE(n, ROOM));
    return attend_graph_attention(g, q, kv, kv, &opts, NULL);
}

static attend_graph *build(attend_ctx *ctx)
{
    attend_graph *g = attend_graph_new(ctx);
    if (!g)
        return NULL;
    attend_rope_opts r;
    attend_mask_opts m;
    attend_rope_opts_init(&r);
    attend_mask_opts_init(&m);
    r.pairing = ATTEND_ROPE_HALF;
    m.causal = 1;
    m.align = ATTEND_TOP_LEFT;
    int64_t n = attend_graph_dim(g, "n", 1, MOST);
    attend_tensor t = attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(n, WIDE));
    attend_tensor pos = attend_graph_input(g, "positions", ATTEND_I32, ATTEND_SHAPE(1, n));
    attend_tensor w =
        attend_graph_const(g, "w", ATTEND_F32, ATTEND_SHAPE(WIDE), weight, sizeof weight);
    attend_tensor kv = attend_graph_state(g, "pool", ATTEND_F32, ATTEND_SHAPE(1, G, ROOM, D));
    attend_graph_label(g, "norm");
    t = heads(g, attend_graph_rms_norm(g, t, w, 1e-5f));
    attend_graph_label(g, "rope");
    t = attend_graph_rope(g, t, pos, &r);
    attend_graph_label(g, "store");
    kv = attend_graph_append(g, kv, attend_graph_slice(g, t, 1, 0, G), pos);
    kv = attend_graph_reshape(g, kv, ATTEND_SHAPE(1, G, 1, ROOM, D));
    kv = attend_graph_expand(g, kv, ATTEND_SHAPE(1, G, H / G, ROOM, D));
    kv = attend_graph_reshape(g, kv, ATTEND_SHAPE(1, H, ROOM, D));
    attend_graph_label(g, "look");
    t = attend_graph_mask(g, attend_graph_matmul_nt(g, t, kv), &m);
    t = attend_graph_matmul(g, attend_graph_softmax(g, t), kv);
    t = look_again(g, t, kv, n);
    t = attend_graph_permute(g, t, (int[]){0, 2, 1, 3});
    attend_graph_output(g, "o", attend_graph_reshape(g, t, ATTEND_SHAPE(n, WIDE)));
    return g;
}

/* ---- the way from a context to a run; the status of the first call that fails ---- */

static int bind_and_run(attend_exec *e, int64_t n)
{
    attend_binding bind[] = {
        HELP_DIM("n", n),        HELP_DATA("x", x), HELP_DATA("positions", positions),
        HELP_DATA("pool", pool), HELP_DATA("o", o), HELP_DATA("even", even),
        HELP_DATA("seen", seen)};
    int status = attend_bind(e, bind, (int)NELEM(bind));
    return status < 0 ? status : attend_run(e);
}

/* A bind that found no memory may be tried again. */
static int use(attend_exec *e)
{
    int first = 0;
    for (int64_t n = 1; n <= MOST; n += 5) {
        int status = bind_and_run(e, n);
        if (status == ATTEND_ENOMEM) {
            if (!strstr(attend_exec_error(e), "no memory") || attend_run(e) != ATTEND_ESTATE)
                return ATTEND_EDEVICE;
            first = status;
            status = bind_and_run(e, n);
        }
        if (status < 0)
            return status;
    }
    return first;
}

static int whole_way(const attend_ctx_opts *opts, const char *device)
{
    attend_ctx *ctx;
    attend_plan *plan = NULL;
    attend_exec *e = NULL;
    attend_compile_opts c;
    attend_compile_opts_init(&c);
    c.device = device;
    int status = attend_ctx_new(opts, &ctx);
    if (status < 0)
        return ctx ? ATTEND_EDEVICE : status;
    attend_graph *g = build(ctx);
    status = attend_graph_status(g);
    if (status == 0) {
        status = attend_compile(g, &c, &plan);
        if (status == ATTEND_ENOMEM) /* the graph is as it was */
            status = attend_compile(g, &c, &plan) == 0 ? ATTEND_ENOMEM : ATTEND_EDEVICE;
    }
    if (status < 0 && g && !strstr(attend_graph_error(g), "no memory") && !plan)
        status = ATTEND_EDEVICE;
    attend_graph_free(g); /* a plan does not need it */
    if (plan) {
        int made = attend_exec_new(plan, &e);
        status = made < 0 ? made : status;
    }
    if (e) {
        int used = use(e);
        status = used < 0 ? used : status;
    }
    attend_exec_free(e);
    attend_plan_free(plan);
    attend_ctx_free(ctx);
    return status;
}

static void each_allocation(const char *device, int threads)
{
    attend_ctx_opts opts;
    attend_ctx_opts_init(&opts);
    opts.threads = threads;
    opts.allocator = (attend_allocator){hook_alloc, hook_free, &calls};
    int status = ATTEND_ENOMEM, wrong = 0;
    for (fail_at = 1; status == ATTEND_ENOMEM && wrong == 0 && fail_at < 10000; fail_at++) {
        calls = 0;
        status = whole_way(&opts, device);
        wrong = live != 0 || (status < 0 && status != ATTEND_ENOMEM);
        if (wrong)
            diag("allocation %d: status %d, %d blocks lost", (int)fail_at, status, (int)live);
    }
    ok(status == 0 && wrong == 0 && fail_at > 50,
       "%s, %d threads: each of %d allocations fails once", device, threads, (int)fail_at - 2);
}

/* ---- what contexts refuse ---- */

static void no_parallel(void *arg, int64_t n, void (*fn)(void *fn_arg, int64_t item, int slot),
                        void *fn_arg)
{
    (void)arg;
    (void)n;
    (void)fn;
    (void)fn_arg;
}

static void options(void)
{
    attend_ctx_opts opts;
    attend_ctx *ctx;
    attend_ctx_opts_init(&opts);
    opts.allocator.alloc = hook_alloc;
    ok(attend_ctx_new(&opts, &ctx) == ATTEND_EINVAL && !ctx, "an allocator that cannot free");
    attend_ctx_opts_init(&opts);
    opts.executor.parallel_for = no_parallel;
    ok(attend_ctx_new(&opts, &ctx) == ATTEND_EINVAL && !ctx, "an executor without slots");
    attend_ctx_opts_init(&opts);
    opts.threads = 3;
    opts.size = offsetof(attend_ctx_opts, allocator); /* what an older caller knew */
    opts.executor.parallel_for = no_parallel;
    ok(attend_ctx_new(&opts, &ctx) == 0 && attend_ctx_threads(ctx) == 3,
       "options of an older caller");
    attend_ctx_free(ctx);
    ok(attend_ctx_new(NULL, &ctx) == 0 && attend_ctx_threads(ctx) >= 1, "no options");
    attend_ctx_free(ctx);
    attend_ctx_free(NULL);
    attend_graph_free(NULL);
    attend_plan_free(NULL);
    attend_exec_free(NULL);
    is_int(attend_graph_status(NULL), ATTEND_ENOMEM, "a graph that could not be made");
    is_str(attend_graph_error(NULL), "no memory for a graph", "and its sentence");
}

int main(void)
{
    uint64_t r = 160;
    help_normal(&r, x, (int64_t)NELEM(x));
    for (int i = 0; i < WIDE; i++)
        weight[i] = 1;
    options();
    each_allocation("ref", 1);
    each_allocation("simd", 1);
    each_allocation("simd", 2);
    return done_testing();
}
