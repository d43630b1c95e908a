/* SPDX-License-Identifier: MIT */
/* libFuzzer's target for the reader of ONNX models: bytes that are a model become a graph and a
 * plan, the rest is refused.  make check-fuzz */
#include "models.h"

#include <stdlib.h>
#include <string.h>

enum { INPUTS = 16, ELEMENTS = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static attend_ctx *ctx;
static int64_t ones[ELEMENTS]; /* what integers are that the model takes */

/* A shape that the model accepts, if it is small. */
static int choose(const attend_onnx_info *info, attend_array *a)
{
    int64_t count = 1;
    *a = (attend_array){.type = info->type, .shape = info->shape};
    if (info->shape.rank < 0)
        a->shape = ATTEND_SHAPE(2, 3);
    for (int d = 0; d < a->shape.rank; d++) {
        if (a->shape.dim[d] < 0)
            a->shape.dim[d] = 2;
        if (a->shape.dim[d] > ELEMENTS || (count *= a->shape.dim[d]) > ELEMENTS)
            return 0;
    }
    if (a->type == ATTEND_I64 || a->type == ATTEND_I32 || a->type == ATTEND_I8 ||
        a->type == ATTEND_U8)
        a->data = ones;
    return 1;
}

static void compile(attend_onnx *m, const attend_array *in)
{
    char err[512];
    attend_plan *plan = NULL;
    attend_array out[INPUTS];
    attend_graph *g = attend_graph_new(ctx);
    if (g && attend_onnx_build(m, g, in, out, err, sizeof err) == 0 &&
        attend_compile(g, NULL, &plan) == 0)
        attend_plan_free(plan);
    attend_graph_free(g);
}

static void free_context(void)
{
    attend_ctx_free(ctx);
}

static void make_context(void)
{
    attend_ctx_opts opts;
    attend_ctx_opts_init(&opts);
    opts.threads = 1;
    if (attend_ctx_new(&opts, &ctx) < 0 || atexit(free_context) != 0)
        abort();
    for (int k = 0; k < ELEMENTS; k++)
        ones[k] = 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[512];
    attend_onnx *m = NULL;
    attend_onnx_info info;
    attend_array in[INPUTS];
    int n = 0;
    if (!ctx)
        make_context();
    if (attend_onnx_from_memory(data, size, &m, err, sizeof err) < 0)
        return 0;
    while (n < INPUTS && attend_onnx_input(m, n, &info) == 0 && choose(&info, &in[n]))
        n++;
    if (attend_onnx_input(m, n, &info) < 0 && attend_onnx_output(m, INPUTS, &info) < 0)
        compile(m, in);
    attend_onnx_free(m);
    return 0;
}
