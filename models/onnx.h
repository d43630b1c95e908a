/* SPDX-License-Identifier: MIT */
/* The reader of ONNX models, inside: values, the node at work, and what builders of operators use.
 *
 * All extents are known when a graph is made, because the caller gives the shapes of the inputs. A
 * value is a tensor of the graph, or known: constants, and integers worked out from them and from
 * shapes (onnx_fold.c).  A known value becomes a constant of the graph where one is wanted.
 *
 * Floating values have the type that ONNX says (`type`), but their tensor may be f32 where they
 * were computed: the rounding to f16 or bf16 is left out between operators and done at outputs, and
 * where types have to agree. */
#ifndef AT_ONNX_H
#define AT_ONNX_H

#include <stdbool.h>

#include "models.h"
#include "onnx.pb-c.h"
#include "say.h"

enum { ONNX_MAX_IN = 256, ONNX_MAX_OUT = 64, ONNX_MAX_INTS = 64 };

struct onnx_value {
    const char *name;
    attend_type type; /* i8 and u8 are never tensors; f64 is f32 and i64 is i32 in a graph */
    attend_shape shape;
    attend_tensor t;  /* none yet, for known values */
    const void *data; /* the elements of a known value, or NULL */
};

/* ---- onnx.c: the file ---- */

/* Where errors go. */
struct onnx_say {
    char *err;
    size_t errlen;
};

/* What a file of some size may ask for: protobuf-c makes a struct of an empty message, and 8 bytes
 * of a number in one; a node of a few bytes makes constants of any size. */
struct onnx_budget {
    uint64_t left;
};

struct onnx_block;
struct onnx_external;

struct attend_onnx {
    struct onnx_budget budget, kept; /* of the file's messages; of what is made of them */
    ProtobufCAllocator allocator;
    AtOnnx__Model *proto;
    int64_t opset, microsoft; /* versions of the operator sets; 0: not imported */
    struct onnx_block *memory;
    struct onnx_external *external;
    const char *folder;          /* of the file, with the last '/'; NULL: in memory */
    struct onnx_value *constant; /* the initializers */
    int nconstant;
    attend_onnx_info *input, *output;
    int ninput, noutput;
};

/* Cleared memory that lives as long as the model, or NULL. */
void *at_onnx_keep(attend_onnx *m, int64_t count, int64_t size);
/* A tensor of the file as a known value; its data may lie in the message. */
int at_onnx_read_tensor(attend_onnx *m, const AtOnnx__Tensor *t, struct onnx_value *v,
                        const struct onnx_say *say);
/* Is it the domain of ONNX's own operators? */
bool at_onnx_own_domain(const char *domain);
int64_t at_onnx_count(const attend_shape *s); /* of elements; -1: above INT64_MAX */

/* Texts that a message lacks are "". */
static inline const char *at_onnx_text(const char *s)
{
    return s ? s : "";
}

/* ---- onnx_build.c: the node at work ---- */

struct onnx_node {
    struct onnx_build *b;
    attend_graph *g;
    const AtOnnx__Node *proto;
    const char *op, *name; /* name: of the node, or of its first output */
    int64_t opset;         /* version of the operator set that the node's domain has in the model */
    int nin, nout;
    struct onnx_value *in[ONNX_MAX_IN]; /* NULL: not given */
};

/* A row of the table of operators (onnx_ops.c). */
struct onnx_op {
    const char *name;
    int64_t since, until; /* opsets that the builder follows; until 0: all later ones */
    int min_in, max_in, max_out;
    void (*build)(struct onnx_node *n);
};
extern const struct onnx_op at_onnx_ops[], at_onnx_microsoft_ops[]; /* end with a NULL name */

/* ---- onnx_build.c: errors and memory ---- */

/* Records "node 'x' (Gemm): ..." unless there is an error already, which ends the build. */
void at_onnx_fail(struct onnx_node *n, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool at_onnx_failed(const struct onnx_node *n);
/* Memory that lives as long as the model, cleared.  NULL: recorded. */
void *at_onnx_alloc(struct onnx_node *n, int64_t count, int64_t size);

/* ---- onnx_build.c: attributes, by name; of another type than wanted: recorded ---- */

bool at_onnx_has_attribute(const struct onnx_node *n, const char *name);
int64_t at_onnx_int(struct onnx_node *n, const char *name, int64_t absent);
float at_onnx_float(struct onnx_node *n, const char *name, float absent);
/* Into out, at most ONNX_MAX_INTS; returns how many, -1 where the attribute is absent. */
int at_onnx_ints(struct onnx_node *n, const char *name, int64_t *out);
/* Is the text of the attribute this?  `absent` where there is none. */
bool at_onnx_says(struct onnx_node *n, const char *name, const char *text, bool absent);
/* The tensor of an attribute as a known value; false: absent, or recorded. */
bool at_onnx_tensor(struct onnx_node *n, const char *name, struct onnx_value *out);

/* ---- onnx_build.c: inputs and outputs ---- */

static inline bool at_onnx_given(const struct onnx_node *n, int k)
{
    return k < n->nin && n->in[k];
}
/* Is output k named, that is: does anyone want it? */
static inline bool at_onnx_wanted(const struct onnx_node *n, int k)
{
    return k < n->nout && n->proto->output[k][0];
}
/* Input k, which must be given, as a tensor of the graph. */
attend_tensor at_onnx_use(struct onnx_node *n, int k);
/* The same in the type that ONNX says (f64: f32). */
attend_tensor at_onnx_use_rounded(struct onnx_node *n, int k);
/* The tensor of any value. */
attend_tensor at_onnx_value_tensor(struct onnx_node *n, struct onnx_value *v);
/* Integers of input k, which must be known: into out, at most ONNX_MAX_INTS; returns how many, or
 * -1 and it is recorded. */
int at_onnx_known(struct onnx_node *n, int k, int64_t *out);
/* The one integer of input k; false: recorded. */
bool at_onnx_known_one(struct onnx_node *n, int k, int64_t *out);
/* Element i of a known value. */
double at_onnx_number(const struct onnx_value *v, int64_t i);
int64_t at_onnx_integer(const struct onnx_value *v, int64_t i);
/* Output k is this tensor, of this type in ONNX's eyes. */
void at_onnx_give(struct onnx_node *n, int k, attend_tensor t, attend_type type);
/* Output k is input 0 in another shape, known or not. */
void at_onnx_give_reshaped(struct onnx_node *n, int k, attend_shape shape);
void at_onnx_give_known(struct onnx_node *n, int k, attend_type type, attend_shape shape,
                        const void *data);

/* ---- onnx_build.c: numbers ---- */

/* An axis in [-rank, rank) as one in [0, rank); outside: recorded, and 0. */
int at_onnx_axis(struct onnx_node *n, int64_t axis, int rank);
/* A constant of the graph; data is borrowed. */
attend_tensor at_onnx_const(struct onnx_node *n, attend_type type, attend_shape shape,
                            const void *data);
/* A constant of one element repeated; of a floating type, or int32. */
attend_tensor at_onnx_fill(struct onnx_node *n, attend_type type, attend_shape shape, double x);

/* ---- onnx_fold.c ---- */

/* Works the node out on the host where its operator is one of shapes and all it reads is known.
 * False: left to its builder. */
bool at_onnx_fold(struct onnx_node *n);

/* ---- onnx_attn.c: builders that onnx_ops.c lists ---- */

void at_onnx_attention(struct onnx_node *n);
void at_onnx_rotary(struct onnx_node *n);
void at_onnx_microsoft_rotary(struct onnx_node *n);
void at_onnx_multi_head(struct onnx_node *n);
void at_onnx_group_query(struct onnx_node *n);

/* ---- onnx_ops.c, also for onnx_attn.c ---- */

attend_tensor at_onnx_permute4(struct onnx_node *n, attend_tensor t, int a, int b, int c, int d);
attend_tensor at_onnx_concat2(struct onnx_node *n, attend_tensor a, attend_tensor b, int axis);
attend_tensor at_onnx_cast(struct onnx_node *n, attend_tensor t, attend_type type);

#endif
