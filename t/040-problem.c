/* SPDX-License-Identifier: MIT */
/* Problem words: what they mean, that they print as they were read, and what is refused. */
#include "tap.h"
#include "problem.h"

#include <math.h>
#include <string.h>

/* Words in the form in which they are printed. */
static const char *const words[] = {
    "attention:f16:b2h32g8q1k4096d128:causal-br",
    "attention:f32:b0h1g1q0k0d1",
    "attention:bf16:b1h9g3q5k64d192v128:causal-tl:w5_2",
    "attention:f32:b1h1g1q3k3d8:br:winf_0:alibi",
    "attention:f32:b1h1g1q3k3d8:tl:w4_inf",
    "attention:f32:b1h2g1q3k3d8:mask-bool",
    "attention:f32:b1h2g1q3k3d8:mask-float-b11k:cap30:scale0.5",
    "attention:f32:b1h2g1q3k3d8:scale-0.1:kv-f16",
    "attention:f32:b3h2g1q33k17d8:alibi:sinks:lse:used:bshd:strided:unaligned:huge:nan:seed7",
    "attention:f32:b3h2g1q33k17d8:lse:packed:nan",
    "attention:f16:b3h2g1q1k100d64:causal-br:kv-q8_0:page16:lse",
    "attention:f32:b3h2g1q9k100d8:causal-off:mask-f16-1h1k:layout16_64:xmask7:xscore1:packed",
    "attention:f16:b3h2g1q9k100d16v8:off:w5_2:mask-bf16:kv-f8:page16:packed:ring:vk:deterministic:"
    "tf32",
    "attention:f32:b3h2g1q9k100d8:used:packed",
    "attention:bf16:b2147483647h575g575q2147483647k2147483647d575v576:causal-br:"
    "w2147483647_2147483647:mask-float-1111:cap1.2345679e-10:scale-1.2345679e-10:kv-f16:alibi:"
    "sinks:lse:used:bshd:strided:unaligned:huge:nan:seed2147483647",
};

static const char *const refused[] = {
    "",
    "attention",
    "attend:f32:b1h1g1q1k1d1",
    "attention:f64:b1h1g1q1k1d1",
    "attention:f32",
    "attention:f32:b1h1g1q1k1",
    "attention:f32:b1h1g1q1k1d",
    "attention:f32:b1h1g1q1k1d1x",
    "attention:f32:b-1h1g1q1k1d1",
    "attention:f32:b1h1g1q1k2147483648d1",
    "attention:f32:b1h1g1q1k99999999999999999999d1",
    "attention:f32:b1h3g2q1k1d1",
    "attention:f32:b1h0g0q1k1d1",
    "attention:f32:b1h1g1q1k1d0",
    "attention:f32:b1h1g1q1k1d577",
    "attention:f32:b1h1g1q1k1d1v577",
    "attention:f32:b1h1g1q1k1d1:causal",
    "attention:f32:b1h1g1q1k1d1:causal-",
    "attention:f32:b1h1g1q1k1d1::lse",
    "attention:f32:b1h1g1q1k1d1:lsex",
    "attention:f32:b1h1g1q1k1d1:w5",
    "attention:f32:b1h1g1q1k1d1:w5_2_",
    "attention:f32:b1h1g1q1k1d1:mask-int",
    "attention:f32:b1h1g1q1k1d1:mask-bool-bhq",
    "attention:f32:b1h1g1q1k1d1:mask-bool-bqhk",
    "attention:f32:b1h1g1q1k1d1:cap",
    "attention:f32:b1h1g1q1k1d1:cap0",
    "attention:f32:b1h1g1q1k1d1:capnan",
    "attention:f32:b1h1g1q1k1d1:scaleinf",
    "attention:q8_0:b1h1g1q1k1d1",
    "attention:f32:b1h1g1q1k1d1:kv-q4_1",
    "attention:f32:b1h1g1q1k1d1:page0",
    "attention:f32:b1h1g1q1k1d1:page8:used",
    "attention:f32:b1h1g1q1k1d1:packed:bshd",
    "attention:f32:b1h1g1q1k1d1:mask-f64",
    "attention:f32:b1h1g1q1k1d1:layout16",
    "attention:f32:b1h1g1q1k1d1:layout0_16",
    "attention:f32:b1h1g1q1k1d1:layout16_0",
    "attention:f32:b1h1g1q1k1d1:xmask0",
    "attention:f32:b1h1g1q1k1d1:xscore",
    "attention:f32:b1h1g1q1k1d1:off:br",
    "attention:f32:b1h1g1q1k1d1:page4:ring",
    "attention:f32:b1h1g1q1k1d1:w4_0:ring:tl",
    "attention:f32:b1h1g1q1k1d1v2:vk",
};

static void test_meaning(void)
{
    struct at_problem p;
    const char *word =
        "attention:f16:b2h8g4q3k40d192v128:causal-br:w5_inf:mask-bool-1hqk:cap30:lse";
    is_int(at_problem_parse(word, &p, NULL, 0), 0, "%s", word);
    ok(p.type == ATTEND_F16 && p.kv_type == ATTEND_F16, "types");
    ok(p.nb == 2 && p.nh == 8 && p.ng == 4 && p.nq == 3 && p.nk == 40 && p.dk == 192 && p.dv == 128,
       "sizes");
    ok(p.causal && p.align == ATTEND_BOTTOM_RIGHT && p.left == 5 && p.right == -1, "visibility");
    ok(p.mask == AT_MASK_BOOL && !p.mask_axis[0] && p.mask_axis[1] && p.mask_axis[3], "mask");
    ok(p.softcap == 30 && isnan(p.scale), "softcap, and the default of scale");
    ok(p.lse && !p.sinks && !p.packed && p.seed == 0, "switches");
}

static void test_order(void)
{
    struct at_problem p;
    char buf[AT_PROBLEM_WORD];
    if (at_problem_parse("attention:f32:b1h1g1q3k3d8:seed3:sinks:w1_1:br", &p, NULL, 0) < 0)
        ok(false, "options in another order");
    else
        is_str(at_problem_print(&p, buf), "attention:f32:b1h1g1q3k3d8:br:w1_1:sinks:seed3",
               "options may come in any order");
}

int main(void)
{
    struct at_problem p;
    char buf[AT_PROBLEM_WORD], err[320];
    for (size_t i = 0; i < NELEM(words); i++) {
        if (at_problem_parse(words[i], &p, err, sizeof err) < 0)
            diag("%s", err);
        is_str(at_problem_print(&p, buf), words[i], "read and printed");
    }
    test_meaning();
    test_order();
    for (size_t i = 0; i < NELEM(refused); i++) {
        err[0] = 0;
        ok(at_problem_parse(refused[i], &p, err, sizeof err) < 0 && strstr(err, refused[i]),
           "refused: \"%s\"", refused[i]);
        diag("%s", err);
    }
    return done_testing();
}
