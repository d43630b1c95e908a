/* SPDX-License-Identifier: MIT */
/* Memory by DLPack's structures, in and out; and one attention at once on arrays. */
#include "graph_help.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char err[300];

static attend_dl_tensor tensor(void *data, int rank, int64_t *shape, int64_t *strides)
{
    return (attend_dl_tensor){.data = data,
                              .device_type = 1,
                              .ndim = rank,
                              .code = 2,
                              .bits = 32,
                              .lanes = 1,
                              .shape = shape,
                              .strides = strides};
}

static void test_view(void)
{
    float data[64];
    int64_t shape[] = {2, 1, 3, 4}, strides[] = {32, 99, 8, 1};
    attend_view v;
    attend_dl_tensor t = tensor(data, 4, shape, NULL);
    is_int(attend_dlpack_view(&t, &v, err, sizeof err), 0, "contiguous memory");
    ok(v.type == ATTEND_F32 && v.data == data && v.bytes == 24 * 4, "is seen in its place");
    ok(v.shape.rank == 4 && v.shape.dim[3] == 4 && v.stride[0] == 12 && v.stride[3] == 1,
       "with shape and strides");
    t.strides = strides;
    t.byte_offset = 16;
    is_int(attend_dlpack_view(&t, &v, err, sizeof err), 0, "strided memory");
    ok(v.data == data + 4 && v.stride[0] == 32 && v.stride[2] == 8, "keeps strides and offset");
    is_int(v.stride[1], 24, "the stride of one element does not matter");
    is_int(v.bytes, (32 + 2 * 8 + 3 + 1) * 4, "bytes to its end");
    shape[2] = 0;
    is_int(attend_dlpack_view(&t, &v, err, sizeof err), 0, "an empty tensor");
    is_int(v.bytes, 0, "has no bytes");
}

static void refused(const attend_dl_tensor *t, int status, const char *sentence)
{
    attend_view v;
    is_int(attend_dlpack_view(t, &v, err, sizeof err), status, "refused");
    is_str(err, sentence, "with this sentence");
}

static void test_refusals(void)
{
    float data[4];
    int64_t shape[7] = {2, 2, 1, 1, 1, 1, 1}, strides[] = {2, -1};
    attend_dl_tensor t = tensor(data, 2, shape, strides);
    refused(&t, ATTEND_EINVAL, "axis 1 of a DLPack tensor has extent 2 and stride -1");
    t = tensor(data, 7, shape, NULL);
    refused(&t, ATTEND_ELIMIT, "a DLPack tensor of 7 axes; 6 are allowed");
    t.device_type = 2;
    refused(&t, ATTEND_EUNSUPPORTED,
            "a DLPack tensor on a device of kind 2; only memory of the CPU (1) is read");
    t.lanes = 4;
    refused(&t, ATTEND_EUNSUPPORTED,
            "a DLPack tensor of code 2, 32 bits and 4 lanes has no type here");
    t = tensor(data, 2, shape, NULL);
    shape[0] = INT64_MAX / 2;
    refused(&t, ATTEND_EINVAL, "a DLPack tensor has more than 2^59 elements");
}

static void test_new(void)
{
    attend_dl_managed *m;
    is_int(attend_dlpack_new(ATTEND_BF16, ATTEND_SHAPE(2, 3), &m), 0, "new memory");
    ok(m->tensor.code == 4 && m->tensor.bits == 16 && m->tensor.lanes == 1 && m->tensor.ndim == 2 &&
           m->tensor.shape[1] == 3 && !m->tensor.strides && m->tensor.device_type == 1,
       "says what it is");
    is_int((int64_t)((uintptr_t)m->tensor.data % AT_ALIGN), 0, "and is aligned");
    memset(m->tensor.data, 1, 12);
    m->deleter(m);
    is_int(attend_dlpack_new(ATTEND_Q8_0, ATTEND_SHAPE(32), &m), ATTEND_EINVAL, "no blocks");
    is_int(attend_dlpack_new(ATTEND_F32, ATTEND_SHAPE(INT64_MAX, 2), &m), ATTEND_EINVAL,
           "too large");
    ok(!m, "gives nothing");
}

/* Two keys of equal score, of which causality hides one from the first row. */
static void test_once(void)
{
    float x[4] = {0}, value[4] = {1, 2, 3, 4}, bias[2] = {0, -INFINITY}, room[4];
    attend_array q = {ATTEND_F32, ATTEND_SHAPE(1, 1, 2, 2), x, sizeof x}, k = q,
                 v = {ATTEND_F32, ATTEND_SHAPE(1, 1, 2, 2), value, sizeof value}, o = {0},
                 mask = {ATTEND_F32, ATTEND_SHAPE(1, 1, 1, 2), bias, sizeof bias};
    attend_ctx *ctx = help_context(1);
    attend_attention_opts opts;
    attend_attention_opts_init(&opts);
    is_int(attend_sdpa(ctx, &q, &k, &v, NULL, NULL, &o, err, sizeof err), 0, "at once");
    is_mem(o.data, ((float[]){2, 3, 2, 3}), sizeof room, "the mean of two values");
    ok(o.type == ATTEND_F32 && o.shape.rank == 4 && o.bytes == 16, "in a new array");
    attend_free(o.data);
    opts.mask.causal = 1;
    o = (attend_array){ATTEND_F32, q.shape, room, sizeof room};
    is_int(attend_sdpa(ctx, &q, &k, &v, NULL, &opts, &o, err, sizeof err), 0, "causal");
    is_mem(room, ((float[]){1, 2, 2, 3}), sizeof room, "into memory of the caller's");
    is_int(attend_sdpa(ctx, &q, &k, &v, &mask, NULL, &o, err, sizeof err), 0, "with a mask");
    is_mem(room, ((float[]){1, 2, 1, 2}), sizeof room, "it hides");
    o.shape.dim[2] = 3;
    is_int(attend_sdpa(ctx, &q, &k, &v, NULL, NULL, &o, err, sizeof err), ATTEND_EINVAL,
           "a wrong room");
    is_str(err, "the result is f32 (1, 1, 2, 2), and other memory is given for it", "says so");
    k.shape.dim[3] = 1;
    k.bytes = 8;
    o = (attend_array){0};
    is_int(attend_sdpa(ctx, &q, &k, &v, NULL, NULL, &o, err, sizeof err), ATTEND_EINVAL,
           "wrong keys");
    help_holds(err, "head size", "say so");
    k = q;
    k.bytes = 4;
    is_int(attend_sdpa(ctx, &q, &k, &v, NULL, NULL, &o, err, sizeof err), ATTEND_EINVAL,
           "few bytes");
    ok(!o.data, "leave no result");
    attend_ctx_free(ctx);
}

int main(void)
{
    test_view();
    test_refusals();
    test_new();
    test_once();
    return done_testing();
}
