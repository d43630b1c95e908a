/* SPDX-License-Identifier: MIT */
/* A problem word becomes the graph of its gradients, a run and a comparison. */
#include "check_grads.h"
#include "graph_help.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void run(const char *device, const char *word, attend_graph *g, const attend_binding *bind,
                int n)
{
    attend_plan *plan = help_compile(g, device, 1);
    attend_exec *exec;
    if (attend_exec_new(plan, &exec) < 0 || attend_bind(exec, bind, n) < 0 || attend_run(exec) < 0)
        bail("%s %s: %s", device, word, attend_exec_error(exec));
    attend_exec_free(exec);
    attend_plan_free(plan);
}

static int named(const attend_graph *g, const char *name)
{
    for (int t = 0; t < g->ntensor; t++)
        if (g->tensor[t].name && !strcmp(g->tensor[t].name, name))
            return t;
    return -1;
}

static int64_t elements(const attend_graph *g, int t)
{
    int64_t n = 1;
    for (int d = 0; d < g->tensor[t].rank; d++)
        n *= g->tensor[t].shape[d];
    return n;
}

int check_gradients(attend_ctx *c, const char *device, const char *word, struct check_grads *out)
{
    static const char *const in[] = {"q", "k", "v", "mask", "alibi", "sinks", "additive"};
    static const char *const names[] = {"d0", "d1", "d2", "d3", "d4", "d5", "d6"};
    struct check_ready ready;
    struct at_problem p;
    char err[320];
    attend_binding bind[48];
    attend_tensor wrt[CHECK_GRADS], grad[CHECK_GRADS];
    int n = 0;
    *out = (struct check_grads){.n = 0};
    if (at_problem_parse(word, &p, err, sizeof err) < 0 ||
        check_prepare(&ready, c, "ref", word, err, sizeof err) < 0)
        bail("%s", err);
    attend_graph *g = check_graph(c, &p);
    for (n = 0; n < ready.nbind; n++)
        bind[n] = ready.bind[n];
    attend_tensor o = {g, named(g, "o")};
    attend_tensor seed = attend_graph_input(g, "seed", ATTEND_F32, attend_tensor_shape(o));
    float *dout = calloc((size_t)elements(g, seed.id), sizeof *dout);
    uint64_t draw = 77;
    help_normal(&draw, dout, elements(g, seed.id));
    bind[n++] = (attend_binding){"seed", dout, elements(g, seed.id) * 4, NULL, 0, 0};
    for (int k = 0; k < CHECK_GRADS; k++) {
        int t = named(g, in[k]);
        if (t < 0 || (g->tensor[t].type != ATTEND_F32 && g->tensor[t].type != ATTEND_F16 &&
                      g->tensor[t].type != ATTEND_BF16))
            continue;
        wrt[out->n] = (attend_tensor){g, t};
        out->size[out->n] = elements(g, t);
        out->by[out->n] = strcmp(in[k], "alibi") ? 1 : (double)(p.nk + p.nq);
        out->of[out->n] = calloc((size_t)elements(g, t), sizeof(float));
        bind[n++] =
            (attend_binding){names[out->n], out->of[out->n], elements(g, t) * 4, NULL, 0, 0};
        out->n++;
    }
    int status = attend_grad(g, &o, &seed, 1, wrt, out->n, grad, NULL);
    for (int k = 0; status == 0 && k < out->n; k++)
        attend_graph_output(g, names[k], grad[k]);
    if (status == 0 && attend_graph_status(g) < 0)
        bail("%s: %s", word, attend_graph_error(g));
    if (status == 0)
        run(device, word, g, bind, n);
    else if (!attend_graph_error(g)[0])
        status = 0; /* a refusal without a sentence is none */
    attend_graph_free(g);
    check_done(&ready);
    free(dout);
    return status;
}

void check_grads_free(struct check_grads *g)
{
    for (int k = 0; k < g->n; k++)
        free(g->of[k]);
}

/* Every element is a sum over rows, keys and channels of products of factors each rounded a few
 * times; a weight is off by as many roundings as its score is large and has channels.  Where dp and
 * delta cancel (a row that sees one key) what is left is the rounding of both, which are as large
 * as rows of dO and V, of variance 1, make them; a slope's is times distances. */
bool check_same_gradients(attend_ctx *ctx, const char *device, const char *word,
                          const struct check_grads *want)
{
    struct check_grads got;
    struct at_problem p;
    char err[320];
    bool good = true;
    if (at_problem_parse(word, &p, err, sizeof err) < 0)
        bail("%s", err);
    double unit = 0x1p-24 * (double)(p.nq * p.nh / p.ng + p.nk + 8 * p.dk + 64);
    if (check_gradients(ctx, device, word, &got) < 0)
        return ok(false, "%s %s: gradients", device, word);
    for (int k = 0; k < got.n; k++) {
        double most = 4 * sqrt((double)p.dv) * got.by[k], worst = 0;
        int64_t where = 0;
        for (int64_t i = 0; i < got.size[k]; i++) {
            if (isnan(want->of[k][i])) /* of a row that sees a NaN, and of the keys that such a row
                                          sees */
                continue;
            double e = fabs((double)got.of[k][i] - (double)want->of[k][i]);
            most = fmax(most, fabs((double)want->of[k][i]));
            where = e > worst || isnan(e) ? i : where;
            worst = e > worst || isnan(e) ? e : worst;
        }
        if (!(worst <= unit * most) || !isfinite(most)) {
            diag("gradient %d: off by %g of %g, bound %g; element %lld: %g, wants %g", k, worst,
                 most, unit * most, (long long)where, (double)got.of[k][where],
                 (double)want->of[k][where]);
            good = false;
        }
    }
    check_grads_free(&got);
    return ok(good, "%s %s: gradients", device, word);
}

void check_gradients_of(attend_ctx *ctx, const char *word)
{
    struct check_grads want;
    attend_device_info info;
    int status = check_gradients(ctx, "ref", word, &want);
    if (status < 0)
        is_int(status, ATTEND_EUNSUPPORTED, "%s: no gradients, by a sentence", word);
    for (int i = 1; status == 0 && attend_device_get(ctx, i, &info) == ATTEND_OK; i++)
        if (info.present && !(check_leaves_out_compilers && check_compiles(info.name)))
            check_same_gradients(ctx, info.name, word, &want);
    check_grads_free(&want);
}
