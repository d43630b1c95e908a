/* SPDX-License-Identifier: MIT */
/* What the examples that learn share: random numbers, weights with their moments, running a graph.
 */
#ifndef TRAIN_H
#define TRAIN_H

#include <attend.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 /* weights */ };

struct weight {
    char name[3][40]; /* of the weights, and of the two moments */
    attend_shape shape;
    float *data[3];
    attend_tensor state[3];
};

static struct weight weights[MOST];
static int nweight;
static const char *device; /* --device; NULL: attend's choice */

static inline void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* ---- random numbers ---- */

static inline uint64_t mix(uint64_t z) /* splitmix64 (Steele, Lea, Flood 2014) */
{
    z += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static inline double uniform(uint64_t *state) /* [0, 1) */
{
    return (double)(mix((*state)++) >> 11) * 0x1p-53;
}

/* ---- weights ---- */

static inline int64_t count(const struct weight *w)
{
    int64_t n = 1;
    for (int d = 0; d < w->shape.rank; d++)
        n *= w->shape.dim[d];
    return n;
}

/* The next weight of the model, which all graphs ask for in one order, as a state of g; the first
 * one to ask makes it, by fill. */
static inline struct weight *
next_weight(attend_graph *g, int *next, const char *name, attend_shape shape, float deviation,
            void (*fill)(struct weight *w, float deviation, uint64_t state))
{
    static const char *const kind[] = {"", "m.", "v."};
    struct weight *w = &weights[*next];
    if (*next == MOST)
        die("more weights than there is room for");
    if (++*next > nweight) {
        nweight = *next;
        w->shape = shape;
        for (int k = 0; k < 3; k++) {
            snprintf(w->name[k], sizeof w->name[k], "%s%s", kind[k], name);
            w->data[k] = calloc((size_t)count(w), sizeof(float));
            if (!w->data[k])
                die("no memory");
        }
        fill(w, deviation, mix((uint64_t)nweight) >> 8 << 20);
    }
    for (int k = 0; k < 3; k++)
        w->state[k] = attend_graph_state(g, w->name[k], ATTEND_F32, shape);
    return w;
}

/* Gradients of the loss, clipped to norm 1, and AdamW; decay: of matrices. */
static inline void learn(attend_graph *g, attend_tensor loss, attend_tensor rate,
                         attend_tensor step, float beta2, float decay)
{
    attend_tensor in[MOST], grad[MOST];
    attend_update_opts o;
    attend_update_opts_init(&o);
    for (int i = 0; i < nweight; i++)
        in[i] = weights[i].state[0];
    if (attend_grad(g, &loss, NULL, 1, in, nweight, grad, NULL) < 0)
        die(attend_graph_error(g));
    o.beta2 = beta2;
    o.factor = attend_graph_clip(g, grad, nweight, 1);
    for (int i = 0; i < nweight; i++) {
        o.weight_decay = weights[i].shape.rank > 1 ? decay : 0;
        attend_graph_adamw(g, in[i], weights[i].state[1], weights[i].state[2], grad[i], rate, step,
                           &o);
    }
}

/* ---- running a graph ---- */

struct run {
    attend_plan *plan;
    attend_exec *exec;
};

static inline attend_binding binding(const char *name, void *data, size_t bytes)
{
    return (attend_binding){.name = name, .data = data, .bytes = (int64_t)bytes};
}

/* Compiles g, frees it, and binds the weights and what else there is. */
static inline struct run compile(attend_graph *g, const attend_binding *extra, int nextra)
{
    struct run r;
    attend_compile_opts o;
    attend_binding bind[3 * MOST + 16];
    int n = 0;
    attend_compile_opts_init(&o);
    o.device = device;
    for (int i = 0; i < nweight; i++)
        for (int k = 0; k < 3; k++)
            bind[n++] = binding(weights[i].name[k], weights[i].data[k],
                                (size_t)count(&weights[i]) * sizeof(float));
    for (int i = 0; i < nextra; i++)
        bind[n++] = extra[i];
    if (attend_compile(g, &o, &r.plan) < 0)
        die(attend_graph_error(g));
    if (attend_exec_new(r.plan, &r.exec) < 0 || attend_bind(r.exec, bind, n) < 0)
        die(attend_exec_error(r.exec));
    attend_graph_free(g);
    return r;
}

static inline void end(struct run *r)
{
    attend_exec_free(r->exec);
    attend_plan_free(r->plan);
}

#endif
