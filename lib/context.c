/* SPDX-License-Identifier: MIT */
/* A context: the caller's hooks or ours, threads, and the devices that were found. */
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

static int probe(attend_ctx *ctx)
{
    const char *only = at_env(AT_ENV_BACKEND);
    for (int i = 0; at_backends[i]; i++) {
        /* The reference is always there: what a backend lacks falls back on it. */
        if (only && i > 0 && strcmp(only, at_backends[i]->name))
            continue;
        int status = at_backends[i]->probe(ctx);
        if (status < 0)
            return status;
    }
    for (int i = 0; i < ctx->ndevice; i++)
        if (ctx->device[i].present && ctx->device[i].automatic)
            ctx->chosen = i;
    return 0;
}

int attend_ctx_new(const attend_ctx_opts *opts, attend_ctx **out)
{
    attend_ctx_opts o;
    *out = NULL;
    attend_ctx_opts_init(&o);
    if (opts)
        memcpy(&o, opts, opts->size < sizeof o ? opts->size : sizeof o);
    if (!o.allocator.alloc != !o.allocator.free)
        return ATTEND_EINVAL;
    attend_ctx seed = {.mem = o.allocator}, *ctx = at_calloc(&seed, 1, sizeof *ctx);
    if (!ctx)
        return ATTEND_ENOMEM;
    ctx->mem = o.allocator;
    ctx->log = o.log;
    ctx->log_arg = o.log_arg;
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

int attend_device_count(const attend_ctx *ctx)
{
    return ctx->ndevice;
}

int attend_device_get(const attend_ctx *ctx, int i, attend_device_info *out)
{
    if (i < 0 || i >= ctx->ndevice)
        return ATTEND_EINVAL;
    const struct at_device *d = &ctx->device[i];
    *out = (attend_device_info){d->name, d->detail, d->present, i == ctx->chosen};
    return 0;
}

int at_device_add(attend_ctx *ctx, const struct at_device *d)
{
    if (!at_grow(ctx, (void **)&ctx->device, &ctx->cap_device, ctx->ndevice, sizeof *d))
        return ATTEND_ENOMEM;
    ctx->device[ctx->ndevice++] = *d;
    return 0;
}

const struct at_device *at_device_find(attend_ctx *ctx, const char *name, struct at_err *e)
{
    const struct at_device *absent = NULL, *found = NULL;
    if (!name || !*name || !strcmp(name, "auto"))
        return &ctx->device[ctx->chosen];
    size_t n = strlen(name);
    for (int i = 0; i < ctx->ndevice; i++) {
        const struct at_device *d = &ctx->device[i];
        bool exact = !strcmp(d->name, name);
        if (!exact && (strncmp(d->name, name, n) || d->name[n] != ':'))
            continue;
        if (!d->present)
            absent = d;
        else if (exact || !found || d->automatic) /* "simd" is the best of simd:... */
            found = d;
    }
    if (found)
        return found;
    if (absent)
        at_fail(e, ATTEND_EUNSUPPORTED, "device '%s' cannot be used here: %s", name,
                absent->detail);
    else
        at_fail(e, ATTEND_EINVAL, "there is no device '%s'", name);
    return NULL;
}
