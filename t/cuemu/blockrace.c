/* SPDX-License-Identifier: MIT */
/* Races between blocks of one launch, in global memory.
 *
 * Each word remembers the last block that wrote it, and in which epoch: the number of fences that
 * block had executed.  An atomic (or volatile, or ordered) access of a block that has fenced hands
 * on its epoch, and all that it knows itself, at that address; who reads there afterwards knows
 * it.  A write of block A in epoch k comes before what B does when B knows an epoch of A above k.
 */
#include "emu.h"

#include <stdlib.h>
#include <string.h>

/* writer: serial 16 | block 24 | epoch 19 | atomic 1 | mask 4.  reader: serial 12 | block 20. */
#define MANY 0xfffffu

static bool knows(const struct block *b, uint32_t other, uint32_t epoch)
{
    return b->acquired && b->acquired[other] > epoch;
}

static void write_word(struct warp *w, const struct ptx_ins *in, int lane, struct alloc *a,
                       uint64_t word, uint32_t mask, enum access kind)
{
    struct block *b = w->block;
    uint32_t reader = a->reader ? a->reader[word] : 0;
    if (reader >> 20 == (b->launch->serial & 0xfff) && kind == ACCESS_WRITE) {
        uint32_t other = reader & MANY;
        bool ordered =
            other == b->index || (other == MANY ? b->acquired != NULL : knows(b, other, 0));
        if (!ordered)
            warp_fault(
                w, in, lane, FAULT_BLOCKS,
                "write of byte %llu of an allocation, which another block of this launch has read",
                (unsigned long long)word * 4);
    }
    uint64_t epoch = b->fences < 0x7ffff ? b->fences : 0x7ffff;
    a->writer[word] = (uint64_t)(b->launch->serial & 0xffff) << 48 | (uint64_t)b->index << 24 |
                      epoch << 5 | (kind == ACCESS_ATOMIC ? 16u : 0) | mask;
}

static void touch_word(struct warp *w, const struct ptx_ins *in, int lane, struct alloc *a,
                       uint64_t word, uint32_t mask, enum access kind)
{
    struct block *b = w->block;
    uint64_t writer = a->writer[word];
    uint32_t other = (uint32_t)(writer >> 24 & 0xffffff), epoch = (uint32_t)(writer >> 5 & 0x7ffff);
    if ((writer & mask) && writer >> 48 == (b->launch->serial & 0xffff) && other != b->index &&
        !(kind == ACCESS_ATOMIC && (writer & 16)) && !knows(b, other, epoch))
        warp_fault(w, in, lane, FAULT_BLOCKS,
                   "%s of byte %llu of an allocation, which block %u of this launch has written",
                   kind == ACCESS_READ ? "read" : "write", (unsigned long long)word * 4, other);
    if (kind != ACCESS_READ)
        write_word(w, in, lane, a, word, mask, kind);
}

static void note_read(struct block *b, struct alloc *a, uint64_t word)
{
    uint32_t serial = b->launch->serial & 0xfff, r = a->reader[word];
    uint32_t by = b->index < MANY ? b->index : MANY;
    if (r >> 20 == serial && (r & MANY) != by)
        by = MANY;
    a->reader[word] = serial << 20 | by;
}

static bool make_tables(struct alloc *a)
{
    size_t words = (size_t)(a->size + 3) / 4;
    if (!a->writer)
        a->writer = calloc(words, sizeof *a->writer);
    if (!a->reader)
        a->reader = calloc(words, sizeof *a->reader);
    return a->writer && a->reader;
}

void blockrace_access(struct warp *w, const struct ptx_ins *in, int lane, struct alloc *a,
                      uint64_t addr, uint32_t bytes, enum access kind)
{
    struct block *b = w->block;
    if (b->launch->nblocks == 1 || b->launch->nblocks > 0xffffff || a->constant)
        return;
    if ((!a->writer || !a->reader) && !make_tables(a))
        return;
    uint64_t at = addr - a->base, end = at + bytes;
    for (uint64_t word = at / 4; word * 4 < end; word++) {
        uint64_t first = word * 4 < at ? at - word * 4 : 0,
                 last = word * 4 + 4 > end ? end - word * 4 : 4;
        touch_word(w, in, lane, a, word, (0xfu >> (4 - (last - first))) << first, kind);
        if (kind == ACCESS_READ)
            note_read(b, a, word);
    }
}

static struct release *release_at(struct launch *l, uint64_t addr, bool make)
{
    for (int i = 0; i < l->nreleases; i++) {
        if (l->releases[i].addr == addr)
            return &l->releases[i];
    }
    if (!make)
        return NULL;
    if (l->nreleases == l->release_cap) {
        l->release_cap = l->release_cap ? 2 * l->release_cap : 16;
        l->releases = realloc(l->releases, (size_t)l->release_cap * sizeof *l->releases);
        if (!l->releases)
            abort();
    }
    struct release *r = &l->releases[l->nreleases++];
    *r = (struct release){.addr = addr};
    return r;
}

static void hand_on(struct release *r, uint32_t block, uint32_t epoch)
{
    for (int i = 0; i < r->n; i++) {
        if (r->pair[i][0] == block) {
            if (r->pair[i][1] < epoch)
                r->pair[i][1] = epoch;
            return;
        }
    }
    if (r->n == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 8;
        r->pair = realloc(r->pair, (size_t)r->cap * sizeof *r->pair);
        if (!r->pair)
            abort();
    }
    r->pair[r->n][0] = block;
    r->pair[r->n++][1] = epoch;
}

static void take_over(struct block *b, const struct release *r)
{
    if (!b->acquired)
        b->acquired = calloc(b->launch->nblocks, sizeof *b->acquired);
    for (int i = 0; b->acquired && i < r->n; i++) {
        uint32_t *known = &b->acquired[r->pair[i][0]];
        *known = *known > r->pair[i][1] ? *known : r->pair[i][1];
    }
}

void blockrace_sync(struct block *b, uint64_t addr, bool read, bool write, bool release)
{
    struct launch *l = b->launch;
    if (!config.checks || l->nblocks == 1)
        return;
    struct release *r = release_at(l, addr, write && (b->fences || release));
    if (read && r)
        take_over(b, r);
    if (!write || (!b->fences && !release))
        return;
    if (release)
        b->fences++;
    hand_on(r, b->index, b->fences);
    for (uint32_t i = 0; b->acquired && i < l->nblocks; i++) {
        if (b->acquired[i])
            hand_on(r, i, b->acquired[i]);
    }
}

void blockrace_free(struct launch *l)
{
    for (int i = 0; i < l->nreleases; i++)
        free(l->releases[i].pair);
    free(l->releases);
}
