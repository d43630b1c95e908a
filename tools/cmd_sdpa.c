/* SPDX-License-Identifier: MIT */
/* attend sdpa: one attention on tensors from files. */
#include "sdpa.h"

#include <stdio.h>
#include <stdlib.h>

/* clang-format off */
static const struct cmd_flag flags[] = {
#include "sdpa_flags.h"
    {NULL, NULL, NULL, NULL},
};
/* clang-format on */

static attend_tensor input(attend_graph *g, const struct sdpa *s, int i)
{
    const struct sdpa_array *t = &s->t[i];
    return t->a.data ? attend_graph_input(g, sdpa_names[i].name, t->a.type, t->shape)
                     : attend_none();
}

static int build(attend_graph *g, struct sdpa *s)
{
    attend_attention_opts o = s->opts;
    attend_tensor of[SDPA_TENSORS];
    for (int i = 0; i < SDPA_TENSORS; i++)
        of[i] = i < SDPA_INPUTS ? input(g, s, i) : attend_none();
    o.mask.mask = of[SDPA_MASK];
    o.mask.kv_used = of[SDPA_KV_USED];
    o.alibi = of[SDPA_ALIBI];
    o.sinks = of[SDPA_SINKS];
    o.q_lens = of[SDPA_Q_LENS];
    o.kv_lens = of[SDPA_KV_LENS];
    o.block_table = of[SDPA_TABLE];
    o.k_scale = of[SDPA_K_SCALE];
    o.v_scale = of[SDPA_V_SCALE];
    attend_tensor q = of[SDPA_Q], k = of[SDPA_K], v = of[SDPA_V], lse;
    if (s->additive) {
        q = attend_graph_matmul_nt(g, q, of[SDPA_WQ]);
        k = attend_graph_matmul_nt(g, k, of[SDPA_WK]);
        o.additive = of[SDPA_VA];
    }
    attend_capture capture[SDPA_LETS];
    sdpa_build_lets(g, s, capture);
    o.captures = capture;
    o.ncaptures = s->nlet;
    bool want_lse = cmd_has(s->l, "--lse");
    attend_tensor out = attend_graph_attention(g, q, k, v, &o, want_lse ? &lse : NULL);
    attend_graph_output(g, "o", out);
    if (want_lse)
        attend_graph_output(g, "lse", lse);
    if (cmd_has(s->l, "--weights"))
        sdpa_build_weights(g, s, q, k, &o);
    return cmd_has(s->l, "--grads") ? sdpa_build_grads(g, s, out, of, capture) : CMD_DONE;
}

static int run_exec(struct sdpa *s, attend_exec *exec)
{
    attend_binding bind[SDPA_TENSORS + SDPA_LETS + SDPA_GRADS];
    int n = 0, status = sdpa_make_outputs(s);
    for (int i = 0; i < SDPA_TENSORS; i++) {
        struct sdpa_array *t = &s->t[i];
        if (t->a.data)
            bind[n++] = (attend_binding){.name = sdpa_names[i].name,
                                         .data = t->a.data,
                                         .bytes = t->a.bytes,
                                         .stride = t->strided ? t->stride : NULL};
    }
    for (int i = 0; i < s->nlet; i++) {
        struct sdpa_let *let = &s->let[i];
        bind[n++] =
            (attend_binding){.name = let->input, .data = let->a.data, .bytes = let->a.bytes};
    }
    for (int i = 0; i < s->ngrad; i++) {
        struct sdpa_grad *d = &s->grad[i];
        bind[n++] = (attend_binding){
            .name = d->name, .data = d->a.data, .bytes = d->a.bytes, .stride = d->stride};
    }
    if (status != CMD_DONE)
        return status;
    if (attend_bind(exec, bind, n) < 0)
        return cmd_fail(s->l, NULL, "%s", attend_exec_error(exec));
    if (s->use)
        return s->use(s->arg, exec);
    return attend_run(exec) < 0 ? cmd_fail(s->l, NULL, "%s", attend_exec_error(exec)) : CMD_DONE;
}

static int run_plan(struct sdpa *s, attend_plan *plan)
{
    attend_exec *exec;
    if (s->l->plan)
        return cmd_print_plan(s->l, plan);
    int made = attend_exec_new(plan, &exec);
    if (made < 0)
        return cmd_fail(s->l, NULL, "cannot prepare a run: %s", attend_status_name(made));
    int status = run_exec(s, exec);
    attend_exec_free(exec);
    return status;
}

static int run_graph(struct sdpa *s, attend_ctx *ctx)
{
    attend_plan *plan;
    attend_graph *g = attend_graph_new(ctx);
    if (!g)
        return cmd_fail(s->l, NULL, "no memory");
    int status = build(g, s);
    if (status == CMD_DONE)
        status = sdpa_check_exprs(s, g);
    if (status == CMD_DONE)
        status = cmd_compile(s->l, g, &plan);
    attend_graph_free(g);
    if (status != CMD_DONE)
        return status;
    status = run_plan(s, plan);
    attend_plan_free(plan);
    return status;
}

static void print_json(const struct sdpa *s)
{
    const attend_shape *o = &s->t[SDPA_O].a.shape;
    printf("{\"type\": \"f32\", \"shape\": [");
    for (int d = 0; d < o->rank; d++)
        printf("%s%lld", d ? ", " : "", (long long)o->dim[d]);
    printf("]}\n");
}

static int write_outputs(const struct sdpa *s)
{
    char err[320];
    for (int i = SDPA_O; i <= SDPA_W_INDEX; i++) {
        const struct sdpa_array *t = &s->t[i];
        if (t->a.data && attend_npy_write(t->file, &t->a, err, sizeof err) < 0)
            return cmd_fail(s->l, t->file, "%s", err);
    }
    int status = sdpa_write_grads(s);
    if (status == CMD_DONE && cmd_has(s->l, "--json"))
        print_json(s);
    return status;
}

static int run_all(struct sdpa *s)
{
    attend_ctx *ctx;
    int status = sdpa_read_flags(s);
    if (status == CMD_DONE)
        status = sdpa_read_files(s);
    if (status == CMD_DONE)
        status = sdpa_read_lets(s);
    if (status == CMD_DONE)
        status = cmd_context(s->l, &ctx);
    if (status != CMD_DONE)
        return status;
    status = run_graph(s, ctx);
    attend_ctx_free(ctx);
    return status == CMD_DONE && !s->l->plan && !s->use ? write_outputs(s) : status;
}

int sdpa_use(const struct cmd_line *l, int (*use)(void *arg, attend_exec *exec), void *arg)
{
    struct sdpa s = {.l = l, .use = use, .arg = arg};
    int status = run_all(&s);
    for (int i = 0; i < SDPA_TENSORS; i++)
        attend_free(s.t[i].a.data);
    for (int i = 0; i < s.nlet; i++)
        attend_free(s.let[i].a.data);
    sdpa_free_grads(&s);
    free(s.additive_files);
    free(s.index_file);
    return status;
}

static int run(const struct cmd_line *l)
{
    return sdpa_use(l, NULL, NULL);
}

const struct cmd_verb cmd_sdpa = {
    "sdpa",
    "--q Q.npy --k K.npy --v V.npy -o O.npy [flags]",
    "one attention on tensors from .npy files",
    flags,
    run,
    true,
};
