/* SPDX-License-Identifier: MIT */
/* Which list of blocks serves a step.  Lists are kept by what they were made of: the masks as they
 * are now, affine visibility and lengths.  So layers with one mask share a list, and a bind that
 * finds everything as it was builds none.  What is bound may have changed in place, so contents
 * count, by a hash of 64 bits, and not addresses. */
#include <string.h>

#include "schedule.h"

struct at_blocks {
    struct at_blocks *next;
    uint64_t key, bind; /* what it was made of; the last bind that asked for it */
    struct at_schedule lists;
};

/* ---- hashes ---- */

/* A step of multiplication, with the high half brought down (after Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15;
    return hash ^ hash >> 32;
}

static uint64_t mix_bytes(uint64_t hash, const char *p, int64_t n)
{
    uint64_t word;
    for (; n >= (int64_t)sizeof word; n -= (int64_t)sizeof word, p += sizeof word) {
        memcpy(&word, p, sizeof word);
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, p, (size_t)n);
    return mix(hash, word);
}

/* The elements of axes d and on, of the entry at `p`; what is only repeated counts once. */
static uint64_t mix_axis(uint64_t hash, const struct at_view *v, int d, const char *p)
{
    int64_t size = (int64_t)attend_type_size(v->type), step = v->stride[d] * size;
    int64_t n = v->stride[d] == 0 ? at_min(v->shape[d], 1) : v->shape[d];
    if (d == v->rank - 1 && step == size)
        return mix_bytes(hash, p, n * size);
    for (int64_t e = 0; e < n; e++)
        hash = d == v->rank - 1 ? mix_bytes(hash, p + e * step, size)
                                : mix_axis(hash, v, d + 1, p + e * step);
    return hash;
}

static uint64_t mix_contents(const struct at_view *v)
{
    for (int d = 0; d < v->rank; d++)
        if (v->shape[d] == 0)
            return 0;
    return mix_axis(0, v, 0, v->data);
}

/* ---- keys ---- */

/* What input k of s holds now, hashed once in a bind, and constants once. */
static uint64_t contents(struct attend_exec *x, const struct at_step *s, int k)
{
    const struct at_tensor *t = &x->plan->graph->tensor[s->in[k]];
    struct at_contents *c = &x->contents[s->in[k]];
    bool constant = x->plan->graph->tensor[t->root].class == AT_CONST;
    if (c->bind == 0 || (c->bind != x->binds && !constant)) {
        c->hash = mix_contents(&x->view[s->in[k]]);
        c->bind = x->binds;
    }
    return c->hash;
}

static uint64_t mix_tensor(uint64_t hash, struct attend_exec *x, const struct at_step *s, int k)
{
    const struct at_view *v = &x->view[s->in[k]];
    hash = mix(hash, (uint64_t)v->type << 8 | (uint64_t)v->rank);
    for (int d = 0; d < v->rank; d++)
        hash = mix(hash, (uint64_t)v->shape[d]);
    return at_attn_sees(x, s, k) ? mix(hash, contents(x, s, k)) : mix(hash, 1);
}

static uint64_t mix_expr(uint64_t hash, struct attend_exec *x, const struct at_step *s,
                         const struct at_expr *e)
{
    unsigned read = 0;
    for (int k = 0; k < e->n; k++) {
        const struct at_expr_node *n = &e->node[k];
        hash = mix(hash, (uint64_t)n->op << 24 | (uint64_t)n->type << 16 |
                             (uint64_t)n->capture << 8 | n->nargs);
        for (int a = 0; a < n->nargs; a++)
            hash = mix(hash, (uint64_t)n->arg[a]);
        hash = mix(hash, n->op == AT_X_NUMBER ? (uint64_t)n->value.i : 0);
        if (n->op == AT_X_LOAD)
            read |= 1u << n->capture;
    }
    for (int c = 0; c < AT_MAX_CAPTURES; c++)
        if (read >> c & 1)
            hash = mix_tensor(hash, x, s, AT_IN_CAPTURE + c);
    return hash;
}

/* All that the lists of s are made of. */
static uint64_t key_of(struct attend_exec *x, const struct at_step *s, const struct at_attn *a)
{
    uint64_t hash = mix(mix((uint64_t)a->visible.causal, (uint64_t)a->visible.left),
                        (uint64_t)a->visible.right);
    hash = mix(mix(hash, (uint64_t)a->nseq), (uint64_t)a->nh);
    for (int64_t n = 0; n < a->nseq; n++) {
        hash = mix(hash, (uint64_t)a->seq[n].nq);
        hash = mix(hash, (uint64_t)a->seq[n].nk);
        hash = mix(hash, (uint64_t)a->seq[n].off);
    }
    hash = a->mask.data ? mix_tensor(hash, x, s, AT_IN_MASK) : mix(hash, 2);
    return a->mask_expr ? mix_expr(hash, x, s, a->mask_expr) : hash;
}

/* ---- lists ---- */

static int build(struct attend_exec *x, const struct at_step *s, const struct at_attn *a,
                 struct at_schedule *d)
{
    struct at_source src[2];
    const struct at_source *list[2];
    struct at_view view[AT_MAX_CAPTURES];
    struct at_expr mask;
    int n = 0, status = 0;
    if (a->mask.data) {
        at_source_of_mask(&mask, a->mask.shape);
        view[0] = a->mask;
        view[0].data = at_attn_sees(x, s, AT_IN_MASK) ? view[0].data : NULL;
        status = at_source_init(x->ctx, &src[n], &mask, view);
        list[n] = &src[n];
        n += status == 0;
    }
    if (a->mask_expr && status == 0) {
        for (int k = 0; k < AT_MAX_CAPTURES; k++) {
            view[k] = a->capture[k];
            view[k].data = at_attn_sees(x, s, AT_IN_CAPTURE + k) ? view[k].data : NULL;
        }
        status = at_source_init(x->ctx, &src[n], a->mask_expr, view);
        list[n] = &src[n];
        n += status == 0;
    }
    d->ctx = x->ctx;
    if (status == 0)
        status = at_schedule_build(d, &a->visible, a->seq, a->nseq, a->nh, list, n);
    for (int k = 0; k < n; k++)
        at_source_fini(x->ctx, &src[k]);
    return status;
}

static struct at_blocks *find(struct attend_exec *x, uint64_t key)
{
    struct at_blocks *b = x->blocks;
    while (b && (b->key != key || b->bind == 0))
        b = b->next;
    return b;
}

/* Lists to build anew: those that neither this bind nor the one before it asked for, so that what
 * other steps are about to ask for stays. */
static struct at_blocks *replace(struct attend_exec *x, struct at_blocks *own)
{
    if (own && own->bind != x->binds)
        return own;
    for (struct at_blocks *b = x->blocks; b; b = b->next)
        if (b->bind + 1 < x->binds)
            return b;
    struct at_blocks *b = at_calloc(x->ctx, 1, sizeof *b);
    if (b) {
        b->next = x->blocks;
        x->blocks = b;
    }
    return b;
}

int at_attn_blocks(struct attend_exec *x, const struct at_step *s, const struct at_attn *a,
                   const struct at_schedule **out)
{
    *out = NULL;
    if (!a->mask.data && !a->mask_expr)
        return 0;
    uint64_t key = key_of(x, s, a);
    struct at_blocks *b = find(x, key), **own = &x->blocks_of[s->node];
    int status = 0;
    if (!b) {
        b = replace(x, *own);
        status = b ? build(x, s, a, &b->lists) : ATTEND_ENOMEM;
        x->schedules++;
    }
    if (b) {
        b->key = key;
        b->bind = status == 0 ? x->binds : 0;
        *own = b;
        *out = &b->lists;
    }
    return status < 0 ? at_fail(&x->err, status, "no memory to schedule a mask") : 0;
}

void at_blocks_free(struct attend_exec *x)
{
    for (struct at_blocks *b = x->blocks, *next; b; b = next) {
        next = b->next;
        b->lists.ctx = x->ctx;
        at_schedule_free(&b->lists);
        at_free(x->ctx, b);
    }
}
