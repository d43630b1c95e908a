/* SPDX-License-Identifier: MIT */
/* Modules: PTX text is parsed; a cubin is refused, as by a device that it was not made for, so that
 * the caller's way back to PTX is walked in every test. */
#include "api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The buffers of CU_JIT_INFO_LOG_BUFFER (3) and CU_JIT_ERROR_LOG_BUFFER (5); sizes follow. */
static void log_to(unsigned n, const int *options, void **values, const char *text)
{
    char *buffer = NULL;
    size_t size = 0;
    for (unsigned i = 0; i < n; i++) {
        if (options[i] == 5)
            buffer = values[i];
        if (options[i] == 6)
            size = (size_t)(uintptr_t)values[i];
    }
    if (buffer && size)
        snprintf(buffer, size, "%s", text);
}

static int refuse(unsigned n, const int *options, void **values, int status, const char *text)
{
    log_to(n, options, values, text);
    if (!config.quiet)
        fprintf(stderr, "cuemu: module refused: %s\n", text);
    return status;
}

/* sm_90a runs on 9.0 alone; sm_100f on its family. */
static bool runs_on(const struct ptx_module *m, int cc)
{
    if (m->target_suffix == 'a')
        return m->target == cc;
    if (m->target_suffix == 'f')
        return m->target / 10 == cc / 10 && m->target <= cc;
    return m->target <= cc;
}

static int place_variables(struct module *m)
{
    struct ptx_module *p = m->ptx;
    m->allocs = calloc((size_t)p->nvars + 1, sizeof(struct alloc *));
    if (!m->allocs)
        return OUT_OF_MEMORY;
    for (int i = 0; i < p->nvars; i++) {
        struct ptx_var *v = p->vars[i];
        if (v->space != SP_GLOBAL && v->space != SP_CONST)
            continue;
        struct alloc *a = mem_new(v->size ? v->size : 1, m->context, true);
        if (!a)
            return OUT_OF_MEMORY;
        a->module_owned = true;
        a->constant = v->space == SP_CONST;
        if (v->init)
            memcpy(a->data, v->init, v->size);
        v->at = a->base;
        m->allocs[i] = a;
    }
    for (int i = 0; i < p->nvars; i++) {
        for (int k = 0; k < p->vars[i]->nrefs && m->allocs[i]; k++) {
            const struct ptx_ref *r = &p->vars[i]->refs[k];
            for (int j = 0; j < p->nvars; j++) {
                uint64_t at = p->vars[j]->at + (uint64_t)r->add;
                if (!strcmp(p->vars[j]->name, r->name) && r->where + 8 <= p->vars[i]->size)
                    memcpy(m->allocs[i]->data + r->where, &at, sizeof at);
            }
        }
    }
    return OK;
}

static int load(struct module **module, const char *image, unsigned n, const int *options,
                void **values)
{
    char text[600];
    if (!strncmp(image, "\177ELF", 4))
        return refuse(n, options, values, NO_BINARY_FOR_GPU,
                      "a cubin, and this device runs PTX only");
    struct ptx_module *ptx = ptx_parse(image, strlen(image), text, sizeof text);
    if (!ptx)
        return refuse(n, options, values, INVALID_PTX, text);
    int newest = ptx_version_of_driver(config.driver), version = ptx->version;
    if (version > newest) {
        snprintf(text, sizeof text, "PTX %d.%d is newer than %d.%d, the driver's", version / 10,
                 version % 10, newest / 10, newest % 10);
        ptx_free(ptx);
        return refuse(n, options, values, UNSUPPORTED_PTX_VERSION, text);
    }
    if (!runs_on(ptx, config.cc)) {
        snprintf(text, sizeof text, "PTX for sm_%d%c on a device of sm_%d", ptx->target,
                 ptx->target_suffix ? ptx->target_suffix : ' ', config.cc);
        ptx_free(ptx);
        return refuse(n, options, values, NO_BINARY_FOR_GPU, text);
    }
    struct module *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    *m = (struct module){.context = current, .ptx = ptx, .next = current->modules};
    current->modules = m;
    m->fns = calloc((size_t)ptx->nfns + 1, sizeof *m->fns);
    int status = m->fns ? place_variables(m) : OUT_OF_MEMORY;
    if (status) {
        module_free(m);
        return status;
    }
    for (int i = 0; i < ptx->nfns; i++)
        m->fns[i] = (struct function){.module = m, .fn = ptx->fns[i]};
    *module = m;
    return OK;
}

void module_free(struct module *m)
{
    struct module **at = &m->context->modules;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    for (int i = 0; m->allocs && i < m->ptx->nvars; i++) {
        if (m->allocs[i])
            mem_free(m->allocs[i]);
    }
    ptx_free(m->ptx);
    free(m->allocs);
    free(m->fns);
    free(m);
}

static struct module *module_checked(void *handle)
{
    for (struct module *m = current->modules; m; m = m->next) {
        if (m == handle)
            return m;
    }
    return NULL;
}

struct function *function_checked(void *handle)
{
    struct function *f = handle;
    for (struct module *m = current->modules; m; m = m->next) {
        if (f >= m->fns && f < m->fns + m->ptx->nfns)
            return f;
    }
    return NULL;
}

EXPORT int cuModuleLoadDataEx(void **module, const void *image, unsigned n, int *options,
                              void **values);
EXPORT int cuModuleLoadDataEx(void **module, const void *image, unsigned n, int *options,
                              void **values)
{
    int e = api_enter("cuModuleLoadDataEx", NEED_CONTEXT);
    if (e)
        return e;
    struct module *m = NULL;
    e = load(&m, image, n, options, values);
    *module = m;
    return api_leave(e);
}

EXPORT int cuModuleLoadData(void **module, const void *image);
EXPORT int cuModuleLoadData(void **module, const void *image)
{
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

static bool module_queued(const struct module *m)
{
    for (const struct stream *s = current->streams; s; s = s->next) {
        for (const struct work *w = s->first; w; w = w->next) {
            if (w->kind == WORK_LAUNCH && w->launch->module == m->ptx)
                return true;
        }
    }
    return false;
}

EXPORT int cuModuleUnload(void *module);
EXPORT int cuModuleUnload(void *module)
{
    int e = api_enter("cuModuleUnload", NEED_CONTEXT);
    if (e)
        return e;
    struct module *m = module_checked(module);
    if (!m)
        return api_leave(api_misuse(INVALID_HANDLE, "cuModuleUnload of what is no module"));
    if (module_queued(m)) {
        api_misuse(OK, "cuModuleUnload while queued work runs its kernels");
        stream_drain_all(current);
    }
    module_free(m);
    return api_leave(OK);
}

EXPORT int cuModuleGetFunction(void **function, void *module, const char *name);
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name)
{
    int e = api_enter("cuModuleGetFunction", NEED_CONTEXT);
    if (e)
        return e;
    struct module *m = module_checked(module);
    *function = NULL;
    if (!m)
        return api_leave(api_misuse(INVALID_HANDLE, "cuModuleGetFunction of what is no module"));
    for (int i = 0; i < m->ptx->nfns; i++) {
        if (m->ptx->fns[i]->is_entry && !strcmp(m->ptx->fns[i]->name, name))
            *function = &m->fns[i];
    }
    return api_leave(*function ? OK : NOT_FOUND);
}

EXPORT int cuModuleGetGlobal_v2(uint64_t *p, size_t *size, void *module, const char *name);
EXPORT int cuModuleGetGlobal_v2(uint64_t *p, size_t *size, void *module, const char *name)
{
    int e = api_enter("cuModuleGetGlobal", NEED_CONTEXT);
    if (e)
        return e;
    struct module *m = module_checked(module);
    if (!m)
        return api_leave(api_misuse(INVALID_HANDLE, "cuModuleGetGlobal of what is no module"));
    for (int i = 0; i < m->ptx->nvars; i++) {
        if (m->allocs[i] && !strcmp(m->ptx->vars[i]->name, name)) {
            if (p)
                *p = m->allocs[i]->base;
            if (size)
                *size = m->ptx->vars[i]->size;
            return api_leave(OK);
        }
    }
    return api_leave(NOT_FOUND);
}
