/* SPDX-License-Identifier: MIT */
/* In place of gradients, losses and optimisers, where training is left out: the graph fails. */
#include "core.h"

static int missing(attend_graph *g)
{
    return at_fail(&g->err, ATTEND_EUNSUPPORTED,
                   "this library was built without training (--disable-training)");
}

static attend_tensor nothing(attend_graph *g)
{
    missing(g);
    return attend_none();
}

attend_tensor attend_graph_sum(attend_graph *g, attend_tensor a, attend_shape shape)
{
    (void)a, (void)shape;
    return nothing(g);
}

attend_tensor attend_graph_mean(attend_graph *g, attend_tensor a, attend_shape shape)
{
    (void)a, (void)shape;
    return nothing(g);
}

attend_tensor attend_graph_cross_entropy(attend_graph *g, attend_tensor logits,
                                         attend_tensor classes)
{
    (void)logits, (void)classes;
    return nothing(g);
}

attend_tensor attend_graph_square_loss(attend_graph *g, attend_tensor a, attend_tensor b)
{
    (void)a, (void)b;
    return nothing(g);
}

void attend_grad_opts_init(attend_grad_opts *opts)
{
    *opts = (attend_grad_opts){.size = sizeof *opts};
}

int attend_grad(attend_graph *g, const attend_tensor *outputs, const attend_tensor *seeds,
                int noutputs, const attend_tensor *inputs, int ninputs, attend_tensor *grads,
                const attend_grad_opts *opts)
{
    (void)outputs, (void)seeds, (void)noutputs, (void)inputs, (void)opts;
    for (int i = 0; i < ninputs; i++)
        grads[i] = attend_none();
    return missing(g);
}

attend_tensor attend_graph_clip(attend_graph *g, const attend_tensor *grads, int n, float most)
{
    (void)grads, (void)n, (void)most;
    return nothing(g);
}

void attend_update_opts_init(attend_update_opts *opts)
{
    *opts = (attend_update_opts){.size = sizeof *opts, .factor = attend_none()};
}

attend_tensor attend_graph_sgd(attend_graph *g, attend_tensor weights, attend_tensor velocity,
                               attend_tensor grad, attend_tensor rate,
                               const attend_update_opts *opts)
{
    (void)weights, (void)velocity, (void)grad, (void)rate, (void)opts;
    return nothing(g);
}

attend_tensor attend_graph_adamw(attend_graph *g, attend_tensor weights, attend_tensor first,
                                 attend_tensor second, attend_tensor grad, attend_tensor rate,
                                 attend_tensor step, const attend_update_opts *opts)
{
    (void)weights, (void)first, (void)second, (void)grad, (void)rate, (void)step, (void)opts;
    return nothing(g);
}
