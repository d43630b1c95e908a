/* SPDX-License-Identifier: MIT */
/* The calls of the safetensors reader in a library that was built without jansson: they say so. */
#include "models.h"
#include "say.h"

static int missing(char *err, size_t errlen)
{
    return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                  "this library was built without jansson (Debian: libjansson-dev), which "
                  "safetensors files need");
}

int attend_safetensors_open(const char *path, attend_safetensors **out, char *err, size_t errlen)
{
    (void)path;
    *out = NULL;
    return missing(err, errlen);
}

int attend_safetensors_from_memory(const void *data, size_t bytes, attend_safetensors **out,
                                   char *err, size_t errlen)
{
    (void)data;
    (void)bytes;
    *out = NULL;
    return missing(err, errlen);
}

void attend_safetensors_free(attend_safetensors *s)
{
    (void)s;
}

const char *attend_safetensors_name(const attend_safetensors *s, int64_t i)
{
    (void)s;
    (void)i;
    return NULL;
}

int attend_safetensors_get(const attend_safetensors *s, const char *name,
                           attend_safetensors_tensor *out, char *err, size_t errlen)
{
    (void)s;
    (void)name;
    (void)out;
    return missing(err, errlen);
}
