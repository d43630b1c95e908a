/* SPDX-License-Identifier: MIT */
/* A graph: an attention with a score function and a mask of one's own, in sequences of any length
 * up to 64, compiled once and run twice. */
#include <attend.h>
#include <stdio.h>

enum { HEADS = 2, CHANNELS = 4, MOST = 64 };

static int run(attend_exec *exec, int64_t tokens, float *x, const float *bias, float *o)
{
    const int64_t bytes = HEADS * tokens * CHANNELS * (int64_t)sizeof(float);
    /* clang-format off */
    const attend_binding bind[] = {
        {.name = "tokens", .value = tokens},
        {.name = "x", .data = x, .bytes = bytes},
        {.name = "bias", .data = (void *)bias, .bytes = HEADS * (int64_t)sizeof(float)},
        {.name = "o", .data = o, .bytes = bytes},
    };
    /* clang-format on */
    return attend_bind(exec, bind, 4) < 0 ? -1 : attend_run(exec);
}

int main(void)
{
    static float x[HEADS * MOST * CHANNELS], o[HEADS * MOST * CHANNELS];
    static const float bias[HEADS] = {0, -100};
    attend_ctx *ctx;
    attend_plan *plan = NULL;
    attend_exec *exec = NULL;
    if (attend_ctx_new(NULL, &ctx) < 0)
        return 1;
    for (int i = 0; i < HEADS * MOST * CHANNELS; i++)
        x[i] = (float)(i % 7);

    attend_graph *g = attend_graph_new(ctx);
    int64_t tokens = attend_graph_dim(g, "tokens", 1, MOST);
    attend_tensor t =
        attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(1, HEADS, tokens, CHANNELS));
    attend_capture capture = {"bias",
                              attend_graph_input(g, "bias", ATTEND_F32, ATTEND_SHAPE(HEADS))};
    attend_attention_opts opts;
    attend_attention_opts_init(&opts);
    opts.score = "score + bias[h] * abs(i - j)"; /* head 1 sees next to nothing but itself */
    opts.mask_expr = "j <= i && i - j < 16";
    opts.captures = &capture;
    opts.ncaptures = 1;
    attend_graph_output(g, "o", attend_graph_attention(g, t, t, t, &opts, NULL));

    int bad = attend_compile(g, NULL, &plan) < 0;
    if (bad)
        fprintf(stderr, "%s\n", attend_graph_error(g));
    bad = bad || attend_exec_new(plan, &exec) < 0;
    for (int64_t n = 3; !bad && n <= 48; n += 45) {
        bad = run(exec, n, x, bias, o) < 0;
        float *last = o + (HEADS * n - 1) * CHANNELS, *in = x + (HEADS * n - 1) * CHANNELS;
        printf("%d tokens: head 1 gives %g for %g\n", (int)n, last[0], in[0]);
    }
    if (exec && bad)
        fprintf(stderr, "%s\n", attend_exec_error(exec));
    attend_exec_free(exec);
    attend_plan_free(plan);
    attend_graph_free(g);
    attend_ctx_free(ctx);
    return bad;
}

/* Prints:
 * 3 tokens: head 1 gives 6 for 6
 * 48 tokens: head 1 gives 2 for 2
 */
