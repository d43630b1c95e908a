/* SPDX-License-Identifier: MIT */
/* Races in shared memory, by vector clocks of warps.
 *
 * A warp's clock grows when it hands on what it did: at a barrier, at bar.warp.sync, at an atomic
 * after a fence.  vc[v] is how far this warp knows of warp v.  An access of warp v at clock c comes
 * before what warp w does now when c <= vc_w[v].  Lanes of one warp are ordered among themselves
 * only across a change of its own clock (the lockstep of this emulator is nothing to rely on).
 *
 * A word remembers its last write and, for each warp, its last read, with a bit per byte, so that
 * neighbours inside a word do not disturb each other.  Older accesses that are overwritten by
 * these can be missed; nothing that is ordered is ever reported. */
#include "emu.h"

#include <string.h>

#define SEVERAL 63u /* lanes */
#define CLOCK_LIMIT (1u << 20)

static bool known(const struct warp *w, uint32_t warp, uint32_t clock, uint32_t by, int lane)
{
    if ((int)warp != w->index)
        return clock <= w->vc[warp];
    return clock < w->clock || (lane >= 0 && by == (uint32_t)lane);
}

static void complain(struct warp *w, const struct ptx_ins *in, int lane, uint32_t addr,
                     const char *now, const char *before, uint32_t warp, uint32_t by)
{
    if ((int)warp == w->index)
        warp_fault(w, in, lane, FAULT_RACE,
                   "%s of shared byte %u, which lane %d of the same warp has %s with no "
                   "bar.warp.sync between",
                   now, addr, by == SEVERAL ? -1 : (int)by, before);
    warp_fault(w, in, lane, FAULT_RACE,
               "%s of shared byte %u, which warp %u (lane %d) has %s with no barrier between", now,
               addr, warp, by == SEVERAL ? -1 : (int)by, before);
}

static void check_reads(struct warp *w, const struct ptx_ins *in, int lane, uint32_t word,
                        uint32_t mask)
{
    struct block *b = w->block;
    const uint32_t *reads = b->reads + (size_t)word * (size_t)b->nwarps;
    for (uint32_t v = 0; v < (uint32_t)b->nwarps; v++) {
        uint32_t r = reads[v];
        if ((r & mask) && !known(w, v, r >> 12, r >> 4 & 63, lane))
            complain(w, in, lane, word * 4, "write", "read", v, r >> 4 & 63);
    }
}

static void note_read(struct warp *w, int lane, uint32_t word, uint32_t mask)
{
    uint32_t *r = w->block->reads + (size_t)word * (size_t)w->block->nwarps + w->index;
    uint32_t by = lane < 0 ? SEVERAL : (uint32_t)lane;
    if (*r && *r >> 12 == w->clock && (*r >> 4 & 63) == by) {
        mask |= *r & 15;
    } else if (*r && *r >> 12 == w->clock && (*r & mask)) {
        mask &= *r; /* the bytes that several lanes have read; others would be blamed on them */
        by = SEVERAL;
    }
    *r = w->clock << 12 | by << 4 | mask;
}

/* same_value: the bytes already held what is written, so lanes of one instruction may agree. */
static void touch_word(struct warp *w, const struct ptx_ins *in, int lane, uint32_t word,
                       uint32_t mask, enum access kind, bool same_value)
{
    struct cell *c = &w->block->cells[word];
    bool both_atomic = c->atomic && kind == ACCESS_ATOMIC;
    if ((c->mask & mask) && !both_atomic && !known(w, c->warp, c->clock, c->lane, lane)) {
        bool one_instruction = c->warp == w->index && c->tick == (uint32_t)w->tick;
        if (!(one_instruction && kind == ACCESS_WRITE && same_value))
            complain(w, in, lane, word * 4, kind == ACCESS_READ ? "read" : "write", "written",
                     c->warp, c->lane);
    }
    if (kind == ACCESS_READ) {
        note_read(w, lane, word, mask);
        return;
    }
    check_reads(w, in, lane, word, mask);
    *c = (struct cell){w->clock,      (uint8_t)w->index,     lane < 0 ? SEVERAL : (uint8_t)lane,
                       (uint8_t)mask, kind == ACCESS_ATOMIC, (uint32_t)w->tick};
}

void race_shared(struct warp *w, const struct ptx_ins *in, int lane, uint32_t addr, uint32_t bytes,
                 enum access kind, bool same_value)
{
    if (!config.checks || w->clock >= CLOCK_LIMIT)
        return;
    uint32_t end = addr + bytes;
    if (!((addr | bytes) & 3)) {
        for (uint32_t word = addr / 4; word < end / 4; word++)
            touch_word(w, in, lane, word, 15, kind, same_value);
        return;
    }
    for (uint32_t word = addr / 4; word * 4 < end; word++) {
        uint32_t first = word * 4 < addr ? addr - word * 4 : 0;
        uint32_t last = word * 4 + 4 > end ? end - word * 4 : 4;
        touch_word(w, in, lane, word, (0xfu >> (4 - (last - first))) << first, kind, same_value);
    }
}

void race_join(uint32_t *into, const uint32_t *from)
{
    for (int i = 0; i < MAX_WARPS; i++)
        into[i] = into[i] > from[i] ? into[i] : from[i];
}

void race_sync_warp(struct warp *w)
{
    w->vc[w->index] = w->clock++;
}

/* What came before a fence is handed on by the atomics after it; what atomics brought counts from
 * the next fence on. */
void race_fence(struct warp *w)
{
    race_join(w->vc, w->pending);
    race_sync_warp(w);
    memcpy(w->fenced, w->vc, sizeof w->fenced);
}

void race_sync_shared(struct warp *w, bool read, bool write)
{
    if (read)
        race_join(w->pending, w->block->sync_vc);
    if (write)
        race_join(w->block->sync_vc, w->fenced);
}
