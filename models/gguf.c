/* SPDX-License-Identifier: MIT */
/* GGUF files: header, typed keys, tensor table and data, mapped and read as hostile input.  All of
 * the structure is checked when the file is opened; what the getters hand out needs no more checks.
 *
 *     "GGUF" u32 version  u64 tensors  u64 keys
 *     keys times:     string name  u32 type  value
 *     tensors times:  string name  u32 rank  u64 extent[rank], fastest first  u32 type  u64 offset
 *     padding to the alignment, then the data that offsets count from
 */
#include "models.h"
#include "say.h"
#include "os.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RANK = 4, MAX_NAME = 65535, SHOWN = 100 /* bytes of a name in a sentence */ };

enum value_type { U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARRAY, U64, I64, F64, VALUE_TYPES };
static const struct {
    const char *name;
    size_t size; /* 0: it varies */
} values[VALUE_TYPES] = {
  /* clang-format off */
    {"u8", 1}, {"i8", 1}, {"u16", 2}, {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
    {"bool", 1}, {"str", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8},
  /* clang-format on */
};

/* The element types of tensors.  Of those without an attend_type (-1) only the size is known, so
 * that the layout of a file that has them can still be checked. */
static const struct element {
    uint32_t id;
    int type;
    int64_t block, bytes;
    const char *name;
} elements[] = {
    {0,  ATTEND_F32,  1,   4,   "f32" },
    {1,  ATTEND_F16,  1,   2,   "f16" },
    {2,  ATTEND_Q4_0, 32,  18,  "q4_0"},
    {3,  ATTEND_Q4_1, 32,  20,  "q4_1"},
    {6,  -1,          32,  22,  "q5_0"},
    {7,  -1,          32,  24,  "q5_1"},
    {8,  ATTEND_Q8_0, 32,  34,  "q8_0"},
    {9,  -1,          32,  36,  "q8_1"},
    {10, -1,          256, 84,  "q2_K"},
    {11, -1,          256, 110, "q3_K"},
    {12, -1,          256, 144, "q4_K"},
    {13, -1,          256, 176, "q5_K"},
    {14, -1,          256, 210, "q6_K"},
    {15, -1,          256, 292, "q8_K"},
    {24, ATTEND_I8,   1,   1,   "i8"  },
    {25, -1,          1,   2,   "i16" },
    {26, ATTEND_I32,  1,   4,   "i32" },
    {27, ATTEND_I64,  1,   8,   "i64" },
    {28, ATTEND_F64,  1,   8,   "f64" },
    {30, ATTEND_BF16, 1,   2,   "bf16"},
};

/* The name comes first in both, so that one comparison sorts and finds both.  It points into the
 * file, unterminated, until name_all copies it. */
struct key {
    const char *name;
    size_t length;
    enum value_type type; /* of the value, or of the elements of an array */
    bool array;
    uint64_t count;
    const unsigned char *data;
};
struct tensor {
    const char *name;
    size_t length;
    uint32_t type;
    int rank;
    int64_t dim[MAX_RANK];  /* slowest first */
    uint64_t offset, bytes; /* bytes 0: the type is unknown */
};
struct attend_gguf {
    struct at_os_map map; /* empty when the data is borrowed */
    const unsigned char *data;
    size_t size;
    const unsigned char *tensor_data;
    struct key *keys;
    struct tensor *tensors;
    size_t key_count, tensor_count;
    char *names;
};

/* ---- reading ---- */

/* What is left of the file.  Functions that read from it return 0 or a negative status. */
struct reader {
    const unsigned char *p;
    size_t left, size;
    char *err;
    size_t errlen;
};

#define REFUSE(r, ...) at_say((r)->err, (r)->errlen, ATTEND_EFORMAT, __VA_ARGS__)

static uint64_t little(const unsigned char *p, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = bytes; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

/* The next bytes, or NULL with the sentence: the only way on through the file. */
static const unsigned char *take(struct reader *r, uint64_t bytes, const char *what)
{
    const unsigned char *p = r->p;
    if (bytes > r->left) {
        REFUSE(r, "the file ends inside %s: at byte %zu it needs %" PRIu64 " bytes and has %zu",
               what, r->size - r->left, bytes, r->left);
        return NULL;
    }
    r->p += bytes;
    r->left -= (size_t)bytes;
    return p;
}

static int take_u32(struct reader *r, uint32_t *v, const char *what)
{
    const unsigned char *p = take(r, 4, what);
    if (!p)
        return ATTEND_EFORMAT;
    *v = (uint32_t)little(p, 4);
    return 0;
}

static int take_u64(struct reader *r, uint64_t *v, const char *what)
{
    const unsigned char *p = take(r, 8, what);
    if (!p)
        return ATTEND_EFORMAT;
    *v = little(p, 8);
    return 0;
}

static int take_string(struct reader *r, const char **s, size_t *n, const char *what)
{
    uint64_t length;
    if (take_u64(r, &length, what) < 0 || !(*s = (const char *)take(r, length, what)))
        return ATTEND_EFORMAT;
    *n = (size_t)length;
    return 0;
}

/* How much of a name that no zero ends yet is printed. */
static int shown_of(size_t length)
{
    return length < SHOWN ? (int)length : SHOWN;
}

/* Names become C strings and are printed: no control characters in them. */
static int take_name(struct reader *r, const char **s, size_t *n, const char *what)
{
    size_t at = r->size - r->left;
    int status = take_string(r, s, n, what);
    if (status < 0)
        return status;
    if (*n == 0 || *n > MAX_NAME)
        return REFUSE(r, "%s at byte %zu has %zu bytes; 1 to %d are allowed", what, at, *n,
                      MAX_NAME);
    for (size_t i = 0; i < *n; i++)
        if ((unsigned char)(*s)[i] < 32 || (*s)[i] == 127)
            return REFUSE(r, "%s at byte %zu has a control character (%d)", what, at, (*s)[i]);
    return 0;
}

static int take_value(struct reader *r, struct key *k)
{
    uint32_t type = 0;
    int status = take_u32(r, &type, "the type of a key");
    int shown = shown_of(k->length);
    if (status == 0 && type == ARRAY) {
        k->array = true;
        status = take_u32(r, &type, "the type of an array");
        if (status == 0 && type == ARRAY)
            return at_say(r->err, r->errlen, ATTEND_EUNSUPPORTED,
                          "key '%.*s' is an array of arrays, which is not supported", shown,
                          k->name);
        if (status == 0)
            status = take_u64(r, &k->count, "the length of an array");
    }
    if (status < 0)
        return status;
    if (type >= VALUE_TYPES)
        return REFUSE(r, "key '%.*s' has type %" PRIu32 ", which does not exist", shown, k->name,
                      type);
    k->type = (enum value_type)type;
    k->data = r->p;

    if (type != STR) {
        if (k->count > r->left / values[type].size)
            return REFUSE(r, "key '%.*s' holds %" PRIu64 " values of type %s, more than the file",
                          shown, k->name, k->count, values[type].name);
        return take(r, k->count * values[type].size, "a value") ? 0 : ATTEND_EFORMAT;
    }
    for (uint64_t i = 0; i < k->count && status == 0; i++) {
        const char *s;
        size_t n;
        status = take_string(r, &s, &n, "a string");
    }
    return status;
}

static int take_key(struct reader *r, struct key *k)
{
    int status = take_name(r, &k->name, &k->length, "a key");
    k->count = 1;
    return status < 0 ? status : take_value(r, k);
}

static const struct element *find_element(uint32_t id)
{
    for (size_t i = 0; i < sizeof(elements) / sizeof(*elements); i++)
        if (elements[i].id == id)
            return &elements[i];
    return NULL;
}

/* Bytes of t; its elements must fit int64, whatever its type. */
static int measure(struct reader *r, struct tensor *t)
{
    int shown = shown_of(t->length);
    int64_t count = 1;
    for (int d = 0; d < t->rank; d++) {
        if (t->dim[d] <= 0)
            return REFUSE(r, "tensor '%.*s' has an extent of %" PRIu64, shown, t->name,
                          (uint64_t)t->dim[d]);
        if (count > INT64_MAX / t->dim[d])
            return REFUSE(r, "tensor '%.*s' has more than 2^63 elements", shown, t->name);
        count *= t->dim[d];
    }
    const struct element *e = find_element(t->type);
    if (!e)
        return 0;
    if (t->dim[t->rank - 1] % e->block != 0)
        return REFUSE(r,
                      "tensor '%.*s' of type %s has rows of %" PRId64
                      ", no multiple of its blocks of %" PRId64,
                      shown, t->name, e->name, t->dim[t->rank - 1], e->block);
    if (count / e->block > INT64_MAX / e->bytes)
        return REFUSE(r, "tensor '%.*s' has more than 2^63 bytes", shown, t->name);
    t->bytes = (uint64_t)(count / e->block * e->bytes);
    return 0;
}

static int take_tensor(struct reader *r, struct tensor *t)
{
    uint32_t rank = 0;
    int status = take_name(r, &t->name, &t->length, "the name of a tensor");
    if (status == 0)
        status = take_u32(r, &rank, "the rank of a tensor");
    if (status < 0)
        return status;
    if (rank < 1 || rank > MAX_RANK)
        return REFUSE(r, "tensor '%.*s' has %" PRIu32 " axes; 1 to %d are allowed",
                      shown_of(t->length), t->name, rank, MAX_RANK);
    t->rank = (int)rank;
    for (int d = t->rank - 1; d >= 0 && status == 0; d--) {
        uint64_t extent = 0;
        status = take_u64(r, &extent, "the shape of a tensor");
        t->dim[d] = (int64_t)extent;
    }
    if (status == 0)
        status = take_u32(r, &t->type, "the type of a tensor");
    if (status == 0)
        status = take_u64(r, &t->offset, "the offset of a tensor");
    return status < 0 ? status : measure(r, t);
}

/* ---- names ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static char *copy_name(const char **name, size_t length, char *to)
{
    memcpy(to, *name, length);
    to[length] = '\0';
    *name = to;
    return to + length + 1;
}

static int name_all(attend_gguf *g, struct reader *r)
{
    size_t total = 1; /* their sum is below the size of the file */
    for (size_t i = 0; i < g->key_count; i++)
        total += g->keys[i].length + 1;
    for (size_t i = 0; i < g->tensor_count; i++)
        total += g->tensors[i].length + 1;
    char *to = g->names = malloc(total);
    if (!to)
        return at_say(r->err, r->errlen, ATTEND_ENOMEM, "no memory for %zu bytes of names", total);
    for (size_t i = 0; i < g->key_count; i++)
        to = copy_name(&g->keys[i].name, g->keys[i].length, to);
    for (size_t i = 0; i < g->tensor_count; i++)
        to = copy_name(&g->tensors[i].name, g->tensors[i].length, to);
    return 0;
}

static int sort_keys(attend_gguf *g, struct reader *r)
{
    qsort(g->keys, g->key_count, sizeof(*g->keys), by_name);
    for (size_t i = 1; i < g->key_count; i++)
        if (strcmp(g->keys[i - 1].name, g->keys[i].name) == 0)
            return REFUSE(r, "key '%.*s' is there twice", SHOWN, g->keys[i].name);
    return 0;
}

static int sort_tensors(attend_gguf *g, struct reader *r)
{
    qsort(g->tensors, g->tensor_count, sizeof(*g->tensors), by_name);
    for (size_t i = 1; i < g->tensor_count; i++)
        if (strcmp(g->tensors[i - 1].name, g->tensors[i].name) == 0)
            return REFUSE(r, "tensor '%.*s' is there twice", SHOWN, g->tensors[i].name);
    return 0;
}

/* ---- where tensors lie ---- */

static int by_offset(const void *a, const void *b)
{
    const struct tensor *s = a, *t = b;
    return (s->offset > t->offset) - (s->offset < t->offset);
}

static int place_tensors(attend_gguf *g, struct reader *r)
{
    int64_t align = 32;
    int status = attend_gguf_int(g, "general.alignment", &align, r->err, r->errlen);
    if (status < 0)
        return status;
    if (align < 8 || (align & (align - 1)) != 0)
        return REFUSE(r, "general.alignment is %" PRId64 ", not a power of two from 8 up", align);

    uint64_t mask = (uint64_t)align - 1, pad = -(uint64_t)(g->size - r->left) & mask;
    uint64_t have = r->left > pad ? r->left - pad : 0;
    g->tensor_data = have ? r->p + pad : r->p;
    qsort(g->tensors, g->tensor_count, sizeof(*g->tensors), by_offset);
    for (size_t i = 0; i < g->tensor_count; i++) {
        const struct tensor *t = &g->tensors[i], *before = i > 0 ? t - 1 : NULL;
        if (t->offset & mask)
            return REFUSE(r, "tensor '%.*s' is at offset %" PRIu64 ", no multiple of %" PRId64,
                          SHOWN, t->name, t->offset, align);
        if (t->offset > have || t->bytes > have - t->offset)
            return REFUSE(r,
                          "tensor '%.*s' of %" PRIu64 " bytes at offset %" PRIu64
                          " lies outside of the file, which has %" PRIu64 " bytes of tensors",
                          SHOWN, t->name, t->bytes, t->offset, have);
        if (before && before->bytes > t->offset - before->offset)
            return REFUSE(r, "tensors '%.*s' and '%.*s' overlap", SHOWN, before->name, SHOWN,
                          t->name);
    }
    return 0;
}

/* ---- opening ---- */

/* Space for what the file says it holds, refused first where the file is too short for it. */
static int reserve(struct reader *r, uint64_t count, size_t least, size_t each, void **out,
                   const char *what)
{
    if (count > r->left / least)
        return REFUSE(r, "the file says that it holds %" PRIu64 " %s, more than fit its %zu bytes",
                      count, what, r->size);
    *out = calloc(count ? (size_t)count : 1, each);
    if (!*out)
        return at_say(r->err, r->errlen, ATTEND_ENOMEM, "no memory for %" PRIu64 " %s", count,
                      what);
    return 0;
}

static int take_header(struct reader *r, uint64_t *tensors, uint64_t *keys)
{
    uint32_t version = 0;
    if (r->left < 4 || memcmp(r->p, "GGUF", 4) != 0)
        return REFUSE(r, "this is no GGUF file: it does not start with \"GGUF\"");
    take(r, 4, "the header");
    int status = take_u32(r, &version, "the header");
    if (status < 0)
        return status;
    if (version != 0 && (version & 0xffff) == 0)
        return at_say(r->err, r->errlen, ATTEND_EUNSUPPORTED,
                      "the file is big endian, which is not supported");
    if (version != 2 && version != 3)
        return at_say(r->err, r->errlen, ATTEND_EUNSUPPORTED,
                      "GGUF version %" PRIu32 " is not supported; 2 and 3 are", version);
    status = take_u64(r, tensors, "the header");
    return status < 0 ? status : take_u64(r, keys, "the header");
}

static int parse(attend_gguf *g, struct reader *r)
{
    uint64_t keys, tensors;
    void *space = NULL;
    int status = take_header(r, &tensors, &keys);
    if (status < 0)
        return status;
    /* Lengths of name, type and one byte; of name, rank, one extent, type and offset. */
    if ((status = reserve(r, keys, 8 + 1 + 4 + 1, sizeof(*g->keys), &space, "keys")) < 0)
        return status;
    g->keys = space;
    while (g->key_count < keys)
        if ((status = take_key(r, &g->keys[g->key_count++])) < 0)
            return status;
    if ((status = reserve(r, tensors, 8 + 1 + 4 + 8 + 4 + 8, sizeof(*g->tensors), &space,
                          "tensors")) < 0)
        return status;
    g->tensors = space;
    while (g->tensor_count < tensors)
        if ((status = take_tensor(r, &g->tensors[g->tensor_count++])) < 0)
            return status;
    if ((status = name_all(g, r)) < 0 || (status = sort_keys(g, r)) < 0 ||
        (status = place_tensors(g, r)) < 0)
        return status;
    return sort_tensors(g, r);
}

/* Takes over map. */
static int new_gguf(struct at_os_map map, const void *data, size_t size, attend_gguf **out,
                    char *err, size_t errlen)
{
    struct reader r = {data, size, size, err, errlen};
    int status;
    attend_gguf *g = calloc(1, sizeof(*g));
    if (!g) {
        at_os_unmap(&map);
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a GGUF reader");
    }
    g->map = map;
    g->data = data;
    g->size = size;
    status = parse(g, &r);
    if (status < 0) {
        attend_gguf_free(g);
        return status;
    }
    *out = g;
    return 0;
}

int attend_gguf_open(const char *path, attend_gguf **out, char *err, size_t errlen)
{
    struct at_os_map map = {0};
    char why[512] = "";
    *out = NULL;
    int status = at_os_map_file(&map, path, err, errlen);
    if (status < 0)
        return ATTEND_EIO;
    status = new_gguf(map, map.data, map.size, out, why, sizeof(why));
    return status < 0 ? at_say(err, errlen, status, "%s: %s", path, why) : 0;
}

int attend_gguf_from_memory(const void *data, size_t bytes, attend_gguf **out, char *err,
                            size_t errlen)
{
    *out = NULL;
    if (!data || (uintptr_t)data % 8 != 0)
        return at_say(err, errlen, ATTEND_EINVAL,
                      "a GGUF file in memory must be at a multiple of 8 bytes");
    return new_gguf((struct at_os_map){0}, data, bytes, out, err, errlen);
}

void attend_gguf_free(attend_gguf *g)
{
    if (!g)
        return;
    at_os_unmap(&g->map);
    free(g->keys);
    free(g->tensors);
    free(g->names);
    free(g);
}

/* ---- keys ---- */

const char *attend_gguf_key(const attend_gguf *g, int64_t i)
{
    return i >= 0 && (uint64_t)i < g->key_count ? g->keys[i].name : NULL;
}

static const struct key *find_key(const attend_gguf *g, const char *name)
{
    return bsearch(&name, g->keys, g->key_count, sizeof(*g->keys), by_name);
}

static int wrong_type(const struct key *k, const char *wanted, char *err, size_t errlen)
{
    return at_say(err, errlen, ATTEND_EFORMAT, "key '%.*s' has type %s%s where %s is needed", SHOWN,
                  k->name, k->array ? "array of " : "", values[k->type].name, wanted);
}

static bool is_integer(enum value_type type)
{
    return type != F32 && type != F64 && type != STR;
}

/* A u64 that is too large becomes INT64_MAX. */
static int64_t read_integer(enum value_type type, const unsigned char *p)
{
    uint64_t v = little(p, values[type].size);
    switch (type) {
    case I8:
        return (int8_t)v;
    case I16:
        return (int16_t)v;
    case I32:
        return (int32_t)v;
    case I64:
        return (int64_t)v;
    case BOOL:
        return v != 0;
    default:
        return v > INT64_MAX ? INT64_MAX : (int64_t)v;
    }
}

int attend_gguf_int(const attend_gguf *g, const char *key, int64_t *value, char *err, size_t errlen)
{
    const struct key *k = find_key(g, key);
    if (!k)
        return 0;
    if (k->array || !is_integer(k->type))
        return wrong_type(k, "an integer", err, errlen);
    if (k->type == U64 && little(k->data, 8) > INT64_MAX)
        return at_say(err, errlen, ATTEND_EFORMAT, "key '%.*s' is %" PRIu64 ", above 2^63", SHOWN,
                      k->name, little(k->data, 8));
    *value = read_integer(k->type, k->data);
    return 1;
}

int attend_gguf_float(const attend_gguf *g, const char *key, double *value, char *err,
                      size_t errlen)
{
    const struct key *k = find_key(g, key);
    if (!k)
        return 0;
    if (k->array || k->type == STR)
        return wrong_type(k, "a number", err, errlen);
    if (k->type == F32) {
        uint32_t bits = (uint32_t)little(k->data, 4);
        float f;
        memcpy(&f, &bits, sizeof(f));
        *value = (double)f;
    } else if (k->type == F64) {
        uint64_t bits = little(k->data, 8);
        memcpy(value, &bits, sizeof(*value));
    } else {
        *value = (double)read_integer(k->type, k->data);
    }
    return 1;
}

/* The string at p, whose length was checked when the file was opened; returns its end. */
static const unsigned char *read_string(const unsigned char *p, attend_str *s)
{
    s->n = (size_t)little(p, 8);
    s->s = (const char *)(p + 8);
    return p + 8 + s->n;
}

int attend_gguf_str(const attend_gguf *g, const char *key, attend_str *value, char *err,
                    size_t errlen)
{
    const struct key *k = find_key(g, key);
    if (!k)
        return 0;
    if (k->array || k->type != STR)
        return wrong_type(k, "a string", err, errlen);
    read_string(k->data, value);
    return 1;
}

static int get_array(const attend_gguf *g, const char *key, bool strings, attend_gguf_array *value,
                     char *err, size_t errlen)
{
    const struct key *k = find_key(g, key);
    if (!k)
        return 0;
    if (!k->array || (strings ? k->type != STR : !is_integer(k->type)))
        return wrong_type(k, strings ? "an array of strings" : "an array of integers", err, errlen);
    *value = (attend_gguf_array){k->data, (int64_t)k->count, (int)k->type};
    return 1;
}

int attend_gguf_ints(const attend_gguf *g, const char *key, attend_gguf_array *value, char *err,
                     size_t errlen)
{
    return get_array(g, key, false, value, err, errlen);
}

int attend_gguf_strs(const attend_gguf *g, const char *key, attend_gguf_array *value, char *err,
                     size_t errlen)
{
    return get_array(g, key, true, value, err, errlen);
}

int64_t attend_gguf_array_int(const attend_gguf_array *a, int64_t i)
{
    enum value_type type = (enum value_type)a->type;
    return read_integer(type, (const unsigned char *)a->data + (size_t)i * values[type].size);
}

int attend_gguf_array_next(attend_gguf_array *a, attend_str *value)
{
    if (a->count == 0)
        return 0;
    a->data = read_string(a->data, value);
    a->count--;
    return 1;
}

/* ---- tensors ---- */

const char *attend_gguf_tensor_name(const attend_gguf *g, int64_t i)
{
    return i >= 0 && (uint64_t)i < g->tensor_count ? g->tensors[i].name : NULL;
}

int attend_gguf_tensor_get(const attend_gguf *g, const char *name, attend_gguf_tensor *out,
                           char *err, size_t errlen)
{
    const struct tensor *t =
        bsearch(&name, g->tensors, g->tensor_count, sizeof(*g->tensors), by_name);
    if (!t)
        return 0;
    const struct element *e = find_element(t->type);
    if (!e)
        return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                      "tensor '%.*s' has type %" PRIu32 ", which is not known", SHOWN, t->name,
                      t->type);
    if (e->type < 0)
        return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                      "tensor '%.*s' has type %s, which is not supported", SHOWN, t->name, e->name);
    *out = (attend_gguf_tensor){.name = t->name,
                                .type = (attend_type)e->type,
                                .shape.rank = t->rank,
                                .data = g->tensor_data + t->offset,
                                .bytes = (int64_t)t->bytes};
    for (int d = 0; d < t->rank; d++)
        out->shape.dim[d] = t->dim[d];
    return 1;
}

/* A number of `count`, `stride` bytes apart, is NaN or infinite when all exponent bits are set in
 * its upper 16 bits.  The index of the first, or -1. */
static int64_t find_bad(const unsigned char *upper, int64_t count, int64_t stride, unsigned mask)
{
    for (int64_t i = 0; i < count; i++, upper += stride)
        if (((unsigned)(upper[0] | upper[1] << 8) & mask) == mask)
            return i;
    return -1;
}

int attend_gguf_tensor_check(const attend_gguf_tensor *t, char *err, size_t errlen)
{
    static const struct {
        attend_type type;
        int upper; /* where in an element or block the upper 16 bits of a number are */
        unsigned mask;
        const char *what;
    } numbers[] = {
        {ATTEND_F32,  2, 0x7f80, "an element"},
        {ATTEND_F64,  6, 0x7ff0, "an element"},
        {ATTEND_F16,  0, 0x7c00, "an element"},
        {ATTEND_BF16, 0, 0x7f80, "an element"},
        {ATTEND_Q8_0, 0, 0x7c00, "a scale"   },
        {ATTEND_Q4_0, 0, 0x7c00, "a scale"   },
        {ATTEND_Q4_1, 0, 0x7c00, "a scale"   },
        {ATTEND_Q4_1, 2, 0x7c00, "a minimum" },
    };
    int64_t stride = (int64_t)attend_type_size(t->type), block = attend_type_block(t->type);
    for (size_t n = 0; n < sizeof(numbers) / sizeof(*numbers); n++) {
        if (numbers[n].type != t->type)
            continue;
        int64_t at = find_bad((const unsigned char *)t->data + numbers[n].upper, t->bytes / stride,
                              stride, numbers[n].mask);
        int64_t row = t->shape.dim[t->shape.rank - 1];
        if (at >= 0)
            return at_say(err, errlen, ATTEND_EFORMAT,
                          "tensor '%.*s' has %s that is NaN or infinite, in row %" PRId64
                          ", column %" PRId64,
                          SHOWN, t->name, numbers[n].what, at * block / row, at * block % row);
    }
    return 0;
}
