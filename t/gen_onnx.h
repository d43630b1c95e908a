/* SPDX-License-Identifier: MIT */
/* Writes ONNX files for tests, right and wrong ones alike: Protocol Buffers, field by field. */
#ifndef GEN_ONNX_H
#define GEN_ONNX_H

#include <stddef.h>
#include <stdint.h>

/* A message that grows. */
struct gen_msg {
    unsigned char *data;
    size_t size, room;
};

void gen_msg_free(struct gen_msg *m);
void gen_msg_int(struct gen_msg *m, int field, int64_t x);
void gen_msg_float(struct gen_msg *m, int field, float x);
void gen_msg_bytes(struct gen_msg *m, int field, const void *data, size_t size);
void gen_msg_text(struct gen_msg *m, int field, const char *s);
/* Adds `inner` as a field, and frees it. */
void gen_msg_add(struct gen_msg *m, int field, struct gen_msg *inner);

/* ---- the parts of a model ---- */

/* A value with a name; dim[d] < 0 is an extent that is not said. */
struct gen_msg gen_onnx_info(const char *name, int type, int rank, const int64_t *dim);
/* A tensor from bytes as they lie in memory. */
struct gen_msg gen_onnx_tensor(const char *name, int type, int rank, const int64_t *dim,
                               const void *data, size_t size);
/* A node from words: "Op name in0,in1 out0,out1"; "-" is an empty name, and "~" a list of none. */
struct gen_msg gen_onnx_node(const char *words);
void gen_onnx_set_int(struct gen_msg *node, const char *name, int64_t x);
void gen_onnx_set_float(struct gen_msg *node, const char *name, float x);
void gen_onnx_set_ints(struct gen_msg *node, const char *name, int n, const int64_t *x);
/* The file of a graph, which is freed, with this version of ONNX's operators: it is named last, so
 * that a file that is cut short is none. */
struct gen_msg gen_onnx_model(struct gen_msg *graph, int64_t opset);

/* Fields of a graph, for gen_msg_add. */
enum { GEN_NODE = 1, GEN_CONSTANT = 5, GEN_INPUT = 11, GEN_OUTPUT = 12 };
/* Types of elements. */
enum { GEN_ONNX_F32 = 1, GEN_ONNX_I64 = 7, GEN_ONNX_STRING = 8, GEN_ONNX_BOOL = 9 };

#endif
