/* SPDX-License-Identifier: MIT */
/* Problem words name one attention problem completely, so that a test that failed, a benchmark and
 * a plan speak of it in one line that can be pasted into another:
 *
 *     attention:f16:b2h32g8q1k4096d128:causal-br:lse
 *
 * The second part is the type of q, k and v.  Sizes: b batch, h query heads, g KV heads, q query
 * rows, k keys, d channels of q and k, v channels of v where they differ (d192v128).  Then options,
 * in any order:
 *
 *     causal-tl causal-br tl br   causal, and how rows are aligned to keys (attend_align)
 *     causal-off off              the same by q_offset, drawn for each sequence
 *     w5_2 winf_0                 window: keys to the left and right
 *     mask-bool mask-float        a mask; -b1qk after it says which axes it has (all: -bhqk)
 *     mask-f16 mask-bf16          a float mask of these types, likewise
 *     layout16_64                 block-sparse, drawn, in blocks of 16 rows by 64 keys
 *     xmask7 xscore7              drawn expressions number 7 over drawn tensors
 *     cap30 scale0.5              softcap, scale
 *     additive                    scores are va . tanh(q + k)
 *     drop0.1                     dropout
 *     alibi sinks lse             slopes; one more logit in the denominator; LSE is an output, too
 *     used                        kv_used, drawn from 0 to k
 *     packed                      b sequences of drawn lengths up to q and k, one after the other
 *     page16                      k and v in shuffled pages of 16 keys, of drawn lengths up to k
 *     ring                        pages that a window has left come again in the table
 *     vk                          v is the first channels of k, the same memory
 *     kv-f16 kv-q8_0 kv-f8        the type of k and v, where it is another (f8: with scales)
 *     bshd strided unaligned      layouts: heads inside of rows; padded rows; odd addresses
 *     deterministic               a plan of which no row depends on the rows beside it
 *     tf32                        a plan that may round f32 to tf32 for products
 *     huge nan                    scores in the thousands; what is hidden holds NaN and infinity
 *     seed7                       other numbers (0)
 */
#ifndef AT_PROBLEM_H
#define AT_PROBLEM_H

#include <stdbool.h>

#include "attend.h"

enum at_problem_mask { AT_MASK_NONE, AT_MASK_BOOL, AT_MASK_FLOAT, AT_MASK_F16, AT_MASK_BF16 };

struct at_problem {
    attend_type type, kv_type;
    int64_t nb, nh, ng, nq, nk, dk, dv;
    bool causal;
    attend_align align;
    int64_t left, right; /* window; -1: open */
    enum at_problem_mask mask;
    int64_t page;                     /* keys in a page; 0: not paged */
    int64_t layout_rows, layout_keys; /* of a block; 0: no layout */
    int64_t xmask, xscore;            /* number of the drawn expression; 0: none */
    bool mask_axis[4];    /* which of b, h, q, k the mask has; it is broadcast along the others */
    float softcap, scale; /* 0: none; NaN: 1 / sqrt(dk) */
    float dropout;
    bool offset; /* q_offset is given, and align unset */
    bool additive, alibi, sinks, lse, used, packed, ring, vk, bshd, strided, unaligned;
    bool deterministic, tf32, huge, nan;
    int64_t seed;
};

#define AT_PROBLEM_WORD 384 /* bytes that the longest word needs */

/* Reads a word.  err receives a sentence that names the part that is wrong. */
int at_problem_parse(const char *word, struct at_problem *p, char *err, size_t errlen);
/* Writes the word of p, options in the order of the list above, into buf; returns buf. */
const char *at_problem_print(const struct at_problem *p, char buf[AT_PROBLEM_WORD]);

#endif
