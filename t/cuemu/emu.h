/* SPDX-License-Identifier: MIT */
/* The machine: device memory, launches, blocks, warps; a section for each .c that owns it.
 *
 * A launch runs on the calling thread.  Its first fault ends it (longjmp to launch_run). */
#ifndef CUEMU_EMU_H
#define CUEMU_EMU_H

#include "ptx.h"

#include <setjmp.h>

#define WARP 32
#define MAX_WARPS 32
#define FULL 0xffffffffu
#define CALL_STACK 4096 /* bytes of local memory for the frames of called functions */

/* ---- config.c ---- */

struct config {
    int cc;          /* CUEMU_CC: 75, 80, 86, 89, 90, 100, 120 */
    int driver;      /* CUEMU_DRIVER: 13000 is CUDA 13.0 */
    int eager;       /* CUEMU_ASYNC=eager: copies land at once, else at their wait */
    uint32_t seed;   /* CUEMU_SCHED: order of blocks, warps and streams */
    uint64_t limit;  /* CUEMU_LIMIT: warp instructions of a launch before it counts as endless */
    uint64_t memory; /* CUEMU_MEMORY: MiB of the device */
    bool checks;     /* CUEMU_CHECK=0 leaves out what only checks */
    char *fail;      /* CUEMU_FAIL=cuMemAlloc:3,... */
    char *stats;     /* CUEMU_STATS: file to append a line per launch to, - for stderr */
    char *report;    /* CUEMU_REPORT: file to append reports to as well as stderr */
    bool quiet;      /* CUEMU_QUIET: reports are kept, not printed */
};
extern struct config config;
void config_read(void);
/* One setting by its variable's name; false when there is no such. */
bool config_set(const char *name, const char *value);

/* ---- arch.c ---- */

struct arch {
    int cc, sms, smem_sm, smem_block_optin, smem_reserved, l2, regs_sm, threads_sm, blocks_sm;
    const char *name;
};
const struct arch *arch_of(int cc);                                  /* NULL: not simulated */
int arch_attribute(const struct arch *a, int attribute, int *value); /* CUDA status */
int ptx_version_of_driver(int driver);

/* ---- smallfloat.c: formats of at most 16 bits, and tf32 ---- */

enum fmt { FMT_F16, FMT_BF16, FMT_TF32, FMT_E4M3, FMT_E5M2 };
double fmt_decode(enum fmt f, uint32_t bits);
/* rounds as PTX says; sat: to the largest finite value instead of infinity, NaN stays NaN */
uint32_t fmt_encode(enum fmt f, double x, enum ptx_round round, bool sat);
extern float f16_table[65536];
static inline float f16_to_float(uint32_t h) /* low 16 bits */
{
    return f16_table[h & 0xffff];
}
uint32_t f16_from_float(float f);
static inline float bf16_to_float(uint32_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = h << 16};
    return v.f;
}

/* ---- report.c ---- */

enum fault_kind {
    FAULT_NONE,
    FAULT_BOUNDS,
    FAULT_FREED,
    FAULT_UNINIT,
    FAULT_ALIGN,
    FAULT_RACE,
    FAULT_ASYNC,
    FAULT_CONVERGENCE,
    FAULT_DEADLOCK,
    FAULT_BLOCKS,
    FAULT_LAUNCH,
    FAULT_API,
    FAULT_LEAK,
    FAULT_TRAP,
    FAULT_UNSUPPORTED
};
const char *fault_name(enum fault_kind k);
/* Counts, keeps and prints a report; text is one sentence. */
void report(enum fault_kind k, const char *format, ...) __attribute__((format(printf, 2, 3)));
int report_count(void);
const char *report_last(void);
enum fault_kind report_last_kind(void);
void report_reset(void);

/* ---- memory.c: device memory, and who wrote what in this launch ---- */

struct alloc {
    uint64_t base, size;
    uint8_t *data, *state; /* state: 1 where initialised */
    uint64_t *writer;      /* per word, see blockrace.c; NULL until a launch writes */
    uint32_t *reader;
    bool freed, module_owned, constant;
    const void *owner; /* the context */
};
struct alloc *mem_new(uint64_t size, const void *owner, bool zero); /* NULL: the device is full */
void mem_free(struct alloc *a); /* the address stays known as freed */
/* The allocation that holds address a, or the one next to it (then *inside is false); NULL none. */
struct alloc *mem_find(uint64_t a, bool *inside);
/* Live memory [a, a + size) of one allocation, or NULL. */
struct alloc *mem_range(uint64_t a, uint64_t size);
uint64_t mem_used(void);
int mem_each(int i, struct alloc **a); /* 0 at the end */
void mem_describe(uint64_t a, char *buf, size_t size);
void mem_forget(const void *owner);
void mem_forget_accesses(void); /* of all launches */

/* Windows of the generic address space. */
#define WINDOW_SIZE (1ull << 24)
#define SHARED_WINDOW 0x7e0000000000ull
#define LOCAL_WINDOW 0x7d0000000000ull
#define PARAM_WINDOW 0x7c0000000000ull

/* ---- stats.c ---- */

struct stats {
    uint64_t op[OP_COUNT];        /* warp instructions */
    uint64_t instructions, lanes; /* all of them, and their active lanes */
    uint64_t wavefronts, wavefronts_ideal, shared_bytes;
    uint64_t sectors, sectors_ideal, global_bytes;
    uint64_t mma_flops, mufu, barriers, blocks, divergent;
};
void stats_shared(struct stats *s, const uint64_t addr[WARP], uint32_t mask, int bytes);
void stats_global(struct stats *s, const uint64_t addr[WARP], uint32_t mask, int bytes);
void stats_write(const char *file, const char *kernel, const struct stats *s);

/* ---- warp.c: registers, groups of lanes ---- */

/* A register of one warp.  Bit i of def: lane i was given a value; origin: the PTX line that last
 * left a lane undefined. */
struct slot {
    uint32_t def, origin;
    union {
        uint32_t u[WARP];
        int32_t s[WARP];
        float f[WARP];
        uint64_t ul[WARP];
        int64_t sl[WARP];
        double d[WARP];
        uint32_t mask; /* a predicate */
    };
};

struct group {
    int pc;
    uint32_t mask;
};

struct frame { /* a function being run by a warp */
    const struct ptx_fn *fn;
    uint8_t *file;
    uint64_t local_base;
    struct group group[WARP + 1]; /* group[0] runs */
    int ngroups;
};

struct copy { /* cp.async under way, of one lane */
    uint32_t shared, size, from_size, group;
    uint64_t from;
    int lane;
    const struct ptx_ins *ins;
};

enum warp_state { WARP_READY, WARP_BARRIER, WARP_DONE };

struct warp {
    struct block *block;
    int index;
    struct frame *frame, base;
    uint8_t *file;
    uint32_t live; /* lanes that have not exited */
    enum warp_state state;
    int barrier; /* that it waits at */
    uint32_t barrier_result;
    uint8_t *local, *local_state;                                         /* lane after lane */
    uint64_t tick;                                                        /* instructions so far */
    uint32_t clock, vc[MAX_WARPS], fenced[MAX_WARPS], pending[MAX_WARPS]; /* see race.c */
    struct copy *copies;
    int ncopies, copy_cap;
    uint32_t commits[WARP];
};

static inline struct slot *slot_at(const struct frame *fr, uint32_t off)
{
    return (struct slot *)(void *)(fr->file + off);
}

/* Runs until the warp waits, ends or has used its quantum. */
void warp_run(struct warp *w, uint64_t quantum);
/* A fault of lane `lane` (-1: of the warp) at instruction in; does not return. */
void warp_fault(struct warp *w, const struct ptx_ins *in, int lane, enum fault_kind kind,
                const char *format, ...) __attribute__((format(printf, 5, 6), noreturn));
/* Faults unless every lane of mask has a value there. */
void warp_need_defined(struct warp *w, const struct ptx_ins *in, const struct ptx_operand *o,
                       uint32_t mask, const char *what);

/* ---- block.c: one block, its barriers ---- */

struct barrier {
    int expected, arrived; /* in threads; expected 0: nobody came yet */
    int waiting;           /* bit per warp */
    uint32_t vc[MAX_WARPS];
    uint32_t count, all, any; /* of bar.red */
    uint32_t waiters, arrivers;
    const struct ptx_ins *ins;
};

struct cell { /* last write of a word of shared memory */
    uint32_t clock;
    uint8_t warp, lane, mask, atomic;
    uint32_t tick;
};

struct release { /* what a sync location of global memory hands on: pairs (block, epoch) */
    uint64_t addr;
    int n, cap;
    uint32_t (*pair)[2];
};

struct block {
    struct launch *launch;
    int ctaid[3];
    uint32_t index;
    struct warp *warps;
    int nwarps, live_warps;
    uint8_t *shared, *shared_state; /* state: 1 initialised, 2 an asynchronous copy is under way */
    uint32_t shared_size;
    struct cell *cells;
    uint32_t *reads; /* per word and warp: clock << 12 | lane << 4 | mask; lane 63 several */
    struct barrier barriers[16];
    uint32_t sync_vc[MAX_WARPS];
    uint32_t fences, *acquired; /* of global memory, see blockrace.c */
    bool done;
};

void block_start(struct block *b, uint32_t index);
void block_run(struct block *b, uint64_t quantum); /* until done, or so many instructions */
void block_barrier(struct warp *w, const struct ptx_ins *in, uint32_t mask);
bool block_warp_exited(struct warp *w);

/* ---- launch.c ---- */

struct launch {
    const struct ptx_module *module;
    const struct ptx_fn *fn;
    unsigned grid[3], dim[3];
    uint32_t dynamic, nblocks, local_size;
    const uint8_t *params;
    const uint8_t *param_state;
    const void *owner;
    struct stats stats;
    uint64_t rng, run; /* run: warp instructions so far */
    uint32_t serial;
    jmp_buf out;
    enum fault_kind fault;
    struct release *releases;
    int nreleases, release_cap;
    struct alloc *last; /* allocation of the last access */
};
/* 0, or the CUDA error of the fault that ended it; the report was made. */
int launch_run(struct launch *l);
uint32_t launch_random(struct launch *l, uint32_t below);
/* Fills the constants and special registers of a function. */
void launch_init_file(struct launch *l, const struct ptx_fn *fn, uint8_t *file,
                      uint64_t local_base);

/* ---- alu*.c ---- */

void alu_run(struct frame *fr, const struct ptx_ins *in, uint32_t mask);
void alu_int(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4]);
void alu_long(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4]);
void alu_float(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4]);
void alu_double(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4]);
void alu_half(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4]);
void alu_cvt(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4], int wide0,
             int wide1);
uint32_t alu_compare(const struct ptx_ins *in, enum ptx_type type, const struct slot *a,
                     const struct slot *b);

/* ---- access.c: addresses of lanes, checked ---- */

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_ATOMIC };
struct place {
    uint8_t *data, *state;
};
/* The addresses of the lanes, relative to their space, which is returned.  Generic ones are told by
 * their window; lanes that are in another space than the first are left in *rest. */
enum ptx_space access_addresses(struct warp *w, const struct ptx_ins *in,
                                const struct ptx_operand *o, enum ptx_space space, uint32_t mask,
                                uint64_t addr[WARP], uint32_t *rest);
/* Bounds and alignment, for one lane. */
struct place access_place(struct warp *w, const struct ptx_ins *in, enum ptx_space space, int lane,
                          uint64_t addr, uint32_t bytes, enum access kind);
/* The same for an access at once: what races, copies under way; marks written bytes initialised.
 * same_value: a write that changes nothing. */
void access_note(struct warp *w, const struct ptx_ins *in, enum ptx_space space, int lane,
                 uint64_t addr, uint32_t bytes, enum access kind, struct place p, bool same_value);
bool access_initialised(struct place p, uint32_t bytes);

/* ---- race.c ---- */

void race_shared(struct warp *w, const struct ptx_ins *in, int lane, uint32_t addr, uint32_t bytes,
                 enum access kind, bool same_value);
void race_sync_warp(struct warp *w);
void race_fence(struct warp *w);
void race_sync_shared(struct warp *w, bool read, bool write); /* atomic or volatile access */
void race_join(uint32_t *into, const uint32_t *from);

/* ---- blockrace.c ---- */

void blockrace_access(struct warp *w, const struct ptx_ins *in, int lane, struct alloc *a,
                      uint64_t addr, uint32_t bytes, enum access kind);
void blockrace_sync(struct block *b, uint64_t addr, bool read, bool write, bool release);
void blockrace_free(struct launch *l);

/* ---- memops.c, atomics.c, async.c, collective.c, mma.c, matrix.c ---- */

void op_ld(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_st(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_atom(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_cp(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void async_drop(struct warp *w, uint32_t mask); /* lanes exit: their copies land */
void op_shfl(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_vote(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_match(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_redux(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_elect(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_sync_warp(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_mma(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_ldmatrix(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_stmatrix(struct warp *w, const struct ptx_ins *in, uint32_t mask);
void op_movmatrix(struct warp *w, const struct ptx_ins *in, uint32_t mask);

#endif
