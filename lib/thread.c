/* SPDX-License-Identifier: MIT */
/* The small pool: threads - 1 workers and whoever calls.
 *
 * A run is a job on its caller's stack.  The caller offers it to idle workers, each through a
 * mailbox of its own, and works itself; items are handed out by a counter.  When none is left it
 * takes back the offers that nobody has taken up, so a run never waits for a worker that is slow to
 * wake, and then waits for the workers that did join.  A second run at the same time finds those
 * workers' mailboxes occupied and gets on with the others, or alone.
 *
 * No wake-up is lost: who waits first announces it and then looks again at what it waits for; who
 * brings that about first writes it and then looks for announcements (sequentially consistent, so
 * one of the two sees the other); and a signal is sent under the lock of the waiter's last look. */
#include "core.h"
#include "os.h"

#include <stdalign.h>
#include <stdatomic.h>

/* How long a waiter spins before it sleeps, in nanoseconds: a few times what waking costs. */
#define SPIN_NS 20000
#define LINE 64 /* of the cache, bytes */

struct job {
    void (*fn)(void *arg, int64_t item, int slot);
    void *arg;
    int64_t n;
    alignas(LINE) atomic_int_least64_t next;
    alignas(LINE) atomic_int left; /* workers that joined and are through with the job */
};

struct worker {
    alignas(LINE) _Atomic(struct job *) mail; /* NULL: idle; &busy: at work; else an offer */
    atomic_bool asleep;
    struct at_pool *pool;
    int slot;
    struct at_os_thread *thread;
    struct at_os_mutex *lock; /* of sleeping */
    struct at_os_cond *wake;
};

struct at_pool {
    attend_ctx *ctx;
    struct worker *worker; /* [nworker]; worker w has slot w + 1 */
    int nworker;
    int64_t spin; /* nanoseconds; 0 where threads would only take the CPU from each other */
    atomic_bool quit;
    atomic_int waiting;       /* callers asleep until their workers are through */
    struct at_os_mutex *lock; /* of that sleep */
    struct at_os_cond *done;
};

static struct job busy; /* only its address is used */

/* Items are taken one at a time: they are tiles of work, thousands of cycles each. */
static void work(struct job *job, int slot)
{
    int64_t item;
    while ((item = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed)) < job->n)
        job->fn(job->arg, item, slot);
}

/* ---- a worker ---- */

static bool has_news(struct worker *w)
{
    return atomic_load(&w->mail) || atomic_load(&w->pool->quit);
}

static void await_news(struct worker *w)
{
    for (int64_t end = at_os_now() + w->pool->spin; at_os_now() < end; at_os_pause())
        if (has_news(w))
            return;
    at_os_mutex_lock(w->lock);
    atomic_store(&w->asleep, true);
    while (!has_news(w))
        at_os_cond_wait(w->wake, w->lock);
    atomic_store(&w->asleep, false);
    at_os_mutex_unlock(w->lock);
}

/* Counts this worker out of the job.  The job is gone as soon as its caller sees the count. */
static void leave(struct at_pool *pool, struct job *job)
{
    atomic_fetch_add(&job->left, 1);
    if (atomic_load(&pool->waiting) == 0)
        return;
    at_os_mutex_lock(pool->lock);
    at_os_cond_broadcast(pool->done);
    at_os_mutex_unlock(pool->lock);
}

static void worker_main(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->pool->quit)) {
        await_news(w);
        struct job *job = atomic_load(&w->mail);
        if (!job || !atomic_compare_exchange_strong(&w->mail, &job, &busy))
            continue; /* told to quit, or the offer was taken back */
        work(job, w->slot);
        atomic_store(&w->mail, NULL);
        leave(w->pool, job);
    }
}

/* ---- a run ---- */

static void wake(struct worker *w)
{
    at_os_mutex_lock(w->lock);
    at_os_cond_signal(w->wake);
    at_os_mutex_unlock(w->lock);
}

/* Offers the job to at most `most` idle workers; how many there were. */
static int offer(struct at_pool *pool, struct job *job, int64_t most)
{
    int offers = 0;
    for (int i = 0; i < pool->nworker && offers < most; i++) {
        struct worker *w = &pool->worker[i];
        struct job *idle = NULL;
        if (!atomic_compare_exchange_strong(&w->mail, &idle, job))
            continue;
        offers++;
        if (atomic_load(&w->asleep))
            wake(w);
    }
    return offers;
}

static int take_back(struct at_pool *pool, struct job *job)
{
    int taken = 0;
    for (int i = 0; i < pool->nworker; i++) {
        struct job *offered = job;
        taken += atomic_compare_exchange_strong(&pool->worker[i].mail, &offered, NULL);
    }
    return taken;
}

static void await_workers(struct at_pool *pool, struct job *job, int joined)
{
    if (atomic_load(&job->left) == joined)
        return;
    for (int64_t end = at_os_now() + pool->spin; at_os_now() < end; at_os_pause())
        if (atomic_load(&job->left) == joined)
            return;
    at_os_mutex_lock(pool->lock);
    atomic_fetch_add(&pool->waiting, 1);
    while (atomic_load(&job->left) != joined)
        at_os_cond_wait(pool->done, pool->lock);
    atomic_fetch_sub(&pool->waiting, 1);
    at_os_mutex_unlock(pool->lock);
}

void at_pool_for(void *arg, int64_t n, void (*fn)(void *arg, int64_t item, int slot), void *fn_arg)
{
    struct at_pool *pool = arg;
    struct job job = {.fn = fn, .arg = fn_arg, .n = n};
    int offers = offer(pool, &job, n - 1);
    work(&job, 0);
    if (offers > 0)
        await_workers(pool, &job, offers - take_back(pool, &job));
}

/* ---- its life ---- */

static int start_worker(struct at_pool *pool, int i)
{
    struct worker *w = &pool->worker[i];
    w->pool = pool;
    w->slot = i + 1;
    w->lock = at_os_mutex_new();
    w->wake = at_os_cond_new();
    if (!w->lock || !w->wake)
        return ATTEND_ENOMEM;
    return at_os_thread_new(&w->thread, worker_main, w, NULL, 0);
}

int at_pool_new(attend_ctx *ctx, int threads, struct at_pool **out)
{
    *out = NULL;
    if (threads < 1)
        return ATTEND_EINVAL;
    struct at_pool *pool = at_calloc(ctx, 1, sizeof *pool);
    if (!pool)
        return ATTEND_ENOMEM;
    pool->ctx = ctx;
    pool->nworker = threads - 1;
    pool->spin = threads <= at_os_cpu_count() ? SPIN_NS : 0;
    pool->worker = at_calloc(ctx, pool->nworker, sizeof *pool->worker);
    pool->lock = at_os_mutex_new();
    pool->done = at_os_cond_new();
    int status = pool->worker && pool->lock && pool->done ? ATTEND_OK : ATTEND_ENOMEM;
    for (int i = 0; i < pool->nworker && status == ATTEND_OK; i++)
        status = start_worker(pool, i);
    if (status < 0) {
        at_pool_free(pool);
        return status;
    }
    *out = pool;
    return ATTEND_OK;
}

void at_pool_free(struct at_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->quit, true);
    for (int i = 0; pool->worker && i < pool->nworker; i++) {
        struct worker *w = &pool->worker[i];
        if (w->thread)
            wake(w);
        at_os_thread_join(w->thread);
        at_os_mutex_free(w->lock);
        at_os_cond_free(w->wake);
    }
    at_os_mutex_free(pool->lock);
    at_os_cond_free(pool->done);
    at_free(pool->ctx, pool->worker);
    at_free(pool->ctx, pool);
}
