/* SPDX-License-Identifier: MIT */
/* Memory of other libraries' and for them, by the structures of DLPack. */
#include <stdlib.h>

#include "core.h"

/* Their layout is that of DLTensor and DLManagedTensor. */
_Static_assert(offsetof(attend_dl_tensor, ndim) == sizeof(void *) + 8, "DLDevice is two int32");
_Static_assert(offsetof(attend_dl_tensor, code) == sizeof(void *) + 12, "DLDataType follows ndim");
_Static_assert(offsetof(attend_dl_tensor, shape) == sizeof(void *) + 16, "and has 4 bytes");
_Static_assert(sizeof(attend_dl_tensor) % 8 == 0, "byte_offset is last");

enum { CPU = 1, INT = 0, UNSIGNED = 1, FLOAT = 2, BFLOAT = 4, BOOL = 6 };

static const struct {
    attend_type type;
    uint8_t code, bits;
} types[] = {
    {ATTEND_F32,  FLOAT,    32},
    {ATTEND_F16,  FLOAT,    16},
    {ATTEND_BF16, BFLOAT,   16},
    {ATTEND_F64,  FLOAT,    64},
    {ATTEND_I8,   INT,      8 },
    {ATTEND_I32,  INT,      32},
    {ATTEND_I64,  INT,      64},
    {ATTEND_U8,   UNSIGNED, 8 },
    {ATTEND_BOOL, BOOL,     8 },
};

static int find_type(const attend_dl_tensor *t, attend_type *type, char *err, size_t errlen)
{
    for (int i = 0; i < AT_LEN(types); i++)
        if (types[i].code == t->code && types[i].bits == t->bits && t->lanes == 1) {
            *type = types[i].type;
            return 0;
        }
    return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                  "a DLPack tensor of code %d, %d bits and %d lanes has no type here", t->code,
                  t->bits, t->lanes);
}

/* Strides of axis d where none are given, and of axes whose stride is never taken. */
static int64_t contiguous(const attend_view *v, int d)
{
    return d == v->shape.rank - 1 ? 1
                                  : at_mul_size(v->stride[d + 1], at_max(v->shape.dim[d + 1], 1));
}

static int read_axes(const attend_dl_tensor *t, attend_view *v, char *err, size_t errlen)
{
    int64_t reach = 0; /* elements from the first to the last */
    bool empty = false;
    v->shape.rank = t->ndim;
    for (int d = t->ndim - 1; d >= 0; d--) {
        v->shape.dim[d] = t->shape[d];
        v->stride[d] = t->strides && t->shape[d] > 1 ? t->strides[d] : contiguous(v, d);
        if (t->shape[d] < 0 || v->stride[d] < 0)
            return at_say(err, errlen, ATTEND_EINVAL,
                          "axis %d of a DLPack tensor has extent %lld and stride %lld", d,
                          (long long)t->shape[d], (long long)v->stride[d]);
        int64_t steps = at_mul_size(at_max(t->shape[d] - 1, 0), v->stride[d]);
        if (steps < 0 || reach > INT64_MAX / 16 - steps)
            return at_say(err, errlen, ATTEND_EINVAL,
                          "a DLPack tensor has more than 2^59 elements");
        reach += steps;
        empty = empty || t->shape[d] == 0;
    }
    v->bytes = empty ? 0 : (reach + 1) * (int64_t)attend_type_size(v->type);
    return 0;
}

int attend_dlpack_view(const attend_dl_tensor *t, attend_view *out, char *err, size_t errlen)
{
    attend_view v = {0};
    int status = find_type(t, &v.type, err, errlen);
    if (status < 0)
        return status;
    if (t->device_type != CPU)
        return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                      "a DLPack tensor on a device of kind %d; only memory of the CPU (1) is read",
                      (int)t->device_type);
    if (t->ndim < 0 || t->ndim > ATTEND_MAX_RANK)
        return at_say(err, errlen, ATTEND_ELIMIT, "a DLPack tensor of %d axes; %d are allowed",
                      (int)t->ndim, ATTEND_MAX_RANK);
    status = read_axes(t, &v, err, errlen);
    if (status < 0)
        return status;
    v.data = t->data ? (char *)t->data + t->byte_offset : NULL;
    *out = v;
    return 0;
}

/* What attend_dlpack_new gives out, in one piece with the memory after it. */
struct block {
    attend_dl_managed managed;
    int64_t shape[ATTEND_MAX_RANK];
};

static void delete_block(attend_dl_managed *self)
{
    free(self);
}

int attend_dlpack_new(attend_type type, attend_shape shape, attend_dl_managed **out)
{
    int64_t bytes = (int64_t)attend_type_size(type);
    int known = -1;
    *out = NULL;
    for (int i = 0; i < AT_LEN(types); i++)
        known = types[i].type == type ? i : known;
    if (known < 0 || shape.rank < 0 || shape.rank > ATTEND_MAX_RANK)
        return ATTEND_EINVAL;
    for (int d = 0; d < shape.rank; d++)
        bytes = shape.dim[d] == 0 ? 0 : at_mul_size(bytes, shape.dim[d]);
    if (bytes < 0 || (uint64_t)bytes > SIZE_MAX / 2)
        return ATTEND_EINVAL;
    struct block *b = malloc(sizeof *b + AT_ALIGN + (size_t)bytes);
    if (!b)
        return ATTEND_ENOMEM;
    uintptr_t data = ((uintptr_t)(b + 1) + AT_ALIGN - 1) / AT_ALIGN * AT_ALIGN;
    b->managed = (attend_dl_managed){.deleter = delete_block};
    b->managed.tensor = (attend_dl_tensor){.data = (void *)data,
                                           .device_type = CPU,
                                           .ndim = shape.rank,
                                           .code = types[known].code,
                                           .bits = types[known].bits,
                                           .lanes = 1,
                                           .shape = b->shape};
    for (int d = 0; d < shape.rank; d++)
        b->shape[d] = shape.dim[d];
    *out = &b->managed;
    return 0;
}
