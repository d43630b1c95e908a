/* SPDX-License-Identifier: MIT */
/* The user's expressions as kernel text, for the end of a program: portable/score.cl and back.cl
 * call what is printed here. */
#include <stdio.h>

#include "gpu_problem.h"

static void print_function(struct at_str *s, const struct at_expr *x, const char *head,
                           enum at_expr_dialect dialect, const struct at_expr_box *box)
{
    if (!x)
        return;
    at_str_add(s,
               "AT_FN %s(const struct at_in *x, float score, int b, int h, int i, int j, int sq, "
               "int skv)\n{\n",
               head);
    at_expr_print(x, dialect, box, s);
    at_str_add(s, "}\n");
}

/* at_load_NAME(...) for each captured tensor. */
static void print_captures(struct at_str *s, const struct at_expr *score,
                           const struct at_expr *mask)
{
    for (int k = 0; k < AT_EXPR_CAPTURES; k++) {
        const struct at_expr *x = score && k < score->ncapture ? score : mask;
        if (!x || k >= x->ncapture)
            continue;
        const struct at_expr_capture *c = &x->capture[k];
        bool is_float = c->type == ATTEND_F32 || c->type == ATTEND_F16 || c->type == ATTEND_BF16;
        at_str_add(s, "#define at_load_%s(", c->name);
        for (int d = 0; d < c->rank; d++)
            at_str_add(s, "%sa%d", d ? ", " : "", d);
        at_str_add(s, ") at_capture_%s(x, %d", is_float ? "float" : "int", k);
        for (int d = 0; d < 4; d++)
            if (d < c->rank)
                at_str_add(s, ", a%d", d);
            else
                at_str_add(s, ", 0");
        at_str_add(s, ")\n");
    }
}

/* What is printed, and for which dialect and box. */
struct printer {
    attend_ctx *ctx;
    struct at_str text;
    enum at_expr_dialect dialect;
    struct at_expr_box box;
};

/* ---- what a gradient needs: derivatives by the score, and by what is loaded ---- */

/* Node `wrt` of x is the score, or a load; -1: it does not look at the score. */
static int print_derivative(struct printer *p, const struct at_expr *x, int wrt, const char *head)
{
    struct at_expr *d = at_alloc(p->ctx, sizeof *d);
    int status = d ? 0 : ATTEND_ENOMEM;
    if (status == 0 && wrt >= 0) {
        status = at_expr_derivative(x, wrt, d);
    } else if (status == 0) {
        *d = *x;
        at_expr_finish(d, at_expr_float(d, 0));
    }
    if (status == 0)
        print_function(&p->text, d, head, p->dialect, &p->box);
    at_free(p->ctx, d);
    return status;
}

/* Where load number `which` of x reads, an index a function. */
static int print_indices(struct printer *p, const struct at_expr *x, int which)
{
    const struct at_expr_node *load = &x->node[x->load[which]];
    struct at_expr *index = at_alloc(p->ctx, sizeof *index);
    for (int k = 0; index && k < load->nargs; k++) {
        char head[40];
        snprintf(head, sizeof head, "at_i64 at_index_%d_%d", which, k);
        *index = *x;
        at_expr_finish(index, load->arg[k]);
        print_function(&p->text, index, head, p->dialect, &p->box);
    }
    at_free(p->ctx, index);
    return index ? 0 : ATTEND_ENOMEM;
}

static bool gives(const struct at_step *s, const struct at_expr *x, int load)
{
    return at_gpu_gives(s, x->node[x->load[load]].capture);
}

int at_gpu_loads(const struct at_step *s)
{
    const struct at_expr *x = s->p->attention.score;
    int n = 0;
    for (int k = 0; x && k < x->nload; k++)
        n += gives(s, x, k);
    return n;
}

/* at_give_loads: what ds, the gradient of the final score, is for every load. */
static int print_loads(struct printer *p, const struct at_step *s, const struct at_expr *x)
{
    static const char same[] = "(x, score, b, h, i, j, sq, skv)";
    int status = 0, n = 0;
    for (int k = 0; k < x->nload && status == 0; k++) {
        char head[40];
        snprintf(head, sizeof head, "float at_load_slope_%d", k);
        if (gives(s, x, k))
            status = print_derivative(p, x, x->load[k], head);
        if (gives(s, x, k) && status == 0)
            status = print_indices(p, x, k);
    }
    at_str_add(&p->text,
               "AT_FN void at_give_loads(const struct at_in *x, float score, int b, int h, int i, "
               "int j, int sq, int skv, float ds, AT_GLOBAL struct at_k_give *to)\n{\n");
    for (int k = 0; k < x->nload; k++) {
        const struct at_expr_node *load = &x->node[x->load[k]];
        if (!gives(s, x, k))
            continue;
        at_str_add(&p->text, "    to[%d].place = at_give_place(x, %d", n, load->capture);
        for (int d = 0; d < 4; d++)
            if (d < load->nargs)
                at_str_add(&p->text, ", at_index_%d_%d%s", k, d, same);
            else
                at_str_add(&p->text, ", 0");
        at_str_add(&p->text, ");\n    to[%d].value = ds * at_load_slope_%d%s;\n", n++, k, same);
    }
    at_str_add(&p->text, "}\n");
    return status;
}

static int print_gradient(struct printer *p, const struct at_step *s)
{
    const struct at_expr *x = s->p->attention.score;
    int score = -1, status;
    for (int k = 0; k < x->n; k++)
        score = x->node[k].op == AT_X_SCORE ? k : score;
    status = print_derivative(p, x, score, "float at_slope_expr");
    return status == 0 && at_gpu_loads(s) ? print_loads(p, s, x) : status;
}

/* ---- all of it ---- */

int at_gpu_problem_text(const attend_plan *plan, const struct at_step *s, char **out,
                        struct at_err *e)
{
    const struct at_attention *a = &s->p->attention;
    struct at_gpu_sizes n = at_gpu_sizes_of(plan, s);
    struct printer p = {
        .ctx = plan->ctx,
        .dialect = at_gpu_of(s->device)->dialect,
        .box = {.b = {0, n.seqs},
                .h = {0, n.groups * n.ratio},
                .i = {0, n.rows},
                .j = {0, n.keys},
                .sq = {0, n.rows},
                .skv = {0, n.keys}}
    };
    int status = 0;
    at_str_add(&p.text, "\n");
    if (a->score || a->mask)
        at_expr_print_prelude(p.dialect, &p.text);
    print_captures(&p.text, a->score, a->mask);
    print_function(&p.text, a->score, "float at_score_expr", p.dialect, &p.box);
    print_function(&p.text, a->mask, "int at_mask_expr", p.dialect, &p.box);
    if (a->score && s->op == AT_ATTENTION_GRAD)
        status = print_gradient(&p, s);
    *out = p.text.text;
    if (status == 0 && !p.text.failed)
        return 0;
    attend_free(p.text.text);
    *out = NULL;
    if (status == 0 || status == ATTEND_ENOMEM)
        return at_fail(e, ATTEND_ENOMEM, "no memory for the expressions of attention");
    return at_fail(e, ATTEND_EUNSUPPORTED, "the gradient of a score expression is too large");
}
