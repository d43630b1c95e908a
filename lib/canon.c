/* SPDX-License-Identifier: MIT */
/* Canonicalisation: composed attention becomes attention nodes, once for all backends, silu and the
 * product with it one node where a backend has that, and what nobody reads is marked dead.
 *
 * A region grows from each softmax: backwards over scale, tanh (softcap), add (bias), where and
 * mask to one matmul, forwards to one matmul.  Every tensor inside must have one reader and be no
 * output.  The last matmul's node becomes the attention, so whatever reads its result is as it was.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core.h"

struct region {
    attend_graph *g;
    const int *uses;
    int in[AT_IN_COUNT];
    struct at_attention p;
    bool masked, capped;
    const char *stop; /* why the region cannot be one attention */
    struct at_str made_of;
};

/* ---- readers ---- */

static void count_uses(const attend_graph *g, int *uses)
{
    memset(uses, 0, (size_t)g->ntensor * sizeof *uses);
    for (int i = 0; i < g->nnode; i++)
        for (int k = 0; k < g->node[i].nin && !g->node[i].dead; k++)
            if (g->node[i].in[k] >= 0)
                uses[g->node[i].in[k]]++;
    for (int i = 0; i < g->noutput; i++)
        uses[g->output[i]]++;
}

/* Nodes are in order of use, so one pass from the end settles what is needed. */
static void mark_dead(attend_graph *g, bool *needed)
{
    memset(needed, 0, (size_t)g->ntensor * sizeof *needed);
    for (int i = 0; i < g->noutput; i++)
        needed[g->output[i]] = true;
    for (int i = g->nnode - 1; i >= 0; i--) {
        struct at_node *n = &g->node[i];
        bool live = at_op_writes(n->op);
        for (int k = 0; k < n->nout; k++)
            live |= n->out[k] >= 0 && needed[n->out[k]];
        n->dead = n->dead || !live;
        for (int k = 1; k < n->nout; k++) /* say, nobody wants the LSE */
            if (n->out[k] >= 0 && !needed[n->out[k]])
                n->out[k] = -1;
        while (n->nout > 1 && n->out[n->nout - 1] < 0)
            n->nout--;
        for (int k = 0; k < n->nin && !n->dead; k++)
            if (n->in[k] >= 0)
                needed[n->in[k]] = true;
    }
}

static struct at_node *maker(const attend_graph *g, int t)
{
    return t >= 0 && g->tensor[t].node >= 0 ? &g->node[g->tensor[t].node] : NULL;
}

/* ---- looking through views ---- */

static bool swaps_last_two(const attend_graph *g, const struct at_node *n)
{
    int rank = g->tensor[n->in[0]].rank;
    for (int d = 0; d < rank; d++) {
        int want = d == rank - 2 ? rank - 1 : d == rank - 1 ? rank - 2 : d;
        if (n->p.permute.perm[d] != want)
            return false;
    }
    return true;
}

/* (B, G, S, D) under a head repeat, (B, G, 1, S, D) expanded to (B, G, r, S, D) and merged to
 * (B, G r, S, D), or under the expansion of one head; t itself where there is neither. */
static int below_repeat(const attend_graph *g, int t)
{
    const struct at_node *merge = maker(g, t);
    if (merge && merge->op == AT_EXPAND && g->tensor[t].rank == 4) {
        const struct at_tensor *from = &g->tensor[merge->in[0]];
        return from->shape[0] == g->tensor[t].shape[0] && from->shape[2] == g->tensor[t].shape[2] &&
                       from->shape[3] == g->tensor[t].shape[3]
                   ? merge->in[0]
                   : t;
    }
    if (!merge || merge->op != AT_RESHAPE)
        return t;
    const struct at_node *expand = maker(g, merge->in[0]);
    if (expand && expand->op == AT_COPY)
        expand = maker(g, expand->in[0]);
    if (!expand || expand->op != AT_EXPAND)
        return t;
    const struct at_node *split = maker(g, expand->in[0]);
    if (!split || split->op != AT_RESHAPE)
        return t;
    const struct at_tensor *base = &g->tensor[split->in[0]], *wide = &g->tensor[expand->out[0]];
    bool fits = base->rank == 4 && wide->rank == 5 && g->tensor[t].rank == 4 &&
                base->shape[0] == wide->shape[0] && base->shape[1] == wide->shape[1] &&
                base->shape[2] == wide->shape[3] && base->shape[3] == wide->shape[4] &&
                g->tensor[expand->in[0]].shape[2] == 1 && g->tensor[t].shape[0] == base->shape[0] &&
                g->tensor[t].shape[2] == base->shape[2] && g->tensor[t].shape[3] == base->shape[3];
    return fits ? split->in[0] : t;
}

/* ---- growing a region backwards: each returns the tensor before, or -1 with r->stop ---- */

static int stop(struct region *r, const char *why)
{
    r->stop = why;
    return -1;
}

static int through_scale(struct region *r, const struct at_node *n)
{
    const struct at_node *before = maker(r->g, n->in[0]);
    if (before && before->op == AT_TANH && !r->capped && n->p.scale.factor > 0 &&
        r->p.scale == 1) { /* c * tanh(x) */
        r->capped = true;
        r->p.softcap = n->p.scale.factor;
        r->p.scale = n->p.scale.factor; /* attention divides by c inside tanh; this undoes it */
        if (r->uses[n->in[0]] != 1)
            return stop(r, "a softcap inside it has another reader");
        return before->in[0];
    }
    r->p.scale *= n->p.scale.factor;
    return n->in[0];
}

/* A bias or a mask.  Attention has them after scale and softcap, and so must the composed form:
 * what was grown through so far comes after. */
static int take_input(struct region *r, int k, int t)
{
    if (t < 0)
        return 0;
    if (r->in[k] >= 0)
        return stop(r, k == AT_IN_BIAS ? "two biases are added" : "two boolean masks");
    if (r->capped || (k == AT_IN_BIAS ? r->p.scale != 1 : !(r->p.scale > 0)))
        return stop(r, "the scores are scaled or capped after a bias or mask");
    r->in[k] = t;
    return 0;
}

static int through_mask(struct region *r, const struct at_node *n)
{
    if (r->masked)
        return stop(r, "two masks in a row");
    if (r->capped || !(r->p.scale > 0))
        return stop(r, "the scores are scaled or capped after a bias or mask");
    r->masked = true;
    r->p.visible = n->p.attention.visible;
    if (take_input(r, AT_IN_BIAS, n->in[AT_IN_BIAS]) < 0 ||
        take_input(r, AT_IN_MASK, n->in[AT_IN_MASK]) < 0)
        return -1;
    r->in[AT_IN_KV_USED] = n->in[AT_IN_KV_USED];
    r->in[AT_IN_Q_OFFSET] = n->in[AT_IN_Q_OFFSET];
    return n->in[AT_IN_Q];
}

/* Can operand k of an addition be the scores? */
static bool may_be_scores(const struct region *r, const struct at_node *n, int k)
{
    const struct at_node *m = maker(r->g, n->in[k]);
    const struct at_tensor *s = &r->g->tensor[n->in[k]], *out = &r->g->tensor[n->out[0]];
    bool chain = m && (m->op == AT_SCALE || m->op == AT_MATMUL || m->op == AT_MASK ||
                       m->op == AT_WHERE || m->op == AT_ADD);
    return chain && s->rank == out->rank && !memcmp(s->shape, out->shape, sizeof s->shape);
}

/* Which operand of an addition holds the scores: rather one that was made for it alone. */
static int through_add(struct region *r, const struct at_node *n)
{
    for (int shared = 0; shared < 2; shared++)
        for (int k = 0; k < 2; k++)
            if (may_be_scores(r, n, k) && (shared || r->uses[n->in[k]] == 1))
                return take_input(r, AT_IN_BIAS, n->in[1 - k]) < 0 ? -1 : n->in[k];
    return stop(r, "an addition whose scores are not found");
}

static int through_where(struct region *r, const struct at_node *n)
{
    if (!(isinf(n->p.where.other) && n->p.where.other < 0))
        return stop(r, "a where to something else than -inf");
    const struct at_tensor *a = &r->g->tensor[n->in[1]], *out = &r->g->tensor[n->out[0]];
    if (a->rank != out->rank || memcmp(a->shape, out->shape, sizeof a->shape))
        return stop(r, "a condition that is larger than the scores");
    return take_input(r, AT_IN_MASK, n->in[0]) < 0 ? -1 : n->in[1];
}

/* From the softmax's input to the matmul that makes the scores. */
static const struct at_node *grow_back(struct region *r, int t)
{
    for (;;) {
        const struct at_node *n = maker(r->g, t);
        if (!n)
            return stop(r, "its scores are an input"), NULL;
        if (r->uses[t] != 1)
            return stop(r, "its scores have another reader"), NULL;
        at_str_add(&r->made_of, "%s <- ", at_ops[n->op].name);
        switch (n->op) {
        case AT_MATMUL:
            return n;
        case AT_SCALE:
            t = through_scale(r, n);
            break;
        case AT_MASK:
            t = through_mask(r, n);
            break;
        case AT_ADD:
            t = through_add(r, n);
            break;
        case AT_WHERE:
            t = through_where(r, n);
            break;
        default:
            return stop(r, "its scores pass an operator that attention has not"), NULL;
        }
        if (t < 0)
            return NULL;
    }
}

/* q . k as (B, H, Sq, D) and (B, G, Skv, D). */
static bool find_qk(struct region *r, const struct at_node *n)
{
    attend_graph *g = r->g;
    int k = n->in[1];
    if (!n->p.matmul.b_rows) {
        const struct at_node *t = maker(g, k);
        if (!t || t->op != AT_PERMUTE || !swaps_last_two(g, t))
            return stop(r, "the keys are not transposed by a view"), false;
        k = t->in[0];
    }
    r->in[AT_IN_Q] = n->in[0];
    r->in[AT_IN_K] = below_repeat(g, k);
    return true;
}

/* Would the attention be a legal node? */
static bool fits(struct region *r)
{
    const struct at_tensor *q = &r->g->tensor[r->in[AT_IN_Q]], *k = &r->g->tensor[r->in[AT_IN_K]],
                           *v = &r->g->tensor[r->in[AT_IN_V]];
    if (q->rank != 4 || k->rank != 4 || v->rank != 4)
        return stop(r, "q, k and v are not (B, H, S, D)"), false;
    if (k->type != v->type || attend_type_block(k->type) > 1)
        return stop(r, "k and v are not of one floating type"), false;
    if (k->shape[0] != q->shape[0] || v->shape[0] != q->shape[0] || k->shape[1] != v->shape[1] ||
        k->shape[2] != v->shape[2] || k->shape[1] < 1 || q->shape[1] < 1 ||
        q->shape[1] % k->shape[1])
        return stop(r, "the heads or the batch of q, k and v do not fit"), false;
    if (!isfinite(r->p.scale) || !isfinite(r->p.softcap))
        return stop(r, "the scores are scaled by what is no finite number"), false;
    if (q->shape[3] < 1 || q->shape[3] > AT_MAX_HEAD || v->shape[3] < 1 ||
        v->shape[3] > AT_MAX_HEAD)
        return stop(r, "the head size is above the limit"), false;
    return true;
}

/* Attention reads everything where the region ends: a state that was read before must still be that
 * version there. */
static bool appended_between(struct region *r, const struct at_node *end)
{
    const attend_graph *g = r->g;
    for (int k = 0; k < AT_IN_COUNT; k++)
        for (int t = r->in[k]; t >= 0; t = g->tensor[t].of) {
            int next = g->tensor[t].next_version;
            if (next >= 0 && g->tensor[next].node < end - g->node)
                return stop(r, "a state is appended to inside it"), true;
            if (maker(g, t) && at_op_writes(maker(g, t)->op))
                break; /* what this version superseded does not matter */
        }
    return false;
}

static struct at_node *reader(attend_graph *g, int t)
{
    for (int i = g->tensor[t].node + 1; i < g->nnode; i++)
        for (int k = 0; k < g->node[i].nin && !g->node[i].dead; k++)
            if (g->node[i].in[k] == t)
                return &g->node[i];
    return NULL;
}

static bool grow(struct region *r, const struct at_node *softmax, struct at_node **last)
{
    attend_graph *g = r->g;
    const struct at_node *scores = grow_back(r, softmax->in[0]);
    if (!scores || !find_qk(r, scores))
        return false;
    struct at_node *out = r->uses[softmax->out[0]] == 1 ? reader(g, softmax->out[0]) : NULL;
    if (!out)
        return stop(r, "its weights have another reader or are an output"), false;
    if (out->op != AT_MATMUL || out->in[0] != softmax->out[0] || out->p.matmul.b_rows)
        return stop(r, "its weights are not multiplied with values"), false;
    r->in[AT_IN_V] = below_repeat(g, out->in[1]);
    if (!fits(r) || appended_between(r, out))
        return false;
    *last = out;
    return true;
}

static int fuse(attend_graph *g, struct region *r, struct at_node *out)
{
    const struct at_tensor *q = &g->tensor[r->in[AT_IN_Q]];
    int lse = at_graph_tensor(g, ATTEND_F32, 3, q->shape);
    if (lse < 0)
        return g->err.status;
    g->tensor[lse].node = (int)(out - g->node);
    out->op = AT_ATTENTION;
    out->nin = AT_IN_COUNT;
    memcpy(out->in, r->in, sizeof r->in);
    out->out[1] = lse;
    out->nout = 2;
    out->p.attention = r->p;
    at_str_add(&r->made_of, "q, k, v");
    out->fused = r->made_of.failed ? NULL : at_strdup(g->ctx, r->made_of.text);
    return out->fused ? 0 : at_fail(&g->err, ATTEND_ENOMEM, "no memory for a plan");
}

/* What people wonder about: an attention that they wrote and that stayed in pieces. */
static int note(attend_graph *g, const struct at_node *softmax, const char *why)
{
    char text[256];
    if (softmax->label)
        snprintf(text, sizeof text, "softmax '%s': %s", softmax->label, why);
    else
        snprintf(text, sizeof text, "softmax %d: %s", (int)(softmax - g->node), why);
    char *copy = at_strdup(g->ctx, text);
    if (!copy || !at_grow(g->ctx, (void **)&g->note, &g->cap_note, g->nnote, sizeof *g->note)) {
        at_free(g->ctx, copy);
        return at_fail(&g->err, ATTEND_ENOMEM, "no memory for a plan");
    }
    g->note[g->nnote++] = copy;
    return 0;
}

static int fuse_at(attend_graph *g, int node, const int *uses)
{
    struct region r = {
        .g = g, .uses = uses, .p = {.visible = {.left = -1, .right = -1}, .scale = 1}
    };
    struct at_node *last = NULL;
    memset(r.in, -1, sizeof r.in);
    at_str_add(&r.made_of, "matmul <- softmax <- ");
    int status =
        grow(&r, &g->node[node], &last) ? fuse(g, &r, last) : note(g, &g->node[node], r.stop);
    attend_free(r.made_of.text);
    return status;
}

static int fuse_all(attend_graph *g, int *uses)
{
    int status = 0;
    for (int i = 0; i < g->nnode && status == 0; i++)
        if (g->node[i].op == AT_SOFTMAX && !g->node[i].dead) {
            count_uses(g, uses);
            status = fuse_at(g, i, uses);
        }
    return status;
}

/* ---- gates: silu(a) b ---- */

/* The silu that operand k of a product is, for nobody else and of the product's own rows, or NULL.
 */
static const struct at_node *gate_of(const attend_graph *g, const int *uses,
                                     const struct at_node *n, int k)
{
    const struct at_node *silu = maker(g, n->in[k]);
    const struct at_tensor *a = &g->tensor[n->in[k]], *b = &g->tensor[n->in[1 - k]],
                           *out = &g->tensor[n->out[0]];
    bool fits = silu && silu->op == AT_SILU && uses[n->in[k]] == 1 && out->rank > 0 &&
                a->rank == out->rank && !memcmp(a->shape, out->shape, sizeof a->shape) &&
                b->rank > 0 && b->shape[b->rank - 1] == out->shape[out->rank - 1] &&
                g->tensor[g->tensor[silu->in[0]].root].class != AT_STATE; /* it may move on */
    return fits ? silu : NULL;
}

static int fuse_gates(attend_graph *g, int *uses)
{
    count_uses(g, uses);
    for (int i = 0; i < g->nnode; i++) {
        struct at_node *n = &g->node[i];
        const struct at_node *silu = NULL;
        for (int k = 0; k < 2 && !silu && n->op == AT_MUL && !n->dead; k++)
            if ((silu = gate_of(g, uses, n, k)))
                n->in[1] = n->in[1 - k];
        if (!silu)
            continue;
        n->op = AT_SILU_MUL;
        n->in[0] = silu->in[0];
        n->fused = at_strdup(g->ctx, "mul <- silu");
        if (!n->fused)
            return at_fail(&g->err, ATTEND_ENOMEM, "no memory for a plan");
    }
    return 0;
}

/* Tensors that there can be: a fused region adds one, its LSE. */
static int64_t most_tensors(const attend_graph *g)
{
    int softmaxes = 0;
    for (int i = 0; i < g->nnode; i++)
        softmaxes += g->node[i].op == AT_SOFTMAX;
    return g->ntensor + softmaxes + 1;
}

int at_canon_fuse(attend_graph *g)
{
    int *uses = at_calloc(g->ctx, most_tensors(g), sizeof *uses);
    if (!uses)
        return at_fail(&g->err, ATTEND_ENOMEM, "no memory for gradients");
    int status = fuse_all(g, uses);
    at_free(g->ctx, uses);
    return status;
}

int at_canon(attend_graph *g, bool fuse, bool gates)
{
    int status = 0;
    int *uses = at_calloc(g->ctx, most_tensors(g), sizeof *uses);
    bool *needed = at_calloc(g->ctx, most_tensors(g), sizeof *needed);
    if (!uses || !needed)
        status = at_fail(&g->err, ATTEND_ENOMEM, "no memory for a plan");
    else
        mark_dead(g, needed); /* what nobody needs is no reader */
    if (fuse && status == 0)
        status = fuse_all(g, uses);
    if (fuse && gates && status == 0)
        status = fuse_gates(g, uses);
    if (status == 0)
        mark_dead(g, needed);
    at_free(g->ctx, uses);
    at_free(g->ctx, needed);
    return status;
}
