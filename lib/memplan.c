/* SPDX-License-Identifier: MIT */
/* Lifetimes to offsets: temporaries of a variant in one arena, sized for the variant's largest
 * extents.  Largest first, each at the lowest place that is free for its whole life. */
#include <stdlib.h>

#include "core.h"

struct life {
    int tensor;
    int first, last; /* steps, inclusive */
    int64_t bytes, offset;
};

static int larger_first(const void *a, const void *b)
{
    const struct life *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->tensor - y->tensor;
}

static int lower_first(const void *a, const void *b)
{
    const struct life *x = *(const struct life *const *)a, *y = *(const struct life *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* The lowest offset where l meets none of the placed ones that live at the same time. */
static int64_t lowest_gap(const struct life *l, const struct life *placed, int n,
                          const struct life **busy)
{
    int nbusy = 0;
    for (int i = 0; i < n; i++)
        if (placed[i].first <= l->last && l->first <= placed[i].last)
            busy[nbusy++] = &placed[i];
    qsort(busy, (size_t)nbusy, sizeof *busy, lower_first);
    int64_t at = 0;
    for (int i = 0; i < nbusy; i++) {
        if (busy[i]->offset - at >= l->bytes)
            break;
        at = at_max(at, busy[i]->offset + busy[i]->bytes);
    }
    return at;
}

/* Bytes of a temporary with every extent at its largest in this variant. */
static int64_t largest(const attend_plan *plan, const struct at_variant *v, int t)
{
    const struct at_tensor *x = &plan->graph->tensor[t];
    int64_t bytes =
        x->rank ? attend_type_row_bytes(x->type, at_plan_range(plan, v->rows, t, x->rank - 1).max)
                : (int64_t)attend_type_size(x->type);
    for (int d = 0; d < x->rank - 1; d++)
        bytes = at_mul_size(bytes, at_plan_range(plan, v->rows, t, d).max);
    return bytes;
}

/* The memory that tensor t stands for is read or written by step i. */
static void touch(const attend_graph *g, struct life *life, int t, int i)
{
    if (t < 0)
        return;
    struct life *l = &life[g->tensor[t].root];
    if (l->first < 0)
        l->first = i;
    l->last = i;
}

int at_memplan(attend_plan *plan, struct at_variant *v, struct at_err *e)
{
    const attend_graph *g = plan->graph;
    struct life *life = at_calloc(plan->ctx, g->ntensor, sizeof *life);
    const struct life **busy = at_calloc(plan->ctx, g->ntensor, sizeof *busy);
    v->offset = at_calloc(plan->ctx, g->ntensor, sizeof *v->offset);
    int n = 0, status = 0;
    if (!life || !busy || !v->offset) {
        status = at_fail(e, ATTEND_ENOMEM, "no memory to plan %d tensors", g->ntensor);
        goto done;
    }
    for (int t = 0; t < g->ntensor; t++) {
        life[t] = (struct life){.tensor = t, .first = -1};
        v->offset[t] = -1;
    }
    for (int i = 0; i < v->nstep; i++) {
        for (int k = 0; k < v->step[i].nin; k++)
            touch(g, life, v->step[i].in[k], i);
        for (int k = 0; k < v->step[i].nout; k++)
            touch(g, life, v->step[i].out[k], i);
    }
    for (int t = 0; t < g->ntensor; t++) { /* keep what needs a place */
        if (life[t].first < 0 || g->tensor[t].class != AT_TEMP || g->tensor[t].output)
            continue;
        struct life l = life[t];
        l.bytes = largest(plan, v, t);
        if (l.bytes < 0 || l.bytes > INT64_MAX - AT_ALIGN) {
            status = at_fail(e, ATTEND_ELIMIT, "a temporary of the graph would pass 2^63 bytes");
            goto done;
        }
        l.bytes = at_round_up(l.bytes, AT_ALIGN);
        life[n++] = l;
    }
    qsort(life, (size_t)n, sizeof *life, larger_first);
    for (int i = 0; i < n; i++) {
        life[i].offset = lowest_gap(&life[i], life, i, busy);
        if (life[i].bytes > INT64_MAX - AT_ALIGN - life[i].offset) {
            status =
                at_fail(e, ATTEND_ELIMIT, "the temporaries of the graph would pass 2^63 bytes");
            goto done;
        }
        v->offset[life[i].tensor] = life[i].offset;
        v->arena = at_max(v->arena, life[i].offset + life[i].bytes);
    }
done:
    at_free(plan->ctx, life);
    at_free(plan->ctx, busy);
    return status;
}
