/* SPDX-License-Identifier: MIT */
/* The calls of the ONNX reader in a library that was built without protobuf-c: they say so. */
#include "models.h"
#include "say.h"

static int missing(char *err, size_t errlen)
{
    return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                  "this library was built without protobuf-c (Debian: libprotobuf-c-dev and "
                  "protobuf-c-compiler), which ONNX models need");
}

int attend_onnx_open(const char *path, attend_onnx **out, char *err, size_t errlen)
{
    (void)path;
    *out = NULL;
    return missing(err, errlen);
}

int attend_onnx_from_memory(const void *data, size_t bytes, attend_onnx **out, char *err,
                            size_t errlen)
{
    (void)data;
    (void)bytes;
    *out = NULL;
    return missing(err, errlen);
}

void attend_onnx_free(attend_onnx *m)
{
    (void)m;
}

int attend_onnx_input(const attend_onnx *m, int i, attend_onnx_info *out)
{
    (void)m;
    (void)i;
    (void)out;
    return ATTEND_EUNSUPPORTED;
}

int attend_onnx_output(const attend_onnx *m, int i, attend_onnx_info *out)
{
    (void)m;
    (void)i;
    (void)out;
    return ATTEND_EUNSUPPORTED;
}

int attend_onnx_build(attend_onnx *m, attend_graph *g, const attend_array *inputs,
                      attend_array *outputs, char *err, size_t errlen)
{
    (void)m;
    (void)g;
    (void)inputs;
    (void)outputs;
    return missing(err, errlen);
}

int attend_onnx_tensor_read(const char *path, attend_array *out, char *err, size_t errlen)
{
    (void)path;
    (void)out;
    return missing(err, errlen);
}
