/* SPDX-License-Identifier: MIT */
/* One warp: lanes at the same instruction form a group; the group that is furthest behind runs, and
 * groups that meet become one.  That is right for any control flow. */
#include "emu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- faults ---- */

static void describe_place(const struct launch *l, const struct ptx_ins *in, char *buf, size_t size)
{
    const struct ptx_module *m = l->module;
    char line[160];
    ptx_line_text(m, in->line, line, sizeof line);
    int n = snprintf(buf, size, "PTX line %d `%s`", in->line, line);
    const char *word = ", ";
    for (int at = in->loc; at >= 0 && (size_t)n < size; at = m->loc[at].inlined_at) {
        const struct ptx_loc *loc = &m->loc[at];
        const char *file = loc->file < m->nfiles && m->files[loc->file] ? m->files[loc->file] : "?";
        n += snprintf(buf + n, size - (size_t)n, "%s%s:%d", word, file, loc->line);
        word = " inlined at ";
    }
}

void warp_fault(struct warp *w, const struct ptx_ins *in, int lane, enum fault_kind kind,
                const char *format, ...)
{
    struct launch *l = w->block->launch;
    char what[500], where[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(what, sizeof what, format, ap);
    va_end(ap);
    describe_place(l, in, where, sizeof where);
    report(kind, "%s; kernel %s, %s, block (%d,%d,%d), warp %d, lane %d", what, l->fn->name, where,
           w->block->ctaid[0], w->block->ctaid[1], w->block->ctaid[2], w->index, lane);
    l->fault = kind;
    longjmp(l->out, 1);
}

static int lowest(uint32_t mask)
{
    return mask ? __builtin_ctz(mask) : -1;
}

void warp_need_defined(struct warp *w, const struct ptx_ins *in, const struct ptx_operand *o,
                       uint32_t mask, const char *what)
{
    if (o->kind != O_SLOT && o->kind != O_PRED && !(o->kind == O_ADDR && o->off))
        return;
    const struct slot *s = slot_at(w->frame, o->off);
    if ((s->def & mask) == mask || !config.checks)
        return;
    const struct ptx_fn *fn = w->frame->fn;
    if (s->origin)
        warp_fault(
            w, in, lowest(mask & ~s->def), FAULT_UNINIT,
            "%s (%s) depends on memory or a register that nobody has written, from PTX line %u",
            what, ptx_reg_name(fn, o->off), s->origin);
    warp_fault(w, in, lowest(mask & ~s->def), FAULT_UNINIT, "%s (%s) was never given a value", what,
               ptx_reg_name(fn, o->off));
}

/* ---- groups ---- */

static void drop_group(struct frame *fr, int i)
{
    fr->group[i] = fr->group[--fr->ngroups];
}

/* Is the next instruction a barrier of the block, which all lanes of a warp have to reach together?
 */
static bool at_barrier(const struct frame *fr, int pc)
{
    const struct ptx_ins *in = &fr->fn->ins[pc];
    return pc < fr->fn->nins && in->op == OP_BAR && in->f[F_DIR] != D_WARP;
}

/* Puts the group that is furthest behind first, with all that are at the same place.  One at a
 * barrier waits for the others: compilers lay out what these still have to do after it, too. */
static void choose_group(struct frame *fr)
{
    for (int i = fr->ngroups - 1; i >= 0; i--) {
        if (!fr->group[i].mask)
            drop_group(fr, i);
    }
    int least = 0;
    for (int i = 1; i < fr->ngroups; i++) {
        bool waits = at_barrier(fr, fr->group[i].pc), other = at_barrier(fr, fr->group[least].pc);
        if (waits == other ? fr->group[i].pc < fr->group[least].pc : other)
            least = i;
    }
    struct group g = fr->group[least];
    fr->group[least] = fr->group[0];
    fr->group[0] = g;
    for (int i = fr->ngroups - 1; i > 0; i--) {
        if (fr->group[i].pc == g.pc) {
            fr->group[0].mask |= fr->group[i].mask;
            drop_group(fr, i);
        }
    }
}

static void branch(struct frame *fr, uint32_t taken, int target)
{
    struct group *g = &fr->group[0];
    if (taken == g->mask) {
        g->pc = target;
        return;
    }
    g->mask &= ~taken;
    g->pc++;
    fr->group[fr->ngroups++] = (struct group){target, taken};
}

static void branch_indexed(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    struct frame *fr = w->frame;
    const struct ptx_operand *index = &in->o[0], *list = &in->o[1];
    warp_need_defined(w, in, index, mask, "the index of a branch");
    const struct slot *s = slot_at(fr, index->off);
    uint32_t left = mask;
    fr->group[0].mask &= ~mask;
    fr->group[0].pc++;
    while (left) {
        uint32_t value = s->u[__builtin_ctz(left)], same = 0;
        for (int i = 0; i < WARP; i++)
            same |= (uint32_t)(s->u[i] == value) << i;
        same &= left;
        left &= ~same;
        if (value >= (uint64_t)list->disp)
            warp_fault(w, in, lowest(same), FAULT_BOUNDS, "branch %u of a list of %lld", value,
                       (long long)list->disp);
        fr->group[fr->ngroups++] = (struct group){fr->fn->table[list->off + value], same};
    }
}

/* ---- calls ---- */

static void run_frame(struct warp *w, uint64_t quantum);

static uint64_t local_of(const struct frame *fr, const struct ptx_var *v)
{
    return fr->local_base + v->at;
}

static void copy_local(struct warp *w, uint64_t to, uint64_t from, uint64_t size, uint32_t mask)
{
    uint32_t stride = w->block->launch->local_size;
    for (int i = 0; i < WARP; i++) {
        if (mask >> i & 1) {
            memcpy(w->local + (size_t)i * stride + to, w->local + (size_t)i * stride + from, size);
            memcpy(w->local_state + (size_t)i * stride + to,
                   w->local_state + (size_t)i * stride + from, size);
        }
    }
}

/* The callee has a register file of its own and runs to its end before the caller goes on. */
static void call(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    struct frame *caller = w->frame;
    const struct ptx_call *c = &caller->fn->calls[in->o[0].off];
    if (!c->fn || c->nargs != c->fn->nparams || !c->ret != !c->fn->ret)
        warp_fault(w, in, lowest(mask), FAULT_UNSUPPORTED, "call of %s, whose body is not here",
                   c->name);
    struct frame fr = {.fn = c->fn, .local_base = caller->local_base + caller->fn->local_size};
    if (fr.local_base + c->fn->local_size > w->block->launch->local_size)
        warp_fault(w, in, lowest(mask), FAULT_UNSUPPORTED, "calls nested too deep");
    fr.file = calloc(1, c->fn->file_size + sizeof(struct slot));
    if (!fr.file)
        abort();
    launch_init_file(w->block->launch, c->fn, fr.file, fr.local_base);
    for (int i = 0; i < c->nargs; i++)
        copy_local(w, local_of(&fr, c->fn->params[i]), local_of(caller, c->args[i]),
                   c->args[i]->size, mask);
    fr.group[0] = (struct group){0, mask};
    fr.ngroups = 1;
    w->frame = &fr;
    run_frame(w, UINT64_MAX);
    w->frame = caller;
    for (int i = 0; i < caller->ngroups; i++)
        caller->group[i].mask &= w->live;
    if (w->state == WARP_BARRIER)
        warp_fault(w, in, lowest(mask), FAULT_UNSUPPORTED, "a barrier inside a called function");
    if (c->ret)
        copy_local(w, local_of(caller, c->ret), local_of(&fr, c->fn->ret), c->ret->size, mask);
    free(fr.file);
}

/* ---- instructions ---- */

static uint32_t guarded(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    const struct slot *p = slot_at(w->frame, in->guard.off);
    if ((p->def & mask) != mask)
        warp_need_defined(w, in, &in->guard, mask, "the guard of an instruction");
    return mask & (in->guard.negated ? ~p->mask : p->mask);
}

static void leave(struct warp *w, uint32_t mask)
{
    struct frame *fr = w->frame;
    for (int i = 1; i < fr->ngroups; i++)
        if (fr->group[i].mask & w->live & ~mask && at_barrier(fr, fr->group[i].pc))
            warp_fault(w, &fr->fn->ins[fr->group[i].pc], lowest(fr->group[i].mask),
                       FAULT_CONVERGENCE,
                       "a barrier that only lanes %08x of %08x reach together: others exit",
                       fr->group[i].mask, w->live);
    async_drop(w, mask);
    w->live &= ~mask;
    for (int i = 0; i < fr->ngroups; i++)
        fr->group[i].mask &= ~mask;
}

/* Control flow; the group's program counter is moved here. */
static void control(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    struct frame *fr = w->frame;
    struct group *g = &fr->group[0];
    switch ((enum ptx_op)in->op) {
    case OP_BRA:
        if (mask != g->mask)
            w->block->launch->stats.divergent++;
        branch(fr, mask, (int)in->o[0].off);
        return;
    case OP_BRX:
        branch_indexed(w, in, mask);
        return;
    case OP_RET:
        if (fr != &w->base) { /* back to the caller, when all have returned */
            g->mask &= ~mask;
            g->pc++;
            return;
        }
        /* fall through */
    case OP_EXIT:
        leave(w, mask);
        g->pc++;
        return;
    case OP_CALL:
        call(w, in, mask);
        fr->group[0].pc++;
        return;
    case OP_TRAP:
        warp_fault(w, in, lowest(mask), FAULT_TRAP, "trap");
    default:
        g->pc++;
        block_barrier(w, in, mask);
    }
}

static void fence(struct warp *w, const struct ptx_ins *in)
{
    race_fence(w);
    if (in->f[F_SCOPE] != SC_CTA)
        w->block->fences++;
}

static void execute(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    switch ((enum ptx_op)in->op) {
    case OP_LD:
        op_ld(w, in, mask);
        break;
    case OP_ST:
        op_st(w, in, mask);
        break;
    case OP_ATOM:
    case OP_RED:
        op_atom(w, in, mask);
        break;
    case OP_CP:
        op_cp(w, in, mask);
        break;
    case OP_MEMBAR:
    case OP_FENCE:
        fence(w, in);
        break;
    case OP_SHFL:
        op_shfl(w, in, mask);
        break;
    case OP_VOTE:
        op_vote(w, in, mask);
        break;
    case OP_MATCH:
        op_match(w, in, mask);
        break;
    case OP_REDUX:
        op_redux(w, in, mask);
        break;
    case OP_ELECT:
    case OP_ACTIVEMASK:
        op_elect(w, in, mask);
        break;
    case OP_MMA:
        op_mma(w, in, mask);
        break;
    case OP_LDMATRIX:
        op_ldmatrix(w, in, mask);
        break;
    case OP_STMATRIX:
        op_stmatrix(w, in, mask);
        break;
    case OP_MOVMATRIX:
        op_movmatrix(w, in, mask);
        break;
    case OP_CREATEPOLICY:
        slot_at(w->frame, in->o[0].off)->def |= mask;
        break;
    default:
        break; /* prefetch, nanosleep, griddepcontrol: nothing to see */
    }
}

static bool is_control(const struct ptx_ins *in)
{
    return in->op >= OP_BRA && in->op <= OP_BAR && !(in->op == OP_BAR && in->f[F_DIR] == D_WARP);
}

static void step(struct warp *w, struct frame *fr)
{
    struct launch *l = w->block->launch;
    const struct ptx_ins *in = &fr->fn->ins[fr->group[0].pc];
    uint32_t mask = fr->group[0].mask;
    if (in->guard.kind)
        mask = guarded(w, in, mask);
    w->tick++;
    l->stats.op[in->op]++;
    l->stats.lanes += (uint64_t)__builtin_popcount(mask);
    if (!mask) {
        fr->group[0].pc++;
        return;
    }
    if (in->op < OP_LAST_PURE) {
        alu_run(fr, in, mask);
        l->stats.mufu += in->op >= OP_RCP && in->op <= OP_TANH && in->type[0] != T_F64;
    } else if (is_control(in)) {
        control(w, in, mask);
        return;
    } else if (in->op == OP_BAR)
        op_sync_warp(w, in, mask);
    else
        execute(w, in, mask);
    fr->group[0].pc++;
}

/* The lowest program counter of the other groups. */
static int next_meeting(const struct frame *fr)
{
    int least = fr->fn->nins;
    for (int i = 1; i < fr->ngroups; i++)
        least = fr->group[i].pc < least ? fr->group[i].pc : least;
    return least;
}

#define FAIR 100000 /* instructions of one group while others wait, then it is their turn */

/* Runs group[0] until it meets or passes another, splits, waits or ends; a step at a time where one
 * waits at a barrier before it. */
static uint64_t run_group(struct warp *w, struct frame *fr, uint64_t quantum)
{
    uint64_t n = 0;
    int stop = next_meeting(fr), groups = fr->ngroups;
    uint64_t most = groups > 1 && quantum > FAIR ? FAIR : quantum;
    if (fr->group[0].pc >= stop) {
        step(w, fr);
        return 1;
    }
    while (n < most && w->state == WARP_READY && fr->ngroups == groups && fr->group[0].mask &&
           fr->group[0].pc < stop && !(n && groups > 1 && at_barrier(fr, fr->group[0].pc))) {
        step(w, fr);
        n++;
    }
    return n;
}

static void run_frame(struct warp *w, uint64_t quantum)
{
    struct frame *fr = w->frame;
    while (quantum && w->state == WARP_READY) {
        choose_group(fr);
        if (!fr->ngroups || !fr->group[0].mask)
            return;
        if (fr->group[0].pc >= fr->fn->nins) { /* the end of the text returns */
            if (fr == &w->base)
                leave(w, fr->group[0].mask);
            fr->group[0].mask = 0;
            continue;
        }
        uint64_t n = run_group(w, fr, quantum);
        if (n == FAIR && fr->ngroups > 1) { /* it may be waiting for the others */
            struct group g = fr->group[0];
            fr->group[0] = fr->group[1];
            fr->group[1] = g;
            n += run_group(w, fr, FAIR);
        }
        quantum -= n < quantum ? n : quantum;
        w->block->launch->run += n;
    }
}

void warp_run(struct warp *w, uint64_t quantum)
{
    w->frame = &w->base;
    run_frame(w, quantum);
    if (!w->live && w->state == WARP_READY)
        w->state = WARP_DONE;
}
