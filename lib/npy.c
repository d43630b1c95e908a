/* SPDX-License-Identifier: MIT */
/* NumPy's file format (.npy, versions 1 to 3), read as hostile input: magic, version, the length of
 * a header, then the header, a Python dict of three keys, then the elements.
 *
 *     \x93NUMPY 1 0 <u16> {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "os.h"

static const struct {
    attend_type type;
    const char *descr;
} types[] = {
    {ATTEND_F32,  "<f4"},
    {ATTEND_F16,  "<f2"},
    {ATTEND_BF16, "<u2"},
    {ATTEND_F64,  "<f8"},
    {ATTEND_I8,   "|i1"},
    {ATTEND_I32,  "<i4"},
    {ATTEND_I64,  "<i8"},
    {ATTEND_U8,   "|u1"},
    {ATTEND_BOOL, "|b1"},
};

/* ---- reading ---- */

/* A file being read, and where errors go. */
struct reader {
    const char *path;
    const char *at, *end; /* what is left of the header */
    char *err;
    size_t errlen;
};

struct header {
    char descr[16];
    bool fortran;
    attend_shape shape;
};

static int wrong(struct reader *r, const char *what)
{
    return at_say(r->err, r->errlen, ATTEND_EFORMAT, "\"%s\" is no .npy file that can be read: %s",
                  r->path, what);
}

/* The next byte that is not blank, or 0 at the end. */
static char peek(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t'))
        r->at++;
    return (char)(r->at < r->end ? *r->at : 0);
}

static bool accept(struct reader *r, char c)
{
    bool found = c != 0 && peek(r) == c;
    r->at += found;
    return found;
}

static bool accept_word(struct reader *r, const char *word)
{
    size_t n = strlen(word);
    peek(r);
    bool found = (size_t)(r->end - r->at) >= n && memcmp(r->at, word, n) == 0;
    r->at += found ? n : 0;
    return found;
}

/* A string in single or double quotes, printable and without escapes. */
static bool string(struct reader *r, char *out, size_t size)
{
    char quote = peek(r);
    if (quote != '\'' && quote != '"')
        return false;
    size_t n = 0;
    for (r->at++; r->at < r->end && *r->at != quote && n + 1 < size; r->at++) {
        if (*r->at < ' ' || *r->at > '~')
            return false;
        out[n++] = *r->at;
    }
    out[n] = 0;
    return r->at < r->end && *r->at++ == quote;
}

static bool number(struct reader *r, int64_t *out)
{
    int64_t n = 0;
    const char *start = (peek(r), r->at);
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
        int64_t digit = *r->at - '0';
        if (n > (INT64_MAX - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *out = n;
    return r->at > start;
}

/* "()", "(3,)", "(2, 3)", "(2, 3,)" */
static int read_shape(struct reader *r, attend_shape *s)
{
    s->rank = 0;
    if (!accept(r, '('))
        return wrong(r, "the shape is not a tuple");
    while (!accept(r, ')')) {
        int64_t n;
        if (!number(r, &n))
            return wrong(r, "the shape holds something that is no extent");
        if (s->rank == ATTEND_MAX_RANK)
            return at_say(r->err, r->errlen, ATTEND_ELIMIT, "\"%s\" has more than %d axes", r->path,
                          ATTEND_MAX_RANK);
        s->dim[s->rank++] = n;
        if (!accept(r, ',') && peek(r) != ')')
            return wrong(r, "the shape is not a tuple");
    }
    return 0;
}

/* The value of one key. */
static int read_value(struct reader *r, const char *key, struct header *h)
{
    if (strcmp(key, "shape") == 0)
        return read_shape(r, &h->shape);
    if (strcmp(key, "descr") == 0) {
        bool simple = string(r, h->descr, sizeof h->descr);
        return simple ? 0 : wrong(r, "its elements are not of one simple type");
    }
    if (strcmp(key, "fortran_order") != 0)
        return wrong(r, "the header has a key other than descr, fortran_order and shape");
    h->fortran = accept_word(r, "True");
    return h->fortran || accept_word(r, "False") ? 0
                                                 : wrong(r, "fortran_order is not True or False");
}

static int read_dict(struct reader *r, struct header *h)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    unsigned seen = 0;
    if (!accept(r, '{'))
        return wrong(r, "the header is not a dict");
    while (!accept(r, '}')) {
        char key[16];
        if (!string(r, key, sizeof key) || !accept(r, ':'))
            return wrong(r, "the header is not a dict of known keys");
        int status = read_value(r, key, h);
        if (status < 0)
            return status;
        for (int k = 0; k < AT_LEN(keys); k++)
            seen |= strcmp(key, keys[k]) == 0 ? 1u << k : 0;
        if (!accept(r, ',') && peek(r) != '}')
            return wrong(r, "the header is not a dict");
    }
    if (seen != 7)
        return wrong(r, "the header lacks one of descr, fortran_order and shape");
    return peek(r) == 0 ? 0 : wrong(r, "something follows the dict in the header");
}

/* Magic, version and length: sets r to the header's text, *data to what follows. */
static int find_header(struct reader *r, const struct at_os_map *map, const uint8_t **data)
{
    const uint8_t *p = map->data;
    if (map->size < 10 || memcmp(p, "\x93NUMPY", 6) != 0)
        return wrong(r, "it does not begin as one");
    if (p[6] < 1 || p[6] > 3 || p[7] != 0)
        return at_say(r->err, r->errlen, ATTEND_EUNSUPPORTED,
                      "\"%s\" has version %d.%d of the .npy format; 1.0 to 3.0 can be read",
                      r->path, p[6], p[7]);
    size_t start = p[6] == 1 ? 10 : 12, size = (size_t)p[8] | (size_t)p[9] << 8;
    if (map->size < start)
        return wrong(r, "it ends inside of its header");
    if (p[6] > 1)
        size |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (size > map->size - start)
        return wrong(r, "it ends inside of its header");
    r->at = (const char *)p + start;
    r->end = r->at + size;
    *data = p + start + size;
    return 0;
}

static int find_type(struct reader *r, const struct header *h, attend_type *type)
{
    for (int k = 0; k < AT_LEN(types); k++)
        if (strcmp(types[k].descr, h->descr) == 0) {
            *type = types[k].type;
            return 0;
        }
    return at_say(r->err, r->errlen, ATTEND_EUNSUPPORTED,
                  h->descr[0] == '>' ? "\"%s\" is big-endian ('%s'); only little-endian can be read"
                                     : "\"%s\" holds elements of type '%s', which cannot be read",
                  r->path, h->descr);
}

/* Bytes of an array, or -1. */
static int64_t bytes_of(attend_type type, const attend_shape *s)
{
    int64_t n = (int64_t)attend_type_size(type);
    for (int d = 0; d < s->rank; d++)
        n = s->dim[d] == 0 || n == 0 ? 0 : at_mul_size(n, s->dim[d]);
    return n;
}

static int read_map(struct reader *r, const struct at_os_map *map, attend_array *out)
{
    struct header h = {0};
    const uint8_t *data = NULL;
    int status = find_header(r, map, &data);
    if (status == 0)
        status = read_dict(r, &h);
    if (status == 0)
        status = find_type(r, &h, &out->type);
    if (status < 0)
        return status;
    if (h.fortran)
        return at_say(r->err, r->errlen, ATTEND_EUNSUPPORTED,
                      "\"%s\" is in Fortran order; only C order can be read", r->path);
    out->shape = h.shape;
    out->bytes = bytes_of(out->type, &h.shape);
    int64_t have = (const uint8_t *)map->data + map->size - data;
    if (out->bytes != have)
        return at_say(r->err, r->errlen, ATTEND_EFORMAT,
                      "\"%s\" has %lld bytes of elements, but its shape %s %lld", r->path,
                      (long long)have, out->bytes < 0 ? "needs more than" : "needs",
                      (long long)(out->bytes < 0 ? INT64_MAX : out->bytes));
    out->data = malloc(have > 0 ? (size_t)have : 1);
    if (!out->data)
        return at_say(r->err, r->errlen, ATTEND_ENOMEM, "no memory for the %lld bytes of \"%s\"",
                      (long long)have, r->path);
    memcpy(out->data, data, (size_t)have);
    return 0;
}

int attend_npy_read(const char *path, attend_array *out, char *err, size_t errlen)
{
    struct at_os_map map;
    struct reader r = {.path = path, .err = err, .errlen = errlen};
    attend_array array = {0};
    *out = array;
    int status = at_os_map_file(&map, path, err, errlen);
    if (status < 0)
        return status;
    status = read_map(&r, &map, &array);
    at_os_unmap(&map);
    if (status == 0)
        *out = array;
    return status;
}

/* ---- writing ---- */

/* The whole header into buf, padded so that the elements begin at a multiple of 64; its size. */
static size_t make_header(char buf[256], const char *descr, const attend_shape *s)
{
    char shape[160] = "";
    int n = 0;
    for (int d = 0; d < s->rank; d++)
        n += snprintf(shape + n, sizeof shape - (size_t)n, d ? ", %lld" : "%lld",
                      (long long)s->dim[d]);
    n = snprintf(buf, 256, "%10s{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }", "",
                 descr, shape, s->rank == 1 ? "," : "");
    size_t size = (size_t)at_round_up(n + 1, 64);
    memset(buf + n, ' ', size - (size_t)n);
    buf[size - 1] = '\n';
    memcpy(buf, "\x93NUMPY\1", 8); /* and the minor version, 0 */
    buf[8] = (char)((size - 10) & 0xff);
    buf[9] = (char)((size - 10) >> 8);
    return size;
}

int attend_npy_write(const char *path, const attend_array *a, char *err, size_t errlen)
{
    const char *descr = NULL;
    char header[256];
    for (int k = 0; k < AT_LEN(types); k++)
        if (types[k].type == a->type)
            descr = types[k].descr;
    if (!descr)
        return at_say(err, errlen, ATTEND_EUNSUPPORTED, "\"%s\": .npy files cannot hold type %s",
                      path, attend_type_name(a->type));
    bool sound = a->shape.rank >= 0 && a->shape.rank <= ATTEND_MAX_RANK;
    for (int d = 0; sound && d < a->shape.rank; d++)
        sound = a->shape.dim[d] >= 0;
    int64_t need = sound ? bytes_of(a->type, &a->shape) : -1;
    if (need < 0 || need != a->bytes)
        return at_say(err, errlen, ATTEND_EINVAL,
                      "\"%s\": the array has %lld bytes, but its shape needs %lld", path,
                      (long long)a->bytes, (long long)need);

    struct at_os_file *f;
    int status = at_os_file_new(&f, path, err, errlen);
    if (status < 0)
        return status;
    at_os_file_write(f, header, make_header(header, descr, &a->shape));
    if (a->bytes > 0)
        at_os_file_write(f, a->data, (size_t)a->bytes);
    return at_os_file_finish(f, err, errlen);
}
