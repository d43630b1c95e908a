/* SPDX-License-Identifier: MIT */
/* Large products of f32 by a CBLAS library that the user names: found at run time, never used
 * unasked.  Which bits come out, on how many threads, is then the library's affair, so plans that
 * are deterministic refuse it. */
#include <limits.h>

#include "cpu.h"
#include "env.h"
#include "os.h"

#define LEAST 128 /* rows, columns and depth that are worth a call */

typedef void sgemm_fn(int order, int turn_a, int turn_b, int m, int n, int k, float alpha,
                      const float *a, int lda, const float *b, int ldb, float beta, float *c,
                      int ldc);
enum { ROW_MAJOR = 101, PLAIN = 111, TURNED = 112 };

/* What a step keeps. */
struct library {
    sgemm_fn *sgemm;
};

static bool is_large(const attend_plan *plan, const struct at_step *s)
{
    bool large = true;
    for (int k = 0; k < 3; k++) { /* a, b and c have all three extents, twice each */
        int t = k < 2 ? s->in[k] : s->out[0], rank = plan->graph->tensor[t].rank;
        for (int d = rank - 2; d < rank; d++) {
            struct at_range r = at_plan_range(plan, s->rows, t, d);
            large = large && r.min >= LEAST && r.max <= INT_MAX;
        }
    }
    return large;
}

static bool accepts(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    bool plain = true;
    if (!at_env(AT_ENV_LIBCBLAS))
        return false;
    for (int k = 0; k < 2; k++)
        plain = plain && plan->graph->tensor[s->in[k]].type == ATTEND_F32;
    return at_need(why, !plan->deterministic, "the plan is deterministic") &&
           at_need(why, plain, "a and b are not f32") &&
           at_need(why, is_large(plan, s), "a side may be under 128") &&
           at_cpu_matmul.accepts(plan, s, why);
}

/* A library of BLAS may have threads, so it stays until the process ends. */
static int load(struct library *to, struct at_err *e)
{
    static const char *const usual[] = {"libopenblas.so.0", "libblis.so.4",    "libmkl_rt.so.2",
                                        "libblas.so.3",     "libopenblas.dll", "libopenblas.dylib"};
    const char *name = at_env(AT_ENV_LIBCBLAS);
    bool any = name[0] == '1' && !name[1];
    struct at_os_lib *lib = NULL;
    char err[256] = "";
    int status = any ? -1 : at_os_lib_open(&lib, name, err, sizeof err);
    for (int i = 0; any && status < 0 && i < AT_LEN(usual); i++)
        status = at_os_lib_open(&lib, usual[i], err, sizeof err);
    if (status < 0)
        return at_fail(e, ATTEND_EUNSUPPORTED, "%s names no library: %.150s",
                       at_env_name(AT_ENV_LIBCBLAS), err);
    bool found = at_os_lib_symbol(lib, "cblas_sgemm", &to->sgemm);
    at_os_lib_keep(lib);
    return found ? 0 : at_fail(e, ATTEND_EUNSUPPORTED, "%s has no cblas_sgemm", name);
}

static int prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    int status = at_cpu_matmul.prepare(plan, s, e);
    struct library *lib = at_plan_pack(plan, sizeof *lib);
    if (status == 0 && !lib)
        status = at_fail(e, ATTEND_ENOMEM, "no memory for a step");
    if (status == 0)
        status = load(lib, e);
    s->packed = lib;
    return status;
}

/* A matrix of the last two axes, as BLAS wants it. */
struct matrix {
    const struct at_view *view;
    int turn;
    int64_t row; /* from one row of what lies in memory to the next */
    bool fits;
};

static struct matrix matrix_of(const struct at_view *v, bool turned)
{
    int last = v->rank - 1;
    struct matrix m = {v, turned ? TURNED : PLAIN, v->stride[turned ? last : last - 1], false};
    m.fits = m.row >= v->shape[turned ? last - 1 : last] && m.row <= INT_MAX;
    return m;
}

static const float *entry(const struct matrix *m, const struct at_view *c, int64_t n)
{
    return at_view_at(m->view, at_cpu_batch_offset(c, n, m->view));
}

/* Rows that lie over each other, as those of expanded views do, are for our own kernel. */
static int run(struct attend_exec *x, const struct at_step *s)
{
    const struct library *lib = s->packed;
    const struct at_view *c = at_result(x, s);
    const attend_graph *g = x->plan->graph;
    struct matrix a = matrix_of(at_arg(x, s, 0), at_cpu_is_turned(g, s->in[0])),
                  b = matrix_of(at_arg(x, s, 1), at_cpu_is_turned(g, s->in[1])),
                  to = matrix_of(c, false);
    if (!a.fits || !b.fits || !to.fits)
        return at_cpu_product(x, s);
    if (s->p->matmul.b_rows)
        b.turn = b.turn == PLAIN ? TURNED : PLAIN;
    for (int64_t n = 0; n < at_cpu_batches(c); n++)
        lib->sgemm(ROW_MAJOR, a.turn, b.turn, (int)c->shape[c->rank - 2],
                   (int)c->shape[c->rank - 1], (int)a.view->shape[a.view->rank - 1], 1,
                   entry(&a, c, n), (int)a.row, entry(&b, c, n), (int)b.row, 0,
                   at_view_at(c, at_cpu_batch_offset(c, n, c)), (int)to.row);
    return 0;
}

const struct at_row at_cpu_matmul_blas = {"cblas", AT_MATMUL, accepts, prepare, NULL, run};
