/* SPDX-License-Identifier: MIT */
/* The standard shapes. */
#include "bench.h"

/* clang-format off */
const struct bench_shape bench_shapes[] = {
    {"A",      "prefill of grouped heads",      "attention:f32:b1h32g8q2048k2048d128:causal-br"},
    {"B",      "encoder",                       "attention:f32:b8h12g12q512k512d64"},
    {"C1",     "cross attention to few keys",   "attention:f32:b2h8g8q4096k77d64"},
    {"C2",     "self attention of an image",    "attention:f32:b2h8g8q4096k4096d64"},
    {"D",      "a long causal sequence",        "attention:f32:b1h4g4q16384k16384d64:causal-br"},
    {"E4096",  "decoding",                      "attention:f32:b1h32g8q1k4096d128"},
    {"E32768", "decoding, long",                "attention:f32:b1h32g8q1k32768d128"},
    {"F",      "decoding of a batch",           "attention:f32:b16h32g8q1k4096d128"},
    {"G",      "a long sequence with a window", "attention:f32:b1h4g4q16384k16384d64:causal-br:w511_0"},
    {"I",      "tiny",                          "attention:f32:b1h4g4q16k16d32"},
    {NULL, NULL, NULL},
};
/* clang-format on */
