/* SPDX-License-Identifier: MIT */
/* --weights: all of them, or what fits in memory where all do not. */
#include "sdpa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The flag that chooses each mode; DENSE is chosen by none. */
static const char *const modes[] = {
    [ATTEND_WEIGHTS_DENSE] = "--weights",           [ATTEND_WEIGHTS_ROWS] = "--weights-rows",
    [ATTEND_WEIGHTS_COLUMNS] = "--weights-columns", [ATTEND_WEIGHTS_TOPK] = "--weights-topk",
    [ATTEND_WEIGHTS_POOL] = "--weights-pool",
};

static int choose_mode(struct sdpa *s)
{
    int chosen = ATTEND_WEIGHTS_DENSE;
    for (int m = ATTEND_WEIGHTS_ROWS; m <= ATTEND_WEIGHTS_POOL; m++) {
        if (!cmd_has(s->l, modes[m]))
            continue;
        if (chosen != ATTEND_WEIGHTS_DENSE)
            return cmd_wrong(s->l, "%s and %s: one of them", modes[chosen], modes[m]);
        if (!cmd_has(s->l, "--weights"))
            return cmd_wrong(s->l, "%s needs --weights: where do they go?", modes[m]);
        chosen = m;
    }
    s->weights.mode = (attend_weights_mode)chosen;
    return CMD_DONE;
}

/* I0:I1 */
static int read_rows(struct sdpa *s)
{
    long long first, end;
    char after;
    const char *text = cmd_value(s->l, "--weights-rows");
    if (text &&
        (sscanf(text, "%lld:%lld%c", &first, &end, &after) != 2 || first < 0 || end < first))
        return cmd_wrong(s->l, "--weights-rows: \"%s\" is not I0:I1, 0 <= I0 <= I1", text);
    if (text) {
        s->weights.first = first;
        s->weights.end = end;
    }
    return CMD_DONE;
}

int sdpa_read_weights(struct sdpa *s)
{
    int64_t cells[2] = {1, 1};
    attend_weights_opts_init(&s->weights);
    int status = choose_mode(s);
    if (status == CMD_DONE)
        status = read_rows(s);
    if (status != CMD_DONE)
        return status;
    if (!cmd_int(s->l, "--weights-topk", 1, 65536, &s->weights.k) ||
        !cmd_ints(s->l, "--weights-pool", 1, INT32_MAX, cells))
        return CMD_WRONG;
    s->weights.rows = cells[0];
    s->weights.cols = cells[1];
    return CMD_DONE;
}

void sdpa_build_weights(attend_graph *g, const struct sdpa *s, attend_tensor q, attend_tensor k,
                        const attend_attention_opts *o)
{
    attend_tensor index,
        w = attend_graph_attention_weights(g, q, k, attend_none(), o, &s->weights, &index);
    attend_graph_output(g, "w", w);
    if (index.graph)
        attend_graph_output(g, "w_index", index);
}

/* W.npy -> W.idx.npy */
static char *index_file(const char *file)
{
    size_t length = strlen(file);
    if (length >= 4 && strcmp(file + length - 4, ".npy") == 0)
        length -= 4;
    char *name = malloc(length + sizeof ".idx.npy");
    if (name)
        sprintf(name, "%.*s.idx.npy", (int)length, file);
    return name;
}

/* Without its first axis, which packed sequences have not. */
static attend_shape drop_batch(attend_shape shape)
{
    memmove(shape.dim, shape.dim + 1, (size_t)--shape.rank * sizeof *shape.dim);
    return shape;
}

static attend_shape weights_shape(const struct sdpa *s)
{
    const attend_weights_opts *w = &s->weights;
    const int64_t *q = s->t[SDPA_Q].shape.dim, *k = s->t[SDPA_K].shape.dim;
    int64_t rows = s->packed ? q[0] : q[2];
    int64_t keys = s->paged ? s->t[SDPA_TABLE].shape.dim[1] * s->page : s->packed ? k[0] : k[2];
    int64_t sequences = s->packed ? s->t[SDPA_Q_LENS].shape.dim[0] - 1 : q[0];
    attend_shape shape = ATTEND_SHAPE(sequences, q[1], rows, keys);
    switch (w->mode) {
    case ATTEND_WEIGHTS_DENSE:
        break;
    case ATTEND_WEIGHTS_ROWS:
        shape.dim[2] = w->end - w->first;
        break;
    case ATTEND_WEIGHTS_COLUMNS:
        shape = ATTEND_SHAPE(sequences, q[1], keys);
        break;
    case ATTEND_WEIGHTS_TOPK:
        shape.dim[3] = w->k;
        break;
    case ATTEND_WEIGHTS_POOL: /* a map of each sequence */
        return ATTEND_SHAPE(sequences, q[1], w->rows, w->cols);
    }
    return s->packed ? drop_batch(shape) : shape;
}

int sdpa_make_weights(struct sdpa *s)
{
    const attend_weights_opts *w = &s->weights;
    attend_shape shape = weights_shape(s);
    if (!cmd_has(s->l, "--weights"))
        return CMD_DONE;
    int status = sdpa_make_output(s, SDPA_W, ATTEND_F32, &shape);
    if (status != CMD_DONE || w->mode != ATTEND_WEIGHTS_TOPK)
        return status;
    s->index_file = index_file(s->t[SDPA_W].file);
    status = sdpa_make_output(s, SDPA_W_INDEX, ATTEND_I32, &shape);
    s->t[SDPA_W_INDEX].file = s->index_file;
    return s->index_file ? status : cmd_fail(s->l, NULL, "no memory for a name");
}
