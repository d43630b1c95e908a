/* SPDX-License-Identifier: MIT */
/* A context: the caller's hooks or ours, threads, and the devices that were found. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/backend.h"
#include "env.h"
#include "os.h"

const char *attend_version(void)
{
    return "0.1.0";
}

void attend_ctx_opts_init(attend_ctx_opts *opts)
{
    *opts = (attend_ctx_opts){.size = sizeof *opts};
}

/* What was asked for, else ATTEND_THREADS, else the processors there are. */
static int thread_count(int asked)
{
    const char *env = at_env(AT_ENV_THREADS);
    if (asked <= 0 && env)
        asked = atoi(env);
    if (asked <= 0)
        asked = at_os_cpu_count();
    return asked < 1 ? 1 : asked > 1024 ? 1024 : asked;
}

static int start_threads(attend_ctx *ctx, const attend_ctx_opts *o)
{
    if (o->executor.parallel_for) {
        if (o->executor.slots < 1)
            return ATTEND_EINVAL;
        ctx->exec = o->executor;
        ctx->threads = o->executor.slots;
        return 0;
    }
    ctx->threads = thread_count(o->threads);
    int status = at_pool_new(ctx, ctx->threads, &ctx->pool);
    ctx->exec = (attend_executor){at_pool_for, ctx->pool, ctx->threads};
    return status;
}

static int probe_backends(attend_ctx *ctx, bool lazy)
{
    const char *only = at_env(AT_ENV_BACKEND);
    int status = 0;
    for (int i = 0; at_backends[i] && status == 0; i++)
        /* The reference is always there: what a backend lacks falls back on it. */
        if (at_backends[i]->lazy == lazy &&
            (!only || i == 0 || !strcmp(only, at_backends[i]->name)))
            status = at_backends[i]->probe(ctx);
    return status;
}

/* The lazy ones too.  Where memory is out, the devices are those that were found. */
static void complete(attend_ctx *ctx)
{
    at_os_mutex_lock(ctx->lock);
    if (!ctx->complete)
        probe_backends(ctx, true);
    ctx->complete = true;
    at_os_mutex_unlock(ctx->lock);
}

static int probe(attend_ctx *ctx)
{
    ctx->lock = at_os_mutex_new();
    ctx->device = at_calloc(ctx, AT_MAX_DEVICES, sizeof *ctx->device);
    if (!ctx->lock || !ctx->device)
        return ATTEND_ENOMEM;
    int status = probe_backends(ctx, false);
    if (status < 0)
        return status;
    ctx->neager = ctx->ndevice;
    for (int i = 0; i < ctx->ndevice; i++)
        if (ctx->device[i].present && ctx->device[i].automatic)
            ctx->chosen = i;
    return 0;
}

int attend_ctx_new(const attend_ctx_opts *opts, attend_ctx **out)
{
    attend_ctx_opts o;
    struct at_err err = {0};
    *out = NULL;
    attend_ctx_opts_init(&o);
    if (at_opts_take(&err, "attend_ctx_opts", &o, sizeof o, opts) < 0 ||
        !o.allocator.alloc != !o.allocator.free)
        return ATTEND_EINVAL;
    attend_ctx seed = {.mem = o.allocator}, *ctx = at_calloc(&seed, 1, sizeof *ctx);
    if (!ctx)
        return ATTEND_ENOMEM;
    ctx->mem = o.allocator;
    ctx->log = o.log;
    ctx->log_arg = o.log_arg;
    ctx->trace = o.trace;
    ctx->trace_arg = o.trace_arg;
    int status = start_threads(ctx, &o);
    if (status == 0)
        status = probe(ctx);
    if (status < 0) {
        attend_ctx_free(ctx);
        return status;
    }
    *out = ctx;
    return 0;
}

void attend_ctx_free(attend_ctx *ctx)
{
    if (!ctx)
        return;
    at_pool_free(ctx->pool);
    for (int i = 0; at_backends[i]; i++)
        if (at_backends[i]->leave)
            at_backends[i]->leave(ctx);
    at_os_mutex_free(ctx->lock);
    at_free(ctx, ctx->device);
    at_free(ctx, ctx);
}

int attend_ctx_threads(const attend_ctx *ctx)
{
    return ctx->threads;
}

void at_log(attend_ctx *ctx, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    if (!ctx->log)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    ctx->log(ctx->log_arg, line);
}

/* Listing devices finds them: under a lock, and nobody sees a device change. */
static void list(const attend_ctx *ctx)
{
    complete((attend_ctx *)(uintptr_t)ctx);
}

int attend_device_count(const attend_ctx *ctx)
{
    list(ctx);
    return ctx->ndevice;
}

int attend_device_get(const attend_ctx *ctx, int i, attend_device_info *out)
{
    list(ctx);
    if (i < 0 || i >= ctx->ndevice)
        return ATTEND_EINVAL;
    const struct at_device *d = &ctx->device[i];
    *out = (attend_device_info){d->name, d->detail, d->present, i == ctx->chosen};
    return 0;
}

int at_device_add(attend_ctx *ctx, const struct at_device *d)
{
    if (ctx->ndevice == AT_MAX_DEVICES)
        at_log(ctx, "device %s is left out: a context has at most %d", d->name, AT_MAX_DEVICES);
    else
        ctx->device[ctx->ndevice++] = *d;
    return 0;
}

/* Does `detail` contain `part`, whatever the case of its letters? */
static bool mentions(const char *detail, const char *part)
{
    for (; *detail; detail++) {
        int n = 0;
        while (part[n] && tolower((unsigned char)detail[n]) == tolower((unsigned char)part[n]))
            n++;
        if (!part[n])
            return true;
    }
    return false;
}

/* A device by its name, by that up to ':', or by that and part of what it is; an absent backend
 * also by the name of any device of it. */
static bool means(const struct at_device *d, const char *name)
{
    const char *colon = strchr(name, ':');
    size_t n = colon ? (size_t)(colon - name) : strlen(name);
    if (!strcmp(d->name, name))
        return true;
    if (strncmp(d->name, name, n) || (d->name[n] != ':' && d->name[n]))
        return false;
    if (!colon || (!d->present && !d->name[n]))
        return true;
    const bool number = !colon[1 + strspn(colon + 1, "0123456789")]; /* of a device: no part */
    return d->memory && !number && mentions(d->detail, colon + 1);
}

static const struct at_device *refuse_absent(const struct at_device *d, const char *name,
                                             struct at_err *e)
{
    at_fail(e, ATTEND_EUNSUPPORTED, "device '%s' cannot be used here: %s", name, d->detail);
    return NULL;
}

static const struct at_device *refuse_unknown(const attend_ctx *ctx, const char *name,
                                              struct at_err *e)
{
    char list[200] = "";
    for (int i = 0, n = 0; i < ctx->ndevice && n >= 0 && n < (int)sizeof list; i++)
        if (ctx->device[i].present)
            n += snprintf(list + n, sizeof list - (size_t)n, "%s%s", n ? ", " : "",
                          ctx->device[i].name);
    at_fail(e, ATTEND_EINVAL, "there is no device '%s'; here are %s", name, list);
    return NULL;
}

const struct at_device *at_device_find(attend_ctx *ctx, const char *name, struct at_err *e)
{
    const struct at_device *absent = NULL, *found = NULL;
    if (!name || !*name || !strcmp(name, "auto"))
        return &ctx->device[ctx->chosen];
    for (int pass = 0; pass < 2 && !found && !absent; pass++) {
        if (pass)
            complete(ctx);
        for (int i = 0, n = pass ? ctx->ndevice : ctx->neager; i < n; i++) {
            const struct at_device *d = &ctx->device[i];
            bool exact = !strcmp(d->name, name);
            if (!means(d, name))
                continue;
            if (!d->present)
                absent = d;
            else if (exact || !found || d->automatic) /* "simd" is the best of simd:... */
                found = d;
            if (exact)
                return d->present ? d : refuse_absent(d, name, e);
        }
    }
    if (found)
        return found;
    if (absent)
        return refuse_absent(absent, name, e);
    return refuse_unknown(ctx, name, e);
}
