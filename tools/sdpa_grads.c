/* SPDX-License-Identifier: MIT */
/* --dout and --grads: the backward pass, a file for each float tensor that went in. */
#include "sdpa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sdpa_check_grads(struct sdpa *s)
{
    bool dout = cmd_has(s->l, "--dout"), grads = cmd_has(s->l, "--grads");
    if (dout != grads)
        return cmd_wrong(s->l, "--dout and --grads need each other");
    if (grads && s->paged)
        return cmd_wrong(s->l, "--grads takes no --block-table: pages are a cache");
    return CMD_DONE;
}

/* Of each tensor: what its gradient is called. */
static const char *const suffix[SDPA_TENSORS] = {
    [SDPA_Q] = "dq",       [SDPA_K] = "dk",          [SDPA_V] = "dv",
    [SDPA_MASK] = "dmask", [SDPA_ALIBI] = "dslopes", [SDPA_SINKS] = "dsinks",
    [SDPA_WQ] = "dwq",     [SDPA_WK] = "dwk",        [SDPA_VA] = "dva",
};

static int64_t count(const attend_shape *s)
{
    int64_t n = 1;
    for (int d = 0; d < s->rank; d++)
        n *= s->dim[d];
    return n;
}

/* Memory for one gradient, of the shape and layout of its file. */
static int add(struct sdpa *s, const char *name, const attend_shape *shape, const int64_t *stride)
{
    const char *prefix = cmd_value(s->l, "--grads");
    struct sdpa_grad *d = &s->grad[s->ngrad++];
    size_t length = strlen(prefix) + strlen(name) + sizeof "..npy";
    int64_t bytes = count(shape) * (int64_t)sizeof(float);
    snprintf(d->name, sizeof d->name, "%s", name);
    d->stride = stride;
    d->a = (attend_array){.type = ATTEND_F32, .shape = *shape, .bytes = bytes};
    d->a.data = malloc((size_t)bytes + 1);
    d->file = malloc(length);
    if (!d->a.data || !d->file)
        return cmd_fail(s->l, NULL, "no memory for %lld bytes", (long long)bytes);
    snprintf(d->file, length, "%s.%s.npy", prefix, name);
    return CMD_DONE;
}

int sdpa_build_grads(attend_graph *g, struct sdpa *s, attend_tensor out, const attend_tensor *of,
                     const attend_capture *lets)
{
    attend_tensor in[SDPA_GRADS], grads[SDPA_GRADS];
    int status = CMD_DONE;
    for (int i = 0; i < SDPA_FILES && status == CMD_DONE; i++) {
        const struct sdpa_array *t = &s->t[i];
        if (!suffix[i] || !t->a.data || t->a.type == ATTEND_BOOL)
            continue;
        in[s->ngrad] = of[i];
        status = add(s, suffix[i], &t->a.shape, t->strided ? t->stride : NULL);
    }
    for (int i = 0; i < s->nlet && status == CMD_DONE; i++) {
        char name[48];
        if (s->let[i].a.type != ATTEND_F32 && s->let[i].a.type != ATTEND_F16)
            continue;
        snprintf(name, sizeof name, "d_%s", s->let[i].name);
        in[s->ngrad] = lets[i].tensor;
        status = add(s, name, &s->let[i].a.shape, NULL);
    }
    if (status != CMD_DONE ||
        attend_grad(g, &out, &of[SDPA_DOUT], 1, in, s->ngrad, grads, NULL) < 0)
        return status; /* what the graph refuses, compiling says */
    for (int i = 0; i < s->ngrad; i++)
        attend_graph_output(g, s->grad[i].name, grads[i]);
    return CMD_DONE;
}

int sdpa_write_grads(const struct sdpa *s)
{
    char err[320];
    for (int i = 0; i < s->ngrad; i++)
        if (attend_npy_write(s->grad[i].file, &s->grad[i].a, err, sizeof err) < 0)
            return cmd_fail(s->l, s->grad[i].file, "%s", err);
    return CMD_DONE;
}

void sdpa_free_grads(struct sdpa *s)
{
    for (int i = 0; i < s->ngrad; i++) {
        free(s->grad[i].file);
        attend_free(s->grad[i].a.data);
    }
}
