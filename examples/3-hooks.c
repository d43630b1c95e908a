/* SPDX-License-Identifier: MIT */
/* A host that keeps everything in its own hands: memory, threads, messages, and the end of a run.
 */
#include <attend.h>
#include <stdio.h>
#include <stdlib.h>

/* Memory: aligned as asked, and counted. */
struct memory {
    long blocks, most;
};

static void *take(void *arg, size_t bytes, size_t align)
{
    struct memory *m = arg;
    void *p = aligned_alloc(align, (bytes + align - 1) / align * align);
    if (p && ++m->blocks > m->most)
        m->most = m->blocks;
    return p;
}

static void give(void *arg, void *p, size_t bytes)
{
    (void)bytes;
    ((struct memory *)arg)->blocks--;
    free(p);
}

/* Threads: here just the caller's, which takes the items in turn; a host with a pool hands them
 * out, with a slot for each of its threads. */
static void in_turn(void *arg, int64_t n, void (*fn)(void *, int64_t, int), void *fn_arg)
{
    *(long *)arg += 1;
    for (int64_t i = 0; i < n; i++)
        fn(fn_arg, i, 0);
}

static void tell(void *arg, const char *line)
{
    fprintf(stderr, "%s: %s\n", (const char *)arg, line);
}

static int run(attend_ctx *ctx, volatile int *stop)
{
    enum { N = 256, D = 16 };
    static float x[N * D], o[N * D];
    attend_plan *plan = NULL;
    attend_exec *exec = NULL;
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor t = attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(1, 1, N, D));
    attend_graph_output(g, "o", attend_graph_attention(g, t, t, t, NULL, NULL));
    int status = attend_compile(g, NULL, &plan);
    if (status == 0)
        status = attend_exec_new(plan, &exec);
    if (status == 0) {
        const attend_binding bind[] = {
            {.name = "x", .data = x, .bytes = sizeof x},
            {.name = "o", .data = o, .bytes = sizeof o},
        };
        attend_exec_cancel(exec, stop);
        status = attend_bind(exec, bind, 2);
    }
    if (status == 0)
        status = attend_run(exec);
    printf("%s\n", attend_status_name(status));
    attend_exec_free(exec);
    attend_plan_free(plan);
    attend_graph_free(g);
    return status;
}

int main(void)
{
    static char name[] = "attend";
    struct memory memory = {0, 0};
    long calls = 0;
    volatile int stop = 0;
    attend_ctx *ctx;
    attend_ctx_opts opts;
    attend_ctx_opts_init(&opts);
    opts.allocator.alloc = take;
    opts.allocator.free = give;
    opts.allocator.arg = &memory;
    opts.executor.parallel_for = in_turn;
    opts.executor.arg = &calls;
    opts.executor.slots = 1;
    opts.log = tell;
    opts.log_arg = name;
    if (attend_ctx_new(&opts, &ctx) < 0)
        return 1;
    run(ctx, &stop);
    stop = 1; /* another thread would do this, or a signal handler */
    run(ctx, &stop);
    attend_ctx_free(ctx);
    printf("%s; the executor was %s; %ld blocks are left\n",
           memory.most > 0 ? "memory was asked for" : "?", calls > 0 ? "called" : "not called",
           memory.blocks);
    return 0;
}

/* Prints:
 * ATTEND_OK
 * ATTEND_ECANCELLED
 * memory was asked for; the executor was called; 0 blocks are left
 */
