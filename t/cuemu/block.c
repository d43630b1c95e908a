/* SPDX-License-Identifier: MIT */
/* One block: its warps take turns; barriers, and what they hand on. */
#include "emu.h"

#include <stdlib.h>
#include <string.h>

/* ---- barriers ---- */

static int threads_of(const struct warp *w)
{
    return __builtin_popcount(w->live);
}

/* Without a count a barrier waits for every thread that has not exited. */
static int expected_threads(const struct block *b)
{
    int n = 0;
    for (int i = 0; i < b->nwarps; i++)
        n += b->warps[i].state == WARP_DONE ? 0 : threads_of(&b->warps[i]);
    return n;
}

static void wake(struct block *b, int id)
{
    struct barrier *bar = &b->barriers[id];
    for (int i = 0; i < b->nwarps; i++) {
        struct warp *w = &b->warps[i];
        if (w->state != WARP_BARRIER || w->barrier != id)
            continue;
        race_join(w->vc, bar->vc);
        race_sync_warp(w);
        if (bar->ins->f[F_DIR] == D_RED) {
            struct slot *d = slot_at(&w->base, bar->ins->o[0].off);
            uint32_t result = bar->count;
            if (bar->ins->f[F_BOP] != B_POPC) {
                bool yes = bar->ins->f[F_BOP] == B_AND ? bar->all : bar->any;
                d->mask = yes ? d->mask | w->live : d->mask & ~w->live;
            } else {
                for (int k = 0; k < WARP; k++)
                    d->u[k] = result;
            }
            d->def |= w->live;
        }
        w->state = WARP_READY;
    }
    *bar = (struct barrier){.expected = 0};
}

static void check_full(struct block *b, int id)
{
    struct barrier *bar = &b->barriers[id];
    int expected = bar->expected > 0 ? bar->expected : expected_threads(b);
    if (bar->ins && bar->arrived >= expected)
        wake(b, id);
}

/* bar.red: the predicate of each thread. */
static void reduce(struct warp *w, struct barrier *bar, const struct ptx_ins *in, uint32_t mask)
{
    const struct ptx_operand *o = &in->o[3];
    warp_need_defined(w, in, o, mask, "the predicate of bar.red");
    uint32_t p = slot_at(w->frame, o->off)->mask;
    p = (o->negated ? ~p : p) & mask;
    if (!bar->arrived)
        bar->all = 1;
    bar->count += (uint32_t)__builtin_popcount(p);
    bar->all &= p == mask;
    bar->any |= p != 0;
}

void block_barrier(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    struct block *b = w->block;
    bool red = in->f[F_DIR] == D_RED, arrive = in->f[F_DIR] == D_ARRIVE;
    const struct ptx_operand *which = &in->o[red ? 1 : 0], *count = &in->o[red ? 2 : 1];
    b->launch->stats.barriers++;
    if (mask != w->live)
        warp_fault(w, in, __builtin_ctz(w->live & ~mask), FAULT_CONVERGENCE,
                   "a barrier that only lanes %08x of %08x reach together", mask, w->live);
    warp_need_defined(w, in, which, mask, "the number of a barrier");
    uint32_t id = slot_at(w->frame, which->off)->u[__builtin_ctz(mask)];
    uint32_t n = 0;
    if (count->kind == O_SLOT)
        n = slot_at(w->frame, count->off)->u[__builtin_ctz(mask)];
    if (id >= 16 || n % WARP || n > 1024 || (arrive && !n))
        warp_fault(w, in, -1, FAULT_UNSUPPORTED,
                   "barrier %u of %u threads: 0 to 15, and whole warps", id, n);
    struct barrier *bar = &b->barriers[id];
    if (bar->ins && bar->expected != (int)n)
        warp_fault(w, in, -1, FAULT_CONVERGENCE, "barrier %u of %u threads, where others said %d",
                   id, n, bar->expected);
    if (bar->ins && (bar->ins->f[F_DIR] == D_RED) != red)
        warp_fault(w, in, -1, FAULT_CONVERGENCE, "barrier %u is a reduction for some warps only",
                   id);
    if (red)
        reduce(w, bar, in, mask);
    if (!arrive || !bar->ins)
        bar->ins = in;
    bar->expected = (int)n;
    bar->arrived += n ? WARP : threads_of(w);
    w->vc[w->index] = w->clock;
    race_join(bar->vc, w->vc);
    race_sync_warp(w);
    if (n && bar->arrived > (int)n)
        warp_fault(w, in, -1, FAULT_CONVERGENCE, "barrier %u of %u threads has been reached by %d",
                   id, n, bar->arrived);
    if (!arrive) {
        w->state = WARP_BARRIER;
        w->barrier = (int)id;
    }
    check_full(b, (int)id);
}

/* ---- turns ---- */

static void start_warp(struct block *b, int i)
{
    struct warp *w = &b->warps[i];
    struct launch *l = b->launch;
    uint32_t threads = l->dim[0] * l->dim[1] * l->dim[2];
    int rest = (int)threads - i * WARP;
    w->block = b;
    w->index = i;
    w->live = rest >= WARP ? FULL : (1u << rest) - 1;
    w->state = WARP_READY;
    w->tick = 0;
    w->clock = 1;
    w->ncopies = 0;
    memset(w->vc, 0, sizeof w->vc);
    memset(w->fenced, 0, sizeof w->fenced);
    memset(w->pending, 0, sizeof w->pending);
    memset(w->commits, 0, sizeof w->commits);
    w->base = (struct frame){.fn = l->fn, .file = w->file, .group = {{0, w->live}}, .ngroups = 1};
    w->frame = &w->base;
    if (w->local) {
        memset(w->local, 0xff, (size_t)l->local_size * WARP);
        memset(w->local_state, 0, (size_t)l->local_size * WARP);
    }
    for (int k = 0; k < l->fn->nregs; k++) {
        struct slot *s = slot_at(&w->base, l->fn->reg_off[k]);
        s->def = s->origin = 0;
    }
    slot_at(&w->base, l->fn->carry)->def = 0;
}

static void set_special(struct warp *w, enum ptx_special s, int lane, uint64_t value)
{
    uint32_t off = w->block->launch->fn->special[s];
    if (!off)
        return;
    struct slot *slot = slot_at(&w->base, off);
    if (s == S_CLOCK64 || s == S_GLOBALTIMER)
        slot->ul[lane] = value;
    else
        slot->u[lane] = (uint32_t)value;
}

static void set_specials(struct warp *w)
{
    const struct block *b = w->block;
    const struct launch *l = b->launch;
    for (int i = 0; i < WARP; i++) {
        uint32_t t = (uint32_t)(w->index * WARP + i);
        set_special(w, S_TID_X, i, t % l->dim[0]);
        set_special(w, S_TID_Y, i, t / l->dim[0] % l->dim[1]);
        set_special(w, S_TID_Z, i, t / l->dim[0] / l->dim[1]);
        set_special(w, S_WARPID, i, (uint64_t)w->index);
        for (int k = 0; k < 3; k++)
            set_special(w, (enum ptx_special)(S_CTAID_X + k), i, (uint64_t)b->ctaid[k]);
        set_special(w, S_SMID, i, b->index % 4);
    }
}

void block_start(struct block *b, uint32_t index)
{
    struct launch *l = b->launch;
    b->index = index;
    b->ctaid[0] = (int)(index % l->grid[0]);
    b->ctaid[1] = (int)(index / l->grid[0] % l->grid[1]);
    b->ctaid[2] = (int)(index / l->grid[0] / l->grid[1]);
    b->fences = 0;
    b->done = false;
    memset(b->barriers, 0, sizeof b->barriers);
    memset(b->sync_vc, 0, sizeof b->sync_vc);
    memset(b->shared, 0xff, b->shared_size); /* NaN */
    memset(b->shared_state, 0, b->shared_size);
    memset(b->cells, 0, (b->shared_size / 4 + 1) * sizeof *b->cells);
    memset(b->reads, 0, (b->shared_size / 4 + 1) * (size_t)b->nwarps * sizeof *b->reads);
    for (int i = 0; i < b->nwarps; i++) {
        start_warp(b, i);
        set_specials(&b->warps[i]);
    }
    l->stats.blocks++;
}

static void deadlock(struct block *b)
{
    for (int i = 0; i < b->nwarps; i++) {
        struct warp *w = &b->warps[i];
        if (w->state == WARP_BARRIER) {
            const struct barrier *bar = &b->barriers[w->barrier];
            warp_fault(w, bar->ins, -1, FAULT_DEADLOCK,
                       "barrier %d waits for ever: %d threads have come, %d are due", w->barrier,
                       bar->arrived, bar->expected ? bar->expected : expected_threads(b));
        }
    }
}

void block_run(struct block *b, uint64_t quantum)
{
    struct launch *l = b->launch;
    uint64_t end = l->run + quantum;
    while (l->run < end) {
        int ready = 0, left = 0;
        uint32_t first = l->rng ? launch_random(l, (uint32_t)b->nwarps) : 0;
        for (int k = 0; k < b->nwarps; k++) {
            struct warp *w = &b->warps[(first + (uint32_t)k) % (uint32_t)b->nwarps];
            if (w->state == WARP_READY) {
                ready++;
                warp_run(w, l->rng ? 1 + launch_random(l, 4000) : 20000);
                if (w->state == WARP_DONE) { /* others may have waited for it */
                    for (int id = 0; id < 16; id++)
                        check_full(b, id);
                }
            }
            left += w->state != WARP_DONE;
        }
        if (!left) {
            b->done = true;
            return;
        }
        if (!ready)
            deadlock(b);
    }
}
