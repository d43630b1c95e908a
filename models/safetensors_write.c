/* SPDX-License-Identifier: MIT */
/* Writing safetensors files: whole, or not at all. */
#include "models.h"
#include "os.h"
#include "say.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The header being made; text NULL: memory is out. */
struct header {
    char *text;
    size_t length, room;
};

__attribute__((format(printf, 2, 3))) static void add(struct header *h, const char *fmt, ...)
{
    va_list ap;
    if (!h->text)
        return;
    if (h->room - h->length < 512) {
        char *more = realloc(h->text, h->room *= 2);
        if (!more)
            free(h->text);
        h->text = more;
        if (!more)
            return;
    }
    va_start(ap, fmt);
    h->length += (size_t)vsnprintf(h->text + h->length, h->room - h->length, fmt, ap);
    va_end(ap);
}

static const char *name_of(attend_type type)
{
    switch (type) {
    case ATTEND_F32:
        return "F32";
    case ATTEND_F16:
        return "F16";
    case ATTEND_BF16:
        return "BF16";
    case ATTEND_F64:
        return "F64";
    case ATTEND_I32:
        return "I32";
    case ATTEND_I64:
        return "I64";
    default:
        return NULL;
    }
}

/* Names that need no escapes in JSON. */
static int plain(const char *name)
{
    size_t n = strlen(name);
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == '"' || *c == '\\')
            return 0;
    return n > 0 && n < 256;
}

static int describe(struct header *h, const attend_named_array *a, int64_t n, const char *path,
                    char *err, size_t errlen)
{
    int64_t at = 0;
    add(h, "{");
    for (int64_t i = 0; i < n; i++) {
        const attend_shape *s = &a[i].array.shape;
        const char *type = name_of(a[i].array.type);
        if (!a[i].name || !plain(a[i].name) || !type)
            return at_say(err, errlen, ATTEND_EINVAL,
                          "%s: tensor %" PRId64 " has a name or type that is not written", path, i);
        if (at % (int64_t)attend_type_size(a[i].array.type))
            return at_say(err, errlen, ATTEND_EINVAL, "%s: %s comes after a shorter type", path,
                          a[i].name);
        add(h, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", a[i].name, type);
        for (int d = 0; d < s->rank; d++)
            add(h, "%s%" PRId64, d ? "," : "", s->dim[d]);
        add(h, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at, at + a[i].array.bytes);
        at += a[i].array.bytes;
    }
    add(h, "}");
    while (h->text && h->length % 8)
        add(h, " ");
    return h->text ? ATTEND_OK
                   : at_say(err, errlen, ATTEND_ENOMEM, "%s: no memory for the header", path);
}

int attend_safetensors_write(const char *path, const attend_named_array *a, int64_t n, char *err,
                             size_t errlen)
{
    struct header h = {.text = malloc(4096), .room = 4096};
    struct at_os_file *f;
    unsigned char length[8];
    int status = describe(&h, a, n, path, err, errlen);
    if (status == ATTEND_OK)
        status = at_os_file_new(&f, path, err, errlen);
    if (status == ATTEND_OK) {
        for (int b = 0; b < 8; b++)
            length[b] = (unsigned char)((uint64_t)h.length >> (8 * b));
        at_os_file_write(f, length, sizeof length);
        at_os_file_write(f, h.text, h.length);
        for (int64_t i = 0; i < n; i++)
            at_os_file_write(f, a[i].array.data, (size_t)a[i].array.bytes);
        status = at_os_file_finish(f, err, errlen);
    }
    free(h.text);
    return status;
}
