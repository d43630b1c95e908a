/* SPDX-License-Identifier: MIT */
/* safetensors files: a JSON header that says where each tensor lies, mapped and read as hostile
 * input.  All of the structure is checked when the file is opened.
 *
 *     u64 bytes of the header
 *     {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {}}
 *     the data that offsets count from, of which every byte belongs to just one tensor
 */
#include "models.h"
#include "os.h"
#include "say.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 65535, SHOWN = 100 /* bytes of a name in a sentence */ };
#define MAX_HEADER 100000000 /* as in the format's own implementation */

/* Of those without an attend_type (-1) only the size is known, so that a file that has them can be
 * checked and its other tensors used. */
static const struct element {
    const char *name;
    int type;
    int64_t bytes;
} elements[] = {
    {"F32",     ATTEND_F32,  4},
    {"F16",     ATTEND_F16,  2},
    {"BF16",    ATTEND_BF16, 2},
    {"F64",     ATTEND_F64,  8},
    {"I8",      ATTEND_I8,   1},
    {"I32",     ATTEND_I32,  4},
    {"I64",     ATTEND_I64,  8},
    {"U8",      ATTEND_U8,   1},
    {"BOOL",    ATTEND_BOOL, 1},
    {"I16",     -1,          2},
    {"U16",     -1,          2},
    {"U32",     -1,          4},
    {"U64",     -1,          8},
    {"F8_E4M3", -1,          1},
    {"F8_E5M2", -1,          1},
};

struct tensor {
    const char *name; /* the header's */
    const struct element *element;
    int rank;
    int64_t dim[ATTEND_MAX_RANK];
    int64_t begin, end;
};

struct attend_safetensors {
    struct at_os_map map; /* empty when the data is borrowed */
    const unsigned char *data;
    json_t *header;
    struct tensor *tensor; /* by name */
    size_t count;
};

/* What opening goes through: where the sentence goes, and how much data the file has. */
struct reader {
    int64_t bytes;
    char *err;
    size_t errlen;
};

#define REFUSE(r, ...) at_say((r)->err, (r)->errlen, ATTEND_EFORMAT, __VA_ARGS__)

/* ---- one entry of the header ---- */

static int check_name(struct reader *r, const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > MAX_NAME)
        return REFUSE(r, "a tensor has a name of %zu bytes; 1 to %d are allowed", n, MAX_NAME);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 32 || name[i] == 127)
            return REFUSE(r, "the name of a tensor has a control character (%d)", name[i]);
    return 0;
}

static int read_type(struct reader *r, struct tensor *t, const json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name)
        return REFUSE(r, "tensor '%.*s' has no dtype", SHOWN, t->name);
    for (size_t i = 0; i < sizeof(elements) / sizeof(*elements); i++)
        if (strcmp(elements[i].name, name) == 0)
            t->element = &elements[i];
    if (!t->element)
        return REFUSE(r, "tensor '%.*s' has dtype '%.*s', which is not known", SHOWN, t->name,
                      SHOWN, name);
    return 0;
}

/* The bytes that the shape takes, to *bytes. */
static int read_shape(struct reader *r, struct tensor *t, const json_t *entry, int64_t *bytes)
{
    const json_t *shape = json_object_get(entry, "shape");
    size_t rank = json_array_size(shape);
    if (!json_is_array(shape))
        return REFUSE(r, "tensor '%.*s' has no shape", SHOWN, t->name);
    if (rank > ATTEND_MAX_RANK)
        return REFUSE(r, "tensor '%.*s' has %zu axes; %d are allowed", SHOWN, t->name, rank,
                      ATTEND_MAX_RANK);
    *bytes = t->element->bytes;
    for (t->rank = 0; t->rank < (int)rank; t->rank++) {
        const json_t *extent = json_array_get(shape, (size_t)t->rank);
        int64_t n = json_is_integer(extent) ? json_integer_value(extent) : -1;
        if (n < 0)
            return REFUSE(r, "tensor '%.*s': axis %d of its shape is no extent", SHOWN, t->name,
                          t->rank);
        if (n > 0 && *bytes > INT64_MAX / n)
            return REFUSE(r, "tensor '%.*s' has more than 2^63 bytes", SHOWN, t->name);
        t->dim[t->rank] = n;
        *bytes *= n;
    }
    return 0;
}

static int read_place(struct reader *r, struct tensor *t, const json_t *entry, int64_t bytes)
{
    const json_t *place = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(place, 0), *end = json_array_get(place, 1);
    if (json_array_size(place) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return REFUSE(r, "tensor '%.*s' has no two data_offsets", SHOWN, t->name);
    t->begin = json_integer_value(begin);
    t->end = json_integer_value(end);
    if (t->begin < 0 || t->end < t->begin || t->end > r->bytes)
        return REFUSE(r,
                      "tensor '%.*s' from byte %" PRId64 " to %" PRId64
                      " lies outside of the file, which has %" PRId64 " bytes of tensors",
                      SHOWN, t->name, t->begin, t->end, r->bytes);
    if (t->end - t->begin != bytes)
        return REFUSE(r,
                      "tensor '%.*s' has %" PRId64 " bytes, but its shape and dtype need %" PRId64,
                      SHOWN, t->name, t->end - t->begin, bytes);
    return 0;
}

static int read_tensor(struct reader *r, struct tensor *t, const char *name, const json_t *entry)
{
    int64_t bytes = 0;
    int status = check_name(r, name);
    t->name = name;
    if (status == 0 && !json_is_object(entry))
        status = REFUSE(r, "tensor '%.*s' is described by no JSON object", SHOWN, name);
    if (status == 0)
        status = read_type(r, t, entry);
    if (status == 0)
        status = read_shape(r, t, entry, &bytes);
    return status == 0 ? read_place(r, t, entry, bytes) : status;
}

/* ---- opening ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

/* Those that are empty come before what begins at the same byte. */
static int by_place(const void *a, const void *b)
{
    const struct tensor *s = a, *t = b;
    if (s->begin != t->begin)
        return (s->begin > t->begin) - (s->begin < t->begin);
    return (s->end > t->end) - (s->end < t->end);
}

static int check_places(attend_safetensors *s, struct reader *r)
{
    int64_t at = 0;
    qsort(s->tensor, s->count, sizeof(*s->tensor), by_place);
    for (size_t i = 0; i < s->count; at = s->tensor[i++].end)
        if (s->tensor[i].begin != at)
            return REFUSE(r,
                          "tensor '%.*s' begins at byte %" PRId64 " of the data, and %" PRId64
                          " is where the one before it ends",
                          SHOWN, s->tensor[i].name, s->tensor[i].begin, at);
    if (at != r->bytes)
        return REFUSE(r, "%" PRId64 " bytes of the data belong to no tensor", r->bytes - at);
    qsort(s->tensor, s->count, sizeof(*s->tensor), by_name);
    return 0;
}

static int read_tensors(attend_safetensors *s, struct reader *r)
{
    const char *name;
    json_t *entry;
    s->tensor = calloc(json_object_size(s->header) + 1, sizeof(*s->tensor));
    if (!s->tensor)
        return at_say(r->err, r->errlen, ATTEND_ENOMEM, "no memory for %zu tensors",
                      json_object_size(s->header));
    json_object_foreach(s->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        int status = read_tensor(r, &s->tensor[s->count++], name, entry);
        if (status < 0)
            return status;
    }
    return check_places(s, r);
}

static int parse(attend_safetensors *s, const unsigned char *p, size_t size, struct reader *r)
{
    json_error_t why;
    uint64_t length = 0;
    if (size < 8)
        return REFUSE(r, "this is no safetensors file: it has %zu bytes", size);
    for (int i = 8; i-- > 0;)
        length = length << 8 | p[i];
    if (length > size - 8 || length > MAX_HEADER)
        return REFUSE(r,
                      "this is no safetensors file: it says that its header has %" PRIu64
                      " bytes, and it has %zu bytes in all",
                      length, size);
    s->header = json_loadb((const char *)p + 8, (size_t)length, JSON_REJECT_DUPLICATES, &why);
    if (!s->header)
        return REFUSE(r, "its header is no JSON: %s (byte %d)", why.text, why.position);
    if (!json_is_object(s->header))
        return REFUSE(r, "its header is no JSON object");
    s->data = p + 8 + length;
    r->bytes = (int64_t)(size - 8 - (size_t)length);
    return read_tensors(s, r);
}

/* Takes over map. */
static int new_safetensors(struct at_os_map map, const void *data, size_t size,
                           attend_safetensors **out, char *err, size_t errlen)
{
    struct reader r = {0, err, errlen};
    attend_safetensors *s = calloc(1, sizeof(*s));
    if (!s) {
        at_os_unmap(&map);
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a safetensors reader");
    }
    s->map = map;
    int status = parse(s, data, size, &r);
    if (status < 0) {
        attend_safetensors_free(s);
        return status;
    }
    *out = s;
    return 0;
}

int attend_safetensors_open(const char *path, attend_safetensors **out, char *err, size_t errlen)
{
    struct at_os_map map = {0};
    char why[512] = "";
    *out = NULL;
    if (at_os_map_file(&map, path, err, errlen) < 0)
        return ATTEND_EIO;
    int status = new_safetensors(map, map.data, map.size, out, why, sizeof why);
    return status < 0 ? at_say(err, errlen, status, "%s: %s", path, why) : 0;
}

int attend_safetensors_from_memory(const void *data, size_t bytes, attend_safetensors **out,
                                   char *err, size_t errlen)
{
    *out = NULL;
    if (!data)
        return at_say(err, errlen, ATTEND_EINVAL, "there is no safetensors file at NULL");
    return new_safetensors((struct at_os_map){0}, data, bytes, out, err, errlen);
}

void attend_safetensors_free(attend_safetensors *s)
{
    if (!s)
        return;
    at_os_unmap(&s->map);
    json_decref(s->header);
    free(s->tensor);
    free(s);
}

/* ---- tensors ---- */

const char *attend_safetensors_name(const attend_safetensors *s, int64_t i)
{
    return i >= 0 && (uint64_t)i < s->count ? s->tensor[i].name : NULL;
}

int attend_safetensors_get(const attend_safetensors *s, const char *name,
                           attend_safetensors_tensor *out, char *err, size_t errlen)
{
    const struct tensor key = {.name = name};
    const struct tensor *t = bsearch(&key, s->tensor, s->count, sizeof(*s->tensor), by_name);
    if (!t)
        return 0;
    const unsigned char *data = s->data + t->begin;
    if (t->element->type < 0)
        return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                      "tensor '%.*s' has dtype %s, which is not supported", SHOWN, t->name,
                      t->element->name);
    if ((uintptr_t)data % (uintptr_t)t->element->bytes != 0)
        return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                      "tensor '%.*s' does not lie at a multiple of the %" PRId64
                      " bytes of its elements",
                      SHOWN, t->name, t->element->bytes);
    *out = (attend_safetensors_tensor){.name = t->name,
                                       .type = (attend_type)t->element->type,
                                       .shape.rank = t->rank,
                                       .data = data,
                                       .bytes = t->end - t->begin};
    for (int d = 0; d < t->rank; d++)
        out->shape.dim[d] = t->dim[d];
    return 1;
}
