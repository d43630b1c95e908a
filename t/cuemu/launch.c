/* SPDX-License-Identifier: MIT */
/* A grid: its blocks one after another in an order from the seed.  A block that has run for long
 * (it may be waiting for another) is put aside for the next. */
#include "emu.h"

#include <stdlib.h>
#include <string.h>

#define RESIDENT 64u          /* blocks under way at a time */
#define BLOCK_QUANTUM 4000000 /* instructions before the next block gets its turn */

uint32_t launch_random(struct launch *l, uint32_t below)
{
    l->rng = l->rng * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((l->rng >> 33) % below);
}

static uint64_t var_address(const struct launch *l, const struct ptx_fn *fn,
                            const struct ptx_var *v, uint64_t local_base)
{
    if (v->space == SP_LOCAL)
        return local_base + v->at;
    if (v->space == SP_SHARED && v->is_extern)
        return (l->fn->shared_size + 15) / 16 * 16;
    (void)fn;
    return v->at;
}

static void fill(uint8_t *file, uint32_t off, uint8_t width, uint64_t value)
{
    struct slot *s = (struct slot *)(void *)(file + off);
    s->def = FULL;
    s->origin = 0;
    if (width == 1) {
        s->mask = value ? FULL : 0;
        return;
    }
    for (int i = 0; i < WARP; i++) {
        if (width == 8)
            s->ul[i] = value;
        else
            s->u[i] = (uint32_t)value;
    }
}

static void fill_special(const struct launch *l, const struct ptx_fn *fn, uint8_t *file, int s,
                         uint64_t value)
{
    (void)l;
    if (fn->special[s])
        fill(file, fn->special[s], s == S_CLOCK64 || s == S_GLOBALTIMER ? 8 : 4, value);
}

void launch_init_file(struct launch *l, const struct ptx_fn *fn, uint8_t *file, uint64_t local_base)
{
    for (int i = 0; i < fn->nconsts; i++) {
        const struct ptx_const *c = &fn->consts[i];
        fill(file, c->off, c->width,
             c->value + (c->var ? var_address(l, fn, c->var, local_base) : 0));
    }
    for (int s = 0; s < S_COUNT; s++)
        fill_special(l, fn, file, s, 0);
    for (int k = 0; k < 3; k++) {
        fill_special(l, fn, file, S_NTID_X + k, l->dim[k]);
        fill_special(l, fn, file, S_NCTAID_X + k, l->grid[k]);
    }
    uint32_t threads = l->dim[0] * l->dim[1] * l->dim[2];
    fill_special(l, fn, file, S_NWARPID, (threads + WARP - 1) / WARP);
    fill_special(l, fn, file, S_NSMID, 4);
    fill_special(l, fn, file, S_DYNAMIC_SMEM, l->dynamic);
    fill_special(l, fn, file, S_TOTAL_SMEM, (l->fn->shared_size + 15) / 16 * 16 + l->dynamic);
    fill_special(l, fn, file, S_WARPSZ, WARP);
    static const enum ptx_special lane[] = {S_LANEID,      S_LANEMASK_EQ, S_LANEMASK_LT,
                                            S_LANEMASK_LE, S_LANEMASK_GT, S_LANEMASK_GE};
    for (uint32_t i = 0; i < WARP; i++) {
        uint32_t eq = 1u << i, lt = eq - 1;
        const uint32_t value[] = {i, eq, lt, lt | eq, ~(lt | eq), ~lt};
        for (int k = 0; k < 6; k++) {
            if (fn->special[lane[k]])
                ((struct slot *)(void *)(file + fn->special[lane[k]]))->u[i] = value[k];
        }
    }
}

static void *need(void *p)
{
    if (!p)
        abort();
    return p;
}

static struct block *new_block(struct launch *l)
{
    struct block *b = need(calloc(1, sizeof *b));
    uint32_t threads = l->dim[0] * l->dim[1] * l->dim[2];
    b->launch = l;
    b->nwarps = (int)((threads + WARP - 1) / WARP);
    b->shared_size = (l->fn->shared_size + 15) / 16 * 16 + l->dynamic;
    size_t words = b->shared_size / 4 + 1;
    b->shared = need(malloc(b->shared_size + 16));
    b->shared_state = need(malloc(b->shared_size + 16));
    b->cells = need(malloc(words * sizeof *b->cells));
    b->reads = need(malloc(words * (size_t)b->nwarps * sizeof *b->reads));
    b->warps = need(calloc((size_t)b->nwarps, sizeof *b->warps));
    size_t local = (size_t)l->local_size * WARP;
    for (int i = 0; i < b->nwarps; i++) {
        struct warp *w = &b->warps[i];
        w->file = need(malloc(l->fn->file_size + sizeof(struct slot))); /* slots are copied whole */
        launch_init_file(l, l->fn, w->file, 0);
        w->local = local ? need(malloc(local)) : NULL;
        w->local_state = local ? need(malloc(local)) : NULL;
    }
    return b;
}

static void free_block(struct block *b)
{
    if (!b)
        return;
    for (int i = 0; i < b->nwarps; i++) {
        free(b->warps[i].file);
        free(b->warps[i].local);
        free(b->warps[i].local_state);
        free(b->warps[i].copies);
    }
    free(b->warps);
    free(b->shared);
    free(b->shared_state);
    free(b->cells);
    free(b->reads);
    free(b->acquired);
    free(b);
}

/* The k-th block of the order: a walk through the grid by a step without common divisor. */
struct order {
    uint32_t n, first, step, next;
};

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    while (b) {
        uint32_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

static struct order make_order(struct launch *l)
{
    struct order o = {l->nblocks, 0, 1, 0};
    if (l->rng && l->nblocks > 2) {
        o.first = launch_random(l, l->nblocks);
        do
            o.step = 1 + launch_random(l, l->nblocks - 1);
        while (common_divisor(o.step, l->nblocks) > 1);
    }
    return o;
}

static uint32_t order_next(struct order *o)
{
    return (uint32_t)((o->first + (uint64_t)o->step * o->next++) % o->n);
}

static void run_grid(struct launch *l, struct block **slots)
{
    struct order order = make_order(l);
    uint32_t resident = 0, turn = 0;
    while (order.next < order.n || resident) {
        if (turn >= resident) { /* nobody left in this round: one more block */
            if (order.next == order.n || resident == RESIDENT) {
                turn = 0;
                continue;
            }
            if (!slots[resident])
                slots[resident] = new_block(l);
            free(slots[resident]->acquired);
            slots[resident]->acquired = NULL;
            block_start(slots[resident++], order_next(&order));
        }
        struct block *b = slots[turn];
        block_run(b, BLOCK_QUANTUM);
        if (l->run > config.limit)
            warp_fault(&b->warps[0], &l->fn->ins[0], -1, FAULT_DEADLOCK,
                       "the launch goes on after %llu warp instructions (CUEMU_LIMIT)",
                       (unsigned long long)l->run);
        if (b->done) {
            slots[turn] = slots[--resident];
            slots[resident] = b;
        } else {
            turn++;
        }
    }
}

static int status_of(enum fault_kind k)
{
    switch (k) {
    case FAULT_NONE:
        return 0;
    case FAULT_BOUNDS:
    case FAULT_FREED:
        return 700; /* ILLEGAL_ADDRESS */
    case FAULT_ALIGN:
        return 716; /* MISALIGNED_ADDRESS */
    case FAULT_DEADLOCK:
        return 702; /* LAUNCH_TIMEOUT */
    default:
        return 719; /* LAUNCH_FAILED */
    }
}

int launch_run(struct launch *l)
{
    struct block **slots = need(calloc(RESIDENT, sizeof *slots));
    static uint32_t serial;
    if (!(++serial & 0xfff)) { /* the tables hold 12 bits of it */
        mem_forget_accesses();
        serial++;
    }
    l->serial = serial;
    l->local_size = l->fn->local_size + (l->fn->ncalls ? CALL_STACK : 0);
    l->nblocks = l->grid[0] * l->grid[1] * l->grid[2];
    l->rng = config.seed;
    l->fault = FAULT_NONE;
    if (!setjmp(l->out))
        run_grid(l, slots);
    for (uint32_t i = 0; i < RESIDENT; i++)
        free_block(slots[i]);
    free(slots);
    blockrace_free(l);
    l->stats.instructions = 0;
    for (int i = 0; i < OP_COUNT; i++)
        l->stats.instructions += l->stats.op[i];
    if (config.stats)
        stats_write(config.stats, l->fn->name, &l->stats);
    return status_of(l->fault);
}
