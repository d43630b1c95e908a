/* SPDX-License-Identifier: MIT */
/* The thread pool: each item once, slots that differ, runs inside and beside each other, many short
 * runs, and ends while workers spin or sleep. */
#include "tap.h"
#include "core.h"
#include "os.h"

#include <stdatomic.h>
#include <string.h>

#define MOST 64 /* slots that a test looks at */

static attend_ctx ctx;

static struct at_pool *pool_of(int threads)
{
    struct at_pool *pool;
    if (at_pool_new(&ctx, threads, &pool) < 0)
        bail("no pool of %d threads", threads);
    return pool;
}

/* What one run did: how often each item, and whether two calls at a time had one slot. */
struct record {
    atomic_int times[5000];
    atomic_bool taken[MOST];
    atomic_int clashes, slots;
    int most; /* slots allowed */
};

static void note_item(void *arg, int64_t item, int slot)
{
    struct record *r = arg;
    if (slot < 0 || slot >= r->most || atomic_exchange(&r->taken[slot], true))
        atomic_fetch_add(&r->clashes, 1);
    atomic_fetch_add(&r->times[item], 1);
    if (slot >= 0 && slot < MOST)
        atomic_store(&r->taken[slot], false);
}

/* Items of [0, n) that were not done once, and items from n on that were done. */
static int wrong_items(struct record *r, int64_t n)
{
    int wrong = 0;
    for (int64_t i = 0; i < (int64_t)NELEM(r->times); i++)
        wrong += atomic_load(&r->times[i]) != (i < n);
    return wrong;
}

static void test_counts(int threads)
{
    static const int64_t counts[] = {0, 1, 2, 3, 7, 64, 1000, 5000};
    static struct record r;
    struct at_pool *pool = pool_of(threads);
    for (size_t k = 0; k < NELEM(counts); k++) {
        memset(&r, 0, sizeof r);
        r.most = threads;
        at_pool_for(pool, counts[k], note_item, &r);
        is_int(wrong_items(&r, counts[k]), 0, "%d threads, %d items: each once", threads,
               (int)counts[k]);
        is_int(r.clashes, 0, "%d threads, %d items: slots differ", threads, (int)counts[k]);
    }
    at_pool_free(pool);
}

static void add_item(void *arg, int64_t item, int slot)
{
    (void)slot;
    atomic_fetch_add((atomic_int_least64_t *)arg, item + 1);
}

/* Short runs back to back, and with pauses after which the workers sleep. */
static void test_short_runs(int threads)
{
    atomic_int_least64_t sum = 0;
    struct at_pool *pool = pool_of(threads);
    for (int run = 0; run < 5000; run++)
        at_pool_for(pool, 4, add_item, &sum);
    is_int(sum, 5000 * 10, "%d threads: 5000 short runs", threads);
    sum = 0;
    for (int run = 0; run < 50; run++) {
        at_os_sleep(run % 5 * 20000);
        at_pool_for(pool, 4, add_item, &sum);
    }
    is_int(sum, 50 * 10, "%d threads: runs after pauses", threads);
    at_pool_free(pool);
}

static void meet(void *arg, int64_t item, int slot)
{
    (void)item;
    (void)slot;
    atomic_int *here = arg;
    atomic_fetch_add(here, 1);
    for (int64_t end = at_os_now() + 5000000000; atomic_load(here) < 3 && at_os_now() < end;)
        at_os_yield();
}

/* Three items that wait for each other end only if three threads work. */
static void test_all_work(void)
{
    struct at_pool *pool = pool_of(3);
    for (int pause = 0; pause < 2; pause++) {
        atomic_int here = 0;
        int64_t start = at_os_now();
        at_os_sleep(pause * 2000000);
        at_pool_for(pool, 3, meet, &here);
        ok(at_os_now() - start < 4000000000, "every thread takes part%s",
           pause ? ", woken from sleep" : "");
    }
    at_pool_free(pool);
}

/* ---- runs inside and beside each other ---- */

struct nested {
    struct at_pool *pool;
    atomic_int_least64_t sum;
};

static void run_inside(void *arg, int64_t item, int slot)
{
    (void)item;
    (void)slot;
    struct nested *n = arg;
    at_pool_for(n->pool, 20, add_item, &n->sum);
}

static void test_nested(void)
{
    struct nested n = {.pool = pool_of(4)};
    for (int run = 0; run < 100; run++)
        at_pool_for(n.pool, 10, run_inside, &n);
    is_int(n.sum, 100 * 10 * 210, "runs inside of runs");
    at_pool_free(n.pool);
}

struct caller {
    struct at_pool *pool;
    struct record *record;
    int64_t wrong;
};

static void call_often(void *arg)
{
    struct caller *c = arg;
    for (int run = 0; run < 200; run++) {
        int64_t n = run % 50;
        memset(c->record, 0, sizeof *c->record);
        c->record->most = 3;
        at_pool_for(c->pool, n, note_item, c->record);
        c->wrong += wrong_items(c->record, n) + c->record->clashes;
    }
}

static void test_beside(void)
{
    static struct record record[4];
    struct at_pool *pool = pool_of(3);
    struct caller caller[4];
    struct at_os_thread *thread[4];
    for (int i = 0; i < 4; i++) {
        caller[i] = (struct caller){.pool = pool, .record = &record[i]};
        if (at_os_thread_new(&thread[i], call_often, &caller[i], NULL, 0) < 0)
            bail("no thread");
    }
    for (int i = 0; i < 4; i++) {
        at_os_thread_join(thread[i]);
        is_int(caller[i].wrong, 0, "caller %d of 4 on one pool: its items once, slots differ", i);
    }
    at_pool_free(pool);
}

/* ---- a run does not wait for others ---- */

struct hold {
    atomic_bool inside, release;
};

static void hold_item(void *arg, int64_t item, int slot)
{
    (void)item;
    (void)slot;
    struct hold *h = arg;
    atomic_store(&h->inside, true);
    while (!atomic_load(&h->release))
        at_os_yield();
}

struct holder {
    struct at_pool *pool;
    struct hold hold;
};

static void hold_pool(void *arg)
{
    struct holder *h = arg;
    at_pool_for(h->pool, 8, hold_item, &h->hold);
}

static void test_not_blocked(void)
{
    struct holder h = {.pool = pool_of(2)};
    struct at_os_thread *thread;
    if (at_os_thread_new(&thread, hold_pool, &h, NULL, 0) < 0)
        bail("no thread");
    while (!atomic_load(&h.hold.inside))
        at_os_yield();
    atomic_int_least64_t sum = 0;
    at_pool_for(h.pool, 10, add_item, &sum); /* would hang if it waited for the other */
    is_int(sum, 55, "a run ends while another holds the workers");
    atomic_store(&h.hold.release, true);
    at_os_thread_join(thread);
    at_pool_free(h.pool);
}

static void test_life(void)
{
    struct at_pool *pool = NULL;
    is_int(at_pool_new(&ctx, 0, &pool), ATTEND_EINVAL, "no pool of 0 threads");
    ok(!pool, "and none is returned");
    at_pool_free(NULL);
    for (int i = 0; i < 20; i++)
        at_pool_free(pool_of(4)); /* while its workers start or spin */
    pool = pool_of(4);
    at_os_sleep(2000000);
    at_pool_free(pool); /* while they sleep */
    ok(true, "pools end while idle");
}

int main(void)
{
    static const int threads[] = {1, 2, 3, 8};
    for (size_t i = 0; i < NELEM(threads); i++) {
        test_counts(threads[i]);
        test_short_runs(threads[i]);
    }
    test_all_work();
    test_nested();
    test_beside();
    test_not_blocked();
    test_life();
    return done_testing();
}
