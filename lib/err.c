/* SPDX-License-Identifier: MIT */
/* Statuses, and the sentence that goes with one. */
#include "core.h"

#include <stdio.h>
#include <string.h>

/* No struct of options is that large: what is, was never set up. */
#define OPTS_MOST 65536

const char *attend_status_name(int status)
{
    static const char *const names[] = {
        "ATTEND_OK",         "ATTEND_EINVAL",  "ATTEND_ENOMEM",       "ATTEND_EIO",
        "ATTEND_EFORMAT",    "ATTEND_ELIMIT",  "ATTEND_EUNSUPPORTED", "ATTEND_ESTATE",
        "ATTEND_ECANCELLED", "ATTEND_EDEVICE",
    };
    return status <= 0 && status > -AT_LEN(names) ? names[-status] : "ATTEND_E?";
}

/* Cuts a sentence that did not fit at a whole UTF-8 character, so that it can still be printed. */
static void cut(char *text, size_t size, int wanted)
{
    if (size < 2 || wanted < 0 || (size_t)wanted < size)
        return;
    size_t last = size - 2; /* the last byte that fitted; then the start of its character */
    while (last > 0 && ((unsigned char)text[last] & 0xc0) == 0x80)
        last--;
    unsigned char lead = (unsigned char)text[last];
    size_t length = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (last + length > size - 1)
        text[last] = 0;
}

int at_fail(struct at_err *e, int status, const char *fmt, ...)
{
    if (e->status < 0)
        return e->status;
    va_list ap;
    va_start(ap, fmt);
    cut(e->text, sizeof e->text, vsnprintf(e->text, sizeof e->text, fmt, ap));
    va_end(ap);
    return e->status = status;
}

void at_err_clear(struct at_err *e)
{
    e->status = ATTEND_OK;
    e->text[0] = 0;
}

int at_say(char *err, size_t errlen, int status, const char *fmt, ...)
{
    if (errlen == 0)
        return status;
    va_list ap;
    va_start(ap, fmt);
    cut(err, errlen, vsnprintf(err, errlen, fmt, ap));
    va_end(ap);
    return status;
}

int at_opts_take(struct at_err *e, const char *name, void *own, size_t bytes, const void *opts)
{
    size_t size;
    if (!opts)
        return 0;
    memcpy(&size, opts, sizeof size);
    if (size < sizeof size || size > OPTS_MOST)
        return at_fail(e, ATTEND_EINVAL, "%s has size %zu: begin with %s_init, then change fields",
                       name, size, name);
    memcpy(own, opts, size < bytes ? size : bytes);
    return 0;
}
