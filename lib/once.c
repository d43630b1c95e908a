/* SPDX-License-Identifier: MIT */
/* One attention at once: the smallest use of the public API, for callers with arrays. */
#include <stdlib.h>
#include <string.h>

#include "core.h"

struct once {
    attend_graph *g;
    attend_plan *plan;
    attend_exec *exec;
    attend_binding bind[5];
    int nbind;
};

static attend_tensor input(struct once *o, const char *name, const attend_array *a)
{
    o->bind[o->nbind++] = (attend_binding){.name = name, .data = a->data, .bytes = a->bytes};
    return attend_graph_input(o->g, name, a->type, a->shape);
}

/* The result: the caller's memory, or new. */
static int output(struct once *o, const attend_array *q, const attend_array *v, attend_array *out)
{
    attend_shape shape = q->shape;
    shape.dim[3] = v->shape.dim[3];
    int64_t bytes = (int64_t)sizeof(float);
    for (int d = 0; d < 4; d++)
        bytes = at_mul_size(bytes, shape.dim[d]);
    if (bytes < 0)
        return at_fail(&o->g->err, ATTEND_ELIMIT, "the result has more than 2^63 bytes");
    if (out->data && (out->type != ATTEND_F32 || out->shape.rank != 4 ||
                      memcmp(out->shape.dim, shape.dim, 4 * sizeof *shape.dim) != 0))
        return at_fail(
            &o->g->err, ATTEND_EINVAL,
            "the result is f32 (%lld, %lld, %lld, %lld), and other memory is given for it",
            (long long)shape.dim[0], (long long)shape.dim[1], (long long)shape.dim[2],
            (long long)shape.dim[3]);
    void *data = out->data ? out->data : malloc(bytes > 0 ? (size_t)bytes : 1);
    if (!data)
        return at_fail(&o->g->err, ATTEND_ENOMEM, "no memory for a result of %lld bytes",
                       (long long)bytes);
    if (!out->data)
        *out = (attend_array){ATTEND_F32, shape, data, bytes};
    o->bind[o->nbind++] = (attend_binding){.name = "o", .data = data, .bytes = out->bytes};
    return 0;
}

static int run(struct once *o)
{
    int status = attend_exec_new(o->plan, &o->exec);
    if (status == 0)
        status = attend_bind(o->exec, o->bind, o->nbind);
    return status == 0 ? attend_run(o->exec) : status;
}

int attend_sdpa(attend_ctx *ctx, const attend_array *q, const attend_array *k,
                const attend_array *v, const attend_array *mask, const attend_attention_opts *opts,
                attend_array *out, char *err, size_t errlen)
{
    struct once o = {.g = attend_graph_new(ctx)};
    bool given = out->data != NULL;
    attend_attention_opts all;
    attend_attention_opts_init(&all);
    if (!o.g)
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a graph");
    at_opts_take(&o.g->err, "attend_attention_opts", &all, sizeof all, opts);
    attend_tensor tq = input(&o, "q", q), tk = input(&o, "k", k), tv = input(&o, "v", v);
    if (mask)
        all.mask.mask = input(&o, "mask", mask);
    attend_graph_output(o.g, "o", attend_graph_attention(o.g, tq, tk, tv, &all, NULL));
    int status = attend_compile(o.g, NULL, &o.plan);
    if (status == 0)
        status = output(&o, q, v, out);
    if (status < 0)
        at_say(err, errlen, status, "%s", attend_graph_error(o.g));
    else if ((status = run(&o)) < 0)
        at_say(err, errlen, status, "%s", o.exec ? attend_exec_error(o.exec) : "no memory to run");
    if (status < 0 && !given && out->data) {
        free(out->data);
        *out = (attend_array){0};
    }
    attend_exec_free(o.exec);
    attend_plan_free(o.plan);
    attend_graph_free(o.g);
    return status;
}
