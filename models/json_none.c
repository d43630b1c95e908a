/* SPDX-License-Identifier: MIT */
/* The calls that read JSON, those of safetensors files and of BERT models, in a library that was
 * built without jansson: they say so. */
#include "models.h"
#include "say.h"

static int missing(char *err, size_t errlen)
{
    return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                  "this library was built without jansson (Debian: libjansson-dev), which "
                  "safetensors and config.json need");
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

void attend_bert_opts_init(attend_bert_opts *opts)
{
    *opts = (attend_bert_opts){.size = sizeof *opts};
}

int attend_bert_open(attend_ctx *ctx, const char *folder, const attend_bert_opts *opts,
                     attend_bert **out, char *err, size_t errlen)
{
    (void)ctx;
    (void)folder;
    (void)opts;
    *out = NULL;
    return missing(err, errlen);
}

void attend_bert_free(attend_bert *m)
{
    (void)m;
}

/* Nobody has a model to call the others with. */

int64_t attend_bert_width(const attend_bert *m)
{
    (void)m;
    return 0;
}

int64_t attend_bert_limit(const attend_bert *m)
{
    (void)m;
    return 0;
}

int64_t attend_bert_maps_count(const attend_bert *m)
{
    (void)m;
    return 0;
}

const attend_wordpiece *attend_bert_wordpiece(const attend_bert *m)
{
    (void)m;
    return NULL;
}

const attend_plan *attend_bert_plan(const attend_bert *m)
{
    (void)m;
    return NULL;
}

int attend_bert_run(attend_bert *m, const int32_t *tokens, const int32_t *starts, int64_t n,
                    float *hidden, char *err, size_t errlen)
{
    (void)m;
    (void)tokens;
    (void)starts;
    (void)n;
    (void)hidden;
    return missing(err, errlen);
}

int attend_bert_embed(attend_bert *m, const attend_str *texts, int64_t n, float *out, char *err,
                      size_t errlen)
{
    (void)m;
    (void)texts;
    (void)n;
    (void)out;
    return missing(err, errlen);
}

int attend_bert_maps(attend_bert *m, const int32_t *tokens, int64_t n,
                     const attend_weights_opts *kept, attend_array *maps, char *err, size_t errlen)
{
    (void)m;
    (void)tokens;
    (void)n;
    (void)kept;
    (void)maps;
    return missing(err, errlen);
}
