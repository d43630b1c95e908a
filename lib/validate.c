/* SPDX-License-Identifier: MIT */
/* Checks that need the whole graph. */
#include "core.h"

/* Lengths, offsets and prefix sums are read on the host when they are bound, so they cannot be
 * something that the graph computes. */
static int check_host_read(attend_graph *g, const struct at_node *n)
{
    static const struct {
        int k;
        const char *what;
    } read[] = {
        {AT_IN_KV_USED,  "kv_used"    },
        {AT_IN_Q_OFFSET, "q_offset"   },
        {AT_IN_Q_LENS,   "q_lens"     },
        {AT_IN_KV_LENS,  "kv_lens"    },
        {AT_IN_TABLE,    "block_table"},
        {AT_IN_DRAW,     "draw"       }
    };
    if (n->op != AT_ATTENTION && n->op != AT_MASK && n->op != AT_WEIGHTS &&
        n->op != AT_ATTENTION_GRAD && n->op != AT_MASK_GRAD)
        return 0;
    for (int i = 0; i < AT_LEN(read); i++) {
        int t = n->in[read[i].k];
        if (t >= 0 && g->tensor[t].class != AT_INPUT && g->tensor[t].class != AT_CONST)
            return at_graph_fail(g, n, ATTEND_EUNSUPPORTED, "%s must be an input or a constant",
                                 read[i].what);
    }
    return 0;
}

int at_validate(attend_graph *g)
{
    bool writes = g->noutput > 0;
    for (int i = 0; i < g->nnode; i++) {
        writes |= at_op_writes(g->node[i].op);
        if (check_host_read(g, &g->node[i]) < 0)
            return g->err.status;
    }
    if (!writes)
        return at_fail(&g->err, ATTEND_EINVAL, "the graph has no output and writes no state");
    return 0;
}
