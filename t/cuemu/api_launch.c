/* SPDX-License-Identifier: MIT */
/* Functions and launches: everything that can be wrong with a launch is looked at when it is
 * asked for; the work itself is queued. */
#include "api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SHARED 49152

struct stats last_stats;

static const struct arch *device(void)
{
    return arch_of(config.cc);
}

static int max_threads(const struct ptx_fn *fn)
{
    const int *d = fn->reqntid[0] ? fn->reqntid : fn->maxntid;
    return d[0] ? d[0] * d[1] * d[2] : 1024;
}

/* ---- attributes ---- */

static int attribute(const struct function *f, int which, int *value)
{
    switch (which) { /* CU_FUNC_ATTRIBUTE_... */
    case 0:
        *value = max_threads(f->fn);
        return OK;
    case 1:
        *value = (int)f->fn->shared_size;
        return OK;
    case 2:
        *value = 0;
        return OK;
    case 3:
        *value = (int)f->fn->local_size;
        return OK;
    case 4:
        *value = 32;
        return OK; /* only ptxas knows */
    case 5:
        *value = f->module->ptx->version;
        return OK;
    case 6:
        *value = config.cc;
        return OK;
    case 8:
        *value = f->dynamic_limit ? f->dynamic_limit : DEFAULT_SHARED - (int)f->fn->shared_size;
        return OK;
    case 9:
        *value = -1;
        return OK;
    default:
        return INVALID_VALUE;
    }
}

EXPORT int cuFuncGetAttribute(int *value, int which, void *function);
EXPORT int cuFuncGetAttribute(int *value, int which, void *function)
{
    int e = api_enter("cuFuncGetAttribute", NEED_CONTEXT);
    if (e)
        return e;
    const struct function *f = function_checked(function);
    return api_leave(f ? attribute(f, which, value)
                       : api_misuse(INVALID_HANDLE, "an attribute of what is no function"));
}

EXPORT int cuFuncSetAttribute(void *function, int which, int value);
EXPORT int cuFuncSetAttribute(void *function, int which, int value)
{
    int e = api_enter("cuFuncSetAttribute", NEED_CONTEXT);
    if (e)
        return e;
    struct function *f = function_checked(function);
    if (!f)
        return api_leave(api_misuse(INVALID_HANDLE, "an attribute of what is no function"));
    if (which == 9)
        return api_leave(OK);
    if (which != 8 || value < 0 || value + (int)f->fn->shared_size > device()->smem_block_optin)
        return api_leave(INVALID_VALUE);
    f->dynamic_limit = value;
    return api_leave(OK);
}

EXPORT int cuFuncGetParamInfo(void *function, size_t index, size_t *offset, size_t *size);
EXPORT int cuFuncGetParamInfo(void *function, size_t index, size_t *offset, size_t *size)
{
    int e = api_enter("cuFuncGetParamInfo", NEED_CONTEXT);
    if (e)
        return e;
    const struct function *f = function_checked(function);
    if (!f || index >= (size_t)f->fn->nparams)
        return api_leave(INVALID_VALUE);
    *offset = f->fn->params[index]->at;
    if (size)
        *size = f->fn->params[index]->size;
    return api_leave(OK);
}

EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *function, int threads,
                                                       size_t dynamic);
EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *function, int threads,
                                                       size_t dynamic)
{
    int e = api_enter("cuOccupancyMaxActiveBlocksPerMultiprocessor", NEED_CONTEXT);
    if (e)
        return e;
    const struct function *f = function_checked(function);
    const struct arch *a = device();
    if (!f || threads < 1)
        return api_leave(INVALID_VALUE);
    int shared = (int)(f->fn->shared_size + dynamic) + a->smem_reserved;
    int by_threads = a->threads_sm / ((threads + WARP - 1) / WARP * WARP);
    int by_shared = shared ? a->smem_sm / shared : a->blocks_sm;
    *n = by_threads < by_shared ? by_threads : by_shared;
    if (*n > a->blocks_sm)
        *n = a->blocks_sm;
    return api_leave(OK);
}

/* ---- launches ---- */

static int illegal(const struct function *f, int status, const char *what, uint64_t have,
                   uint64_t most)
{
    report(FAULT_LAUNCH, "kernel %s: %s %llu, at most %llu", f->fn->name, what,
           (unsigned long long)have, (unsigned long long)most);
    return status;
}

static int check_shape(const struct function *f, const unsigned grid[3], const unsigned dim[3])
{
    static const unsigned most_grid[3] = {0x7fffffff, 65535, 65535}, most_dim[3] = {1024, 1024, 64};
    uint64_t threads = (uint64_t)dim[0] * dim[1] * dim[2],
             blocks = (uint64_t)grid[0] * grid[1] * grid[2];
    for (int i = 0; i < 3; i++) {
        if (!grid[i] || grid[i] > most_grid[i])
            return illegal(f, INVALID_VALUE, "blocks of the grid along an axis:", grid[i],
                           most_grid[i]);
        if (!dim[i] || dim[i] > most_dim[i])
            return illegal(f, INVALID_VALUE, "threads of a block along an axis:", dim[i],
                           most_dim[i]);
    }
    if (threads > (uint64_t)max_threads(f->fn))
        return illegal(f, INVALID_VALUE, "threads of a block:", threads,
                       (uint64_t)max_threads(f->fn));
    for (int i = 0; i < 3; i++) {
        if (f->fn->reqntid[0] && (int)dim[i] != f->fn->reqntid[i])
            return illegal(f, INVALID_VALUE, "the kernel requires another block shape:", dim[i],
                           (uint64_t)f->fn->reqntid[i]);
    }
    if (blocks > 0xffffffffu)
        return illegal(f, INVALID_VALUE, "blocks:", blocks, 0xffffffffu);
    return OK;
}

static int check_shared(const struct function *f, unsigned dynamic)
{
    uint64_t all = (uint64_t)f->fn->shared_size + dynamic;
    int limit = f->dynamic_limit ? f->dynamic_limit + (int)f->fn->shared_size : DEFAULT_SHARED;
    if (limit > device()->smem_block_optin)
        limit = device()->smem_block_optin;
    if (limit < DEFAULT_SHARED)
        limit = DEFAULT_SHARED;
    return all > (uint64_t)limit
               ? illegal(f, INVALID_VALUE, "bytes of shared memory:", all, (uint64_t)limit)
               : OK;
}

void launch_drop(struct launch *l)
{
    free((uint8_t *)(uintptr_t)l->params);
    free((uint8_t *)(uintptr_t)l->param_state);
    free(l);
}

/* The parameters as they are now: from an array of pointers, or from one buffer whose size must be
 * the kernel's (CU_LAUNCH_PARAM_BUFFER_POINTER 1, _SIZE 2, _END 0). */
static int copy_params(const struct function *f, uint8_t *to, void **params, void **extra)
{
    if (extra) {
        const void *buffer = NULL;
        size_t size = 0;
        for (int i = 0; extra[i]; i += 2) {
            if (extra[i] == (void *)1)
                buffer = extra[i + 1];
            else if (extra[i] == (void *)2)
                size = *(size_t *)extra[i + 1];
        }
        if (!buffer || size != f->fn->param_size)
            return illegal(f, INVALID_VALUE, "bytes of parameters, which must be exact:", size,
                           f->fn->param_size);
        memcpy(to, buffer, size);
        return OK;
    }
    for (int i = 0; i < f->fn->nparams; i++) {
        const struct ptx_var *v = f->fn->params[i];
        if (!params || !params[i])
            return illegal(f, INVALID_VALUE, "a parameter is NULL; there are", (uint64_t)i,
                           (uint64_t)f->fn->nparams);
        memcpy(to + v->at, params[i], v->size);
    }
    return OK;
}

int launch_execute(struct launch *l)
{
    int status = launch_run(l);
    last_stats = l->stats;
    launch_drop(l);
    return status;
}

static int enqueue(const struct function *f, struct stream *s, const unsigned grid[3],
                   const unsigned dim[3], unsigned dynamic, void **params, void **extra)
{
    struct launch *l = calloc(1, sizeof *l);
    uint8_t *bytes = calloc(1, f->fn->param_size + 16u), *state = malloc(f->fn->param_size + 16u);
    if (!l || !bytes || !state)
        abort();
    memset(state, 1, f->fn->param_size + 16u);
    l->module = f->module->ptx;
    l->fn = f->fn;
    l->owner = current;
    l->dynamic = dynamic;
    l->params = bytes;
    l->param_state = state;
    for (int i = 0; i < 3; i++) {
        l->grid[i] = grid[i];
        l->dim[i] = dim[i];
    }
    int e = copy_params(f, bytes, params, extra);
    if (!e)
        e = stream_add(s, (struct work){.kind = WORK_LAUNCH, .launch = l});
    if (e)
        launch_drop(l);
    return e;
}

EXPORT int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                          unsigned by, unsigned bz, unsigned dynamic, void *stream, void **params,
                          void **extra);
EXPORT int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                          unsigned by, unsigned bz, unsigned dynamic, void *stream, void **params,
                          void **extra)
{
    int e = api_enter("cuLaunchKernel", NEED_CONTEXT);
    if (e)
        return e;
    const struct function *f = function_checked(function);
    struct stream *s = stream_checked(stream);
    if (!f || !s)
        return api_leave(
            api_misuse(INVALID_HANDLE, "cuLaunchKernel of what is no function, or in no stream"));
    const unsigned grid[3] = {gx, gy, gz}, dim[3] = {bx, by, bz};
    e = check_shape(f, grid, dim);
    if (!e)
        e = check_shared(f, dynamic);
    return api_leave(e ? e : enqueue(f, s, grid, dim, dynamic, params, extra));
}
