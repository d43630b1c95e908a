/* SPDX-License-Identifier: MIT */
/* The argument blocks of the portable kernels.  This text is part of every program and is included
 * by the host, so both have one layout: words of 32 and 64 bits, each at a multiple of its size.
 * Offsets and strides count elements, or blocks of quantised types. */
#ifndef AT_KERNEL_ARGS_H
#define AT_KERNEL_ARGS_H

#ifndef AT_KERNEL_TEXT
#    include <stdint.h>
typedef int32_t at_i32;
typedef uint32_t at_u32;
typedef int64_t at_i64;
typedef float at_f32;
#endif

/* One tensor of four axes; given: 0 where it is absent. */
struct at_k_view {
    at_i64 at, stride[4];
    at_i32 type, given;
};

/* The first bad index that kernels meet, read back after a run. */
struct at_k_status {
    at_i32 taken, step;
    at_i64 place, value, limit;
};

/* A sequence: see struct at_seq. */
struct at_k_seq {
    at_i64 qb, q0, nq, kb, k0, nk, off;
};

/* A tensor that expressions index. */
struct at_k_capture {
    at_i64 at, shape[4], stride[4];
    at_i64 place; /* of its first element among the sums of gradients */
    at_i32 type, rank;
};

/* What a pair of a row and a key gives to an element that its score loaded; place -1: nothing. */
struct at_k_give {
    at_i32 place;
    at_f32 value;
};

struct at_k_attn {
    struct at_k_view q, k, v, o, bias, mask;
    at_i64 lse[4];     /* offset and strides of (B, H, S) */
    at_i64 k_scale[3]; /* offset and strides of (P, G) */
    at_i64 v_scale[3];
    at_i64 alibi, sinks, additive, table; /* offsets */
    at_i64 table_stride, page;
    at_i64 left, right;              /* window; -1 is open */
    at_i64 seqs, captures, partials; /* bytes into work */
    at_i64 chunk;                    /* keys of a chunk of `decode` */
    at_i32 chunks, nh, ng, dk, dv, nseq, causal;
    at_i32 has_lse, has_alibi, has_sinks, has_additive, has_table, has_k_scale, has_v_scale;
    at_i32 edits; /* more is done to scores than a scaling by a positive number, or hides */
    at_i32 hides; /* keys are hidden by more than key_range */
    at_f32 scale, softcap;
    at_u32 seed0, seed1, offset, below;
    at_f32 keep;
    at_i32 first, rows; /* of `unfused` and of weights: packed rows of one sequence */
    at_i32 aligned;     /* of `mma`: see there */
};

/* What is kept of weights: rows [i0, i1) of sequence a.nseq, whose scores are in work. */
struct at_k_weights {
    struct at_k_attn a;
    struct at_k_view out, index; /* (B, H, rows, keys) */
    at_i64 columns, cells;       /* extents of the last axis, and of the last two */
    at_i64 keys;                 /* that pooled cells share out */
    at_i64 ends;                 /* bytes into work, of each row's reference and sum */
    at_i64 sort, length;         /* bytes into work, where a row has so many words to sort, 2^n */
    at_i32 i0, i1;
    at_i32 first; /* row of the tensor of queries that is row 0 of the result */
    at_i32 rows;  /* of cells, */
    at_i32 row;   /* and the first that has any of [i0, i1) */
    at_i32 pad;
};

/* The backward pass: o of the problem is dO. */
struct at_k_back {
    struct at_k_attn a;
    struct at_k_view out[2];
    at_i64 delta[4];        /* offset and strides of (B, H, S) */
    at_i64 bias[4];         /* extents of its gradient, which is out[0] */
    at_i64 batches, rows;   /* of the tensor of queries */
    at_i64 slopes, vectors; /* bytes into work, of sums over keys for each row; -1: not wanted */
    at_i64 terms, facts;    /* bytes into work, of `mma`: dO in 16 bits, and what else rows have */
    at_i64 sums, places;    /* of captured tensors: bytes into work, and how many sums there are */
    at_i32 op, pad;
};

/* Elementwise: out[place] = f(in...), all of them with the axes of out. */
struct at_k_map {
    at_i64 n[6];         /* extents, slowest first */
    at_i64 stride[4][6]; /* out, then inputs */
    at_i64 at[4];
    at_i32 type[4];
    at_i32 op;
    at_f32 number;
};

/* Rows along the last axis: softmax and norms. */
struct at_k_rows {
    at_i64 n[6]; /* n[5] is the row */
    at_i64 stride[2][6];
    at_i64 at[4];   /* out, in, weight, bias */
    at_i64 step[2]; /* of weight and bias */
    at_i32 type[4]; /* weight and bias: -1 where absent */
    at_i32 op;
    at_f32 eps;
};

/* rope, gather and append: rows by position or index. */
struct at_k_pick {
    at_i64 n[4]; /* rope, append: (B, H, S, D) of the rows; gather: n[3] channels */
    at_i64 out[4], in[4];
    at_i64 out_at, in_at, index_at, extra_at;
    at_i64 index[2]; /* strides of positions, or slots */
    at_i64 extra[2]; /* strides of factors, or scales */
    at_i64 index_n[6], index_stride[6], out_n[6], out_stride[6]; /* of gather */
    at_i64 limit, page; /* limit: of the index; of rope: where its turns are in work, bytes */
    at_i32 out_type, in_type;
    at_i32 has_extra, half_pairs, dims, step;
};

/* c[m, n] = sum_k a[m, k] b, for each of the batch. */
struct at_k_matmul {
    at_i64 m, n, k;
    at_i64 batch[4]; /* extents */
    at_i64 a_batch[4], b_batch[4], c_batch[4];
    at_i64 a_at, b_at, c_at;
    at_i64 a_row, a_k, b_n, b_k, c_row, c_n; /* strides */
    at_i32 a_type, b_type, c_type, pad;
};

/* Rows of training's operators: out, then inputs. */
struct at_k_train {
    at_i64 n[6]; /* extents, slowest first; n[5] is the row */
    at_i64 stride[4][6];
    at_i64 at[4];
    at_i64 work; /* bytes */
    at_i32 type[4];
    at_i32 op, step;
    at_f32 number;
    at_i32 pad;
};

/* Sums: element e of m begins at from in the input, and sums n from there on. */
struct at_k_sum {
    at_i64 m[6], out[6], from[6];
    at_i64 n[6], each[6];
    at_i64 at[2];
    at_i32 type[2];
    at_i32 op;
    at_f32 by;
};

/* Optimisers: weights, two moments, the gradient; then where rate, step and factor are. */
struct at_k_update {
    at_i64 n[6];
    at_i64 stride[4][6];
    at_i64 at[7];
    at_i32 adam, has_m, has_factor;
    at_f32 momentum, decay, beta1, beta2, rest1, rest2, log1, log2, eps; /* rest: 1 - beta */
};

/* (O, LSE) pairs: of merge out, first, second; of its gradient, for each of the two, the
 * gradient's, its own, what they were merged to, and the gradient of that. */
struct at_k_merge {
    at_i64 n[6]; /* n[5] is the row */
    at_i64 o[4][6];
    at_i64 lse[4][6];
    at_i64 o_at[4], lse_at[4];
    at_i32 has_o, has_lse; /* results */
    at_i32 has_dlse, pad;
};

#endif
