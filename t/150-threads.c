/* SPDX-License-Identifier: MIT */
/* Threads: any number of them gives the same bits, one plan serves several execs at once, and the
 * caller's executor is used as its contract says. */
#include "graph_help.h"
#include "os.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- a layer: large enough that its work is shared out ---- */

enum { NH = 2, NG = 1, D = 32, ROOM = 2400, MOST = 300, WIDE = NH * D };

static float x[MOST * WIDE], w[WIDE * WIDE], cache[ROOM * NG * D];
static int32_t positions[MOST];

static attend_graph *layer(attend_ctx *ctx)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts o;
    attend_rope_opts r;
    attend_attention_opts_init(&o);
    attend_rope_opts_init(&r);
    r.pairing = ATTEND_ROPE_INTERLEAVED;
    int64_t n = attend_graph_dim(g, "n", 1, MOST);
    attend_tensor t = attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(n, WIDE));
    attend_tensor pos = attend_graph_input(g, "positions", ATTEND_I32, ATTEND_SHAPE(n));
    attend_tensor k = attend_graph_input(g, "k", ATTEND_F32, ATTEND_SHAPE(1, NG, ROOM, D));
    attend_tensor m = attend_graph_const(g, "w", ATTEND_F32, ATTEND_SHAPE(WIDE, WIDE), w, sizeof w);
    o.mask.causal = 1;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    attend_tensor q =
        attend_graph_matmul_nt(g, attend_graph_rms_norm(g, t, attend_none(), 1e-5f), m);
    q = attend_graph_reshape(g, q, ATTEND_SHAPE(1, ATTEND_INFER, NH, D));
    q = attend_graph_rope(g, attend_graph_permute(g, q, (int[]){0, 2, 1, 3}), pos, &r);
    q = attend_graph_attention(g, q, k, k, &o, NULL);
    q = attend_graph_reshape(g, attend_graph_permute(g, q, (int[]){0, 2, 1, 3}),
                             ATTEND_SHAPE(n, WIDE));
    attend_graph_output(g, "o",
                        attend_graph_softmax(g, attend_graph_add(g, attend_graph_silu(g, q), t)));
    return g;
}

static int run(attend_exec *e, int64_t n, float *o)
{
    attend_binding bind[] = {
        HELP_DIM("n", n),
        HELP_DATA("x", x),
        HELP_DATA("positions", positions),
        HELP_DATA("k", cache),
        {.name = "o", .data = o, .bytes = MOST * WIDE * (int64_t)sizeof *o}
    };
    int status = attend_bind(e, bind, (int)NELEM(bind));
    return status < 0 ? status : attend_run(e);
}

static const int64_t sizes[] = {1, 2, 17, MOST}; /* rows: one of each variant */
static float *want[NELEM(sizes)];

/* Runs every size; how many differ from `want`, which the first call makes. */
static int differing(attend_plan *plan)
{
    float *o = malloc(MOST * WIDE * sizeof *o);
    attend_exec *e;
    int different = 0;
    if (!o || attend_exec_new(plan, &e) < 0)
        bail("no exec");
    for (size_t i = 0; i < NELEM(sizes); i++) {
        size_t bytes = (size_t)sizes[i] * WIDE * sizeof *o;
        memset(o, 0xff, bytes);
        different += run(e, sizes[i], o) < 0;
        if (!want[i] && (want[i] = malloc(bytes)))
            memcpy(want[i], o, bytes);
        different += !want[i] || memcmp(o, want[i], bytes) != 0;
    }
    attend_exec_free(e);
    free(o);
    return different;
}

static void forget(void)
{
    for (size_t i = 0; i < NELEM(sizes); i++) {
        free(want[i]);
        want[i] = NULL;
    }
}

static void counts(const char *device)
{
    static const int threads[] = {1, 2, 3, 7};
    for (size_t i = 0; i < NELEM(threads); i++) {
        attend_ctx *ctx = help_context(threads[i]);
        attend_graph *g = layer(ctx);
        attend_plan *plan = help_compile(g, device, 1);
        is_int(differing(plan), 0, "%s: the same bits on %d threads", device, threads[i]);
        attend_plan_free(plan);
        attend_graph_free(g);
        attend_ctx_free(ctx);
    }
}

/* ---- one plan, execs on several threads ---- */

enum { AT_ONCE = 4 };

static attend_plan *shared;
static int found[AT_ONCE];

static void use_shared(void *arg)
{
    int *differ = arg;
    for (int i = 0; i < 3; i++)
        *differ += differing(shared);
}

static void at_once(const char *device, int threads)
{
    struct at_os_thread *thread[AT_ONCE];
    attend_ctx *ctx = help_context(threads);
    attend_graph *g = layer(ctx);
    int sum = 0;
    shared = help_compile(g, device, 1);
    attend_graph_free(g); /* the plan does not need it */
    for (int i = 0; i < AT_ONCE; i++) {
        found[i] = 0;
        if (at_os_thread_new(&thread[i], use_shared, &found[i], NULL, 0) < 0)
            bail("no thread");
    }
    for (int i = 0; i < AT_ONCE; i++) {
        at_os_thread_join(thread[i]);
        sum += found[i];
    }
    is_int(sum, 0, "%s: %d execs of one plan at once, %d threads: the same bits", device, AT_ONCE,
           threads);
    attend_plan_free(shared);
    attend_ctx_free(ctx);
}

/* ---- the caller's executor: here last item first, on slots in turn ---- */

struct turns {
    int slots;
    int64_t calls, items;
};

static void backwards(void *arg, int64_t n, void (*fn)(void *fn_arg, int64_t item, int slot),
                      void *fn_arg)
{
    struct turns *t = arg;
    t->calls++;
    t->items += n;
    for (int64_t i = n - 1; i >= 0; i--)
        fn(fn_arg, i, (int)(i % t->slots));
}

static void own_executor(const char *device)
{
    struct turns turns = {.slots = 5};
    attend_ctx_opts opts;
    attend_ctx *ctx;
    attend_ctx_opts_init(&opts);
    opts.executor = (attend_executor){backwards, &turns, turns.slots};
    if (attend_ctx_new(&opts, &ctx) < 0)
        bail("no context");
    attend_graph *g = layer(ctx);
    attend_plan *plan = help_compile(g, device, 1);
    is_int(attend_ctx_threads(ctx), turns.slots, "%s: its slots are the threads", device);
    is_int(differing(plan), 0, "%s: the same bits in any order of items", device);
    ok(turns.calls > 0 && turns.items > turns.calls, "%s: %d items of %d calls went there", device,
       (int)turns.items, (int)turns.calls);
    attend_plan_free(plan);
    attend_graph_free(g);
    attend_ctx_free(ctx);
}

/* ---- cancelling from another thread ---- */

struct canceller {
    int flag;
    atomic_int stop;
};

static void cancel_often(void *arg)
{
    struct canceller *c = arg;
    while (!atomic_load(&c->stop)) {
        __atomic_store_n(&c->flag, !__atomic_load_n(&c->flag, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
        at_os_pause();
    }
}

/* A run ends well, with the right bits, or says that it was cancelled. */
static void cancelled(const char *device)
{
    struct at_os_thread *thread;
    struct canceller c = {.flag = 0};
    attend_ctx *ctx = help_context(3);
    attend_graph *g = layer(ctx);
    attend_plan *plan = help_compile(g, device, 1);
    attend_exec *e;
    float *o = malloc(MOST * WIDE * sizeof *o);
    int wrong = 0;
    if (!o || attend_exec_new(plan, &e) < 0 ||
        at_os_thread_new(&thread, cancel_often, &c, NULL, 0) < 0)
        bail("no exec or thread");
    attend_exec_cancel(e, &c.flag);
    for (int i = 0; i < 20; i++) {
        int status = run(e, MOST, o);
        wrong += status == 0 ? memcmp(o, want[NELEM(sizes) - 1], MOST * WIDE * sizeof *o) != 0
                             : status != ATTEND_ECANCELLED;
    }
    atomic_store(&c.stop, 1);
    at_os_thread_join(thread);
    is_int(wrong, 0, "%s: a flag that is set while running", device);
    free(o);
    attend_exec_free(e);
    attend_plan_free(plan);
    attend_graph_free(g);
    attend_ctx_free(ctx);
}

int main(void)
{
    uint64_t r = 150;
    help_normal(&r, x, (int64_t)NELEM(x));
    help_normal(&r, w, (int64_t)NELEM(w));
    help_normal(&r, cache, (int64_t)NELEM(cache));
    for (int i = 0; i < MOST; i++)
        positions[i] = ROOM - MOST + i;
    counts("simd");
    at_once("simd", 1);
    at_once("simd", 3);
    own_executor("simd");
    cancelled("simd");
    forget();
    return done_testing();
}
