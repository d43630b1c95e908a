/* SPDX-License-Identifier: MIT */
/* ldmatrix, stmatrix, movmatrix: 8 x 8 matrices of 16-bit elements.  Lanes 8 i to 8 i + 7 give the
 * addresses of the rows of matrix i; lane L holds elements (L / 4, 2 (L % 4)) and the next column;
 * .trans exchanges rows and columns. */
#include "emu.h"

#include <string.h>

typedef uint16_t matrix[8][8];

static void whole_warp(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    if (mask != FULL)
        warp_fault(w, in, __builtin_ctz(~mask), FAULT_CONVERGENCE, "%s by lanes %08x of a warp",
                   ptx_op_name((enum ptx_op)in->op), mask);
}

/* Row by row; *defined has a bit per row. */
static void read_rows(struct warp *w, const struct ptx_ins *in, enum ptx_space space,
                      const uint64_t addr[WARP], int first, matrix m, uint32_t *defined)
{
    *defined = 0;
    for (int row = 0; row < 8; row++) {
        struct place p =
            access_place(w, in, space, first + row, addr[first + row], 16, ACCESS_READ);
        access_note(w, in, space, -1, addr[first + row], 16, ACCESS_READ, p, false);
        memcpy(m[row], p.data, 16);
        *defined |= (uint32_t)access_initialised(p, 16) << row;
    }
}

static uint32_t element_pair(matrix m, int lane, bool trans)
{
    int row = lane / 4, column = lane % 4 * 2;
    return trans ? (uint32_t)m[column][row] | (uint32_t)m[column + 1][row] << 16
                 : (uint32_t)m[row][column] | (uint32_t)m[row][column + 1] << 16;
}

static enum ptx_space shared_addresses(struct warp *w, const struct ptx_ins *in,
                                       const struct ptx_operand *o, int count, uint64_t addr[WARP])
{
    uint32_t rest, lanes = count == 4 ? FULL : (1u << (8 * count)) - 1;
    enum ptx_space space =
        access_addresses(w, in, o, (enum ptx_space)in->f[F_SPACE], lanes, addr, &rest);
    if (space != SP_SHARED || rest)
        warp_fault(w, in, -1, FAULT_BOUNDS, "%s outside shared memory",
                   ptx_op_name((enum ptx_op)in->op));
    for (int i = 0; i < 8 * count; i += 8) /* each matrix is served by itself */
        stats_shared(&w->block->launch->stats, addr, 0xffu << i, 16);
    return space;
}

void op_ldmatrix(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    const struct ptx_operand *o = &in->o[0], *e = &w->frame->fn->vec[o->off];
    uint64_t addr[WARP];
    whole_warp(w, in, mask);
    if (o->count != in->f[F_NUM])
        warp_fault(w, in, -1, FAULT_UNSUPPORTED, "ldmatrix.x%d to %d registers", in->f[F_NUM],
                   o->count);
    enum ptx_space space = shared_addresses(w, in, &in->o[1], o->count, addr);
    for (int i = 0; i < o->count; i++) {
        matrix m;
        uint32_t rows;
        read_rows(w, in, space, addr, 8 * i, m, &rows);
        if (e[i].kind == O_SINK)
            continue;
        struct slot *d = slot_at(w->frame, e[i].off);
        for (int lane = 0; lane < WARP; lane++)
            d->u[lane] = element_pair(m, lane, in->f[F_TRANS]);
        d->def = FULL;
        if (rows != 0xff) {
            d->origin = (uint32_t)in->line;
            for (int lane = 0; lane < WARP; lane++) {
                uint32_t need = in->f[F_TRANS] ? 3u << lane % 4 * 2 : 1u << lane / 4;
                if ((rows & need) != need)
                    d->def &= ~(1u << lane);
            }
        }
    }
}

void op_stmatrix(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    const struct ptx_operand *o = &in->o[1], *e = &w->frame->fn->vec[o->off];
    uint64_t addr[WARP];
    whole_warp(w, in, mask);
    if (o->count != in->f[F_NUM])
        warp_fault(w, in, -1, FAULT_UNSUPPORTED, "stmatrix.x%d of %d registers", in->f[F_NUM],
                   o->count);
    enum ptx_space space = shared_addresses(w, in, &in->o[0], o->count, addr);
    for (int i = 0; i < o->count; i++) {
        const struct slot *s = slot_at(w->frame, e[i].off);
        warp_need_defined(w, in, &e[i], FULL, "a register of stmatrix");
        matrix m;
        for (int lane = 0; lane < WARP; lane++) {
            int row = lane / 4, column = lane % 4 * 2;
            for (int k = 0; k < 2; k++) {
                uint16_t v = (uint16_t)(s->u[lane] >> (16 * k));
                if (in->f[F_TRANS])
                    m[column + k][row] = v;
                else
                    m[row][column + k] = v;
            }
        }
        for (int row = 0; row < 8; row++) {
            int lane = 8 * i + row;
            struct place p = access_place(w, in, space, lane, addr[lane], 16, ACCESS_WRITE);
            access_note(w, in, space, -1, addr[lane], 16, ACCESS_WRITE, p,
                        !memcmp(p.data, m[row], 16));
            memcpy(p.data, m[row], 16);
        }
    }
}

void op_movmatrix(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    whole_warp(w, in, mask);
    warp_need_defined(w, in, &in->o[1], mask, "the register of movmatrix");
    const struct slot *s = slot_at(w->frame, in->o[1].off);
    matrix m;
    for (int lane = 0; lane < WARP; lane++) {
        m[lane / 4][lane % 4 * 2] = (uint16_t)s->u[lane];
        m[lane / 4][lane % 4 * 2 + 1] = (uint16_t)(s->u[lane] >> 16);
    }
    struct slot *d = slot_at(w->frame, in->o[0].off);
    for (int lane = 0; lane < WARP; lane++)
        d->u[lane] = element_pair(m, lane, true);
    d->def = FULL;
}
