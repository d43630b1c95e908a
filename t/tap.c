/* SPDX-License-Identifier: MIT */
/* tap.h: results to stdout, each line flushed, so that a crash loses none. */
#include "tap.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int planned = -1, done, failed;

static void say(const char *head, const char *fmt, va_list ap)
{
    fputs(head, stdout);
    vprintf(fmt, ap);
    putchar('\n');
    fflush(stdout);
}

static bool result(bool good, const char *fmt, va_list ap)
{
    char head[32];
    done++;
    failed += !good;
    snprintf(head, sizeof head, "%s %d - ", good ? "ok" : "not ok", done);
    say(head, fmt, ap);
    return good;
}

void plan(int count)
{
    planned = count;
    printf("1..%d\n", count);
    fflush(stdout);
}

bool ok(bool good, const char *name, ...)
{
    va_list ap;
    va_start(ap, name);
    result(good, name, ap);
    va_end(ap);
    return good;
}

bool is_int(int64_t got, int64_t want, const char *name, ...)
{
    va_list ap;
    if (got != want)
        diag("got: %" PRId64 "\n# want: %" PRId64, got, want);
    va_start(ap, name);
    result(got == want, name, ap);
    va_end(ap);
    return got == want;
}

bool is_str(const char *got, const char *want, const char *name, ...)
{
    bool good = got && want ? strcmp(got, want) == 0 : got == want;
    va_list ap;
    if (!good)
        diag("got: %s\n# want: %s", got ? got : "(null)", want ? want : "(null)");
    va_start(ap, name);
    result(good, name, ap);
    va_end(ap);
    return good;
}

bool is_float(double got, double want, double bound, const char *name, ...)
{
    bool good = got == want || (isnan(got) && isnan(want)) || fabs(got - want) <= bound;
    va_list ap;
    if (!good)
        diag("got: %.17g\n# want: %.17g\n# bound: %g", got, want, bound);
    va_start(ap, name);
    result(good, name, ap);
    va_end(ap);
    return good;
}

bool is_mem(const void *got, const void *want, size_t size, const char *name, ...)
{
    const unsigned char *a = got, *b = want;
    size_t i = 0;
    va_list ap;
    while (i < size && a[i] == b[i])
        i++;
    if (i < size)
        diag("got: 0x%02x\n# want: 0x%02x\n# at byte %zu of %zu", a[i], b[i], i, size);
    va_start(ap, name);
    result(i == size, name, ap);
    va_end(ap);
    return i == size;
}

void skip(const char *reason, ...)
{
    char head[32];
    va_list ap;
    snprintf(head, sizeof head, "ok %d # SKIP ", ++done);
    va_start(ap, reason);
    say(head, reason, ap);
    va_end(ap);
}

void skip_all(const char *reason, ...)
{
    va_list ap;
    va_start(ap, reason);
    if (done > 0)
        bail("skip_all after %d results", done);
    say("1..0 # SKIP ", reason, ap);
    va_end(ap);
    exit(0);
}

void bail(const char *reason, ...)
{
    va_list ap;
    va_start(ap, reason);
    say("Bail out! ", reason, ap);
    va_end(ap);
    exit(255);
}

void diag(const char *text, ...)
{
    va_list ap;
    va_start(ap, text);
    say("# ", text, ap);
    va_end(ap);
}

int done_testing(void)
{
    if (planned < 0)
        plan(done);
    if (failed > 0)
        diag("%d of %d failed", failed, done);
    if (planned != done)
        diag("%d results were planned, %d came", planned, done);
    return failed > 0 || planned != done;
}
