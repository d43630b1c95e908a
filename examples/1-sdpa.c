/* SPDX-License-Identifier: MIT */
/* One attention on arrays: two tokens that are one-hot, so that the weights can be read off. */
#include <attend.h>
#include <stdio.h>

int main(void)
{
    float x[] = {1, 0, 0, 1}; /* (1, 1, 2, 2): one sequence, one head, two tokens, two channels */
    char err[200];
    attend_ctx *ctx;
    attend_array q =
                     {
                         ATTEND_F32, ATTEND_SHAPE(1, 1, 2, 2), x, sizeof x
    },
                 o = {ATTEND_F32, {0, {0}}, NULL, 0};
    if (attend_ctx_new(NULL, &ctx) < 0)
        return 1;
    if (attend_sdpa(ctx, &q, &q, &q, NULL, NULL, &o, err, sizeof err) < 0)
        return fprintf(stderr, "%s\n", err), 1;
    for (int i = 0; i < 2; i++)
        printf("%.4f %.4f\n", ((float *)o.data)[2 * i], ((float *)o.data)[2 * i + 1]);
    attend_free(o.data);
    attend_ctx_free(ctx);
    return 0;
}

/* Prints:
 * 0.6698 0.3302
 * 0.3302 0.6698
 */
