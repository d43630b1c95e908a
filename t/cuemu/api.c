/* SPDX-License-Identifier: MIT */
/* The gate of every entry point, and what concerns no object: initialisation, devices, errors. */
#include "api.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool initialised, configured;
static uint64_t calls;
static int late; /* an injected status for the end of this call */
static struct {
    char name[64];
    uint64_t count;
} counts[128];
static int ncounts;

uint64_t api_calls(void)
{
    return calls;
}

static uint64_t count_of(const char *name)
{
    for (int i = 0; i < ncounts; i++) {
        if (!strcmp(counts[i].name, name))
            return ++counts[i].count;
    }
    if (ncounts == (int)(sizeof counts / sizeof *counts))
        return 0;
    snprintf(counts[ncounts].name, sizeof counts[ncounts].name, "%s", name);
    return counts[ncounts++].count = 1;
}

/* CUEMU_FAIL: name:n or name:n:status, separated by commas; the n-th call of name (or of any, "*")
 * fails. */
static int injected(const char *name, uint64_t nth)
{
    char list[512];
    snprintf(list, sizeof list, "%s", config.fail ? config.fail : "");
    for (char *save, *item = strtok_r(list, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        char which[64];
        unsigned long long n = 0;
        int status = 0;
        if (sscanf(item, "%63[^:]:%llu:%d", which, &n, &status) < 2)
            continue;
        if ((!strcmp(which, "*") && n == calls) || (!strcmp(which, name) && n == nth))
            return status ? status : strstr(name, "Alloc") ? OUT_OF_MEMORY : UNKNOWN;
    }
    return OK;
}

/* What gives something back does so even when it fails: the error may be of earlier work. */
static bool gives_back(const char *name)
{
    return strstr(name, "Free") || strstr(name, "Destroy") || strstr(name, "Unload") ||
           strstr(name, "Release");
}

int api_enter(const char *name, int needs)
{
    pthread_mutex_lock(&lock);
    if (!configured) {
        config_read();
        configured = true;
    }
    calls++;
    int status = injected(name, count_of(name));
    late = gives_back(name) ? status : OK;
    if (late)
        status = OK;
    if (!status && needs >= NEED_INIT && !initialised)
        status = NOT_INITIALIZED;
    if (!status && needs >= NEED_CONTEXT) {
        if (!current)
            status = api_misuse(INVALID_CONTEXT, "%s without a current context", name);
        else if (!context_checked(current))
            status = api_misuse(CONTEXT_IS_DESTROYED, "%s with a context that was released", name);
        else
            status = current->sticky;
    }
    if (status)
        pthread_mutex_unlock(&lock);
    return status;
}

int api_leave(int status)
{
    if (!status)
        status = late;
    late = OK;
    pthread_mutex_unlock(&lock);
    return status;
}

int api_misuse(int status, const char *format, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    report(FAULT_API, "%s", text);
    return status;
}

/* ---- initialisation, version, devices ---- */

EXPORT int cuInit(unsigned flags);
EXPORT int cuInit(unsigned flags)
{
    int e = api_enter("cuInit", NEED_NOTHING);
    if (e)
        return e;
    if (flags)
        return api_leave(INVALID_VALUE);
    if (!arch_of(config.cc)) {
        fprintf(stderr, "cuemu: CUEMU_CC=%d is not simulated\n", config.cc);
        return api_leave(100); /* NO_DEVICE */
    }
    initialised = true;
    return api_leave(OK);
}

EXPORT int cuDriverGetVersion(int *version);
EXPORT int cuDriverGetVersion(int *version)
{
    int e = api_enter("cuDriverGetVersion", NEED_NOTHING);
    if (e)
        return e;
    *version = config.driver;
    return api_leave(OK);
}

EXPORT int cuDeviceGetCount(int *count);
EXPORT int cuDeviceGetCount(int *count)
{
    int e = api_enter("cuDeviceGetCount", NEED_INIT);
    if (e)
        return e;
    *count = 1;
    return api_leave(OK);
}

EXPORT int cuDeviceGet(int *device, int ordinal);
EXPORT int cuDeviceGet(int *device, int ordinal)
{
    int e = api_enter("cuDeviceGet", NEED_INIT);
    if (e)
        return e;
    *device = 0;
    return api_leave(ordinal ? INVALID_DEVICE : OK);
}

EXPORT int cuDeviceGetName(char *name, int size, int device);
EXPORT int cuDeviceGetName(char *name, int size, int device)
{
    int e = api_enter("cuDeviceGetName", NEED_INIT);
    if (e)
        return e;
    if (device || size < 1)
        return api_leave(device ? INVALID_DEVICE : INVALID_VALUE);
    snprintf(name, (size_t)size, "%s", arch_of(config.cc)->name);
    return api_leave(OK);
}

EXPORT int cuDeviceGetUuid_v2(unsigned char *uuid, int device);
EXPORT int cuDeviceGetUuid_v2(unsigned char *uuid, int device)
{
    int e = api_enter("cuDeviceGetUuid", NEED_INIT);
    if (e)
        return e;
    memcpy(uuid, "attend cuemu sm ", 16);
    uuid[15] = (unsigned char)config.cc;
    return api_leave(device ? INVALID_DEVICE : OK);
}

EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device);
EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
    int e = api_enter("cuDeviceTotalMem", NEED_INIT);
    if (e)
        return e;
    *bytes = (size_t)config.memory << 20;
    return api_leave(device ? INVALID_DEVICE : OK);
}

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device);
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    int e = api_enter("cuDeviceGetAttribute", NEED_INIT);
    if (e)
        return e;
    return api_leave(device ? INVALID_DEVICE
                            : arch_attribute(arch_of(config.cc), attribute, value));
}

/* ---- names of errors ---- */

static const struct {
    int status;
    const char *name, *text;
} errors[] = {
    {OK,                      "CUDA_SUCCESS",                       "no error"                                },
    {INVALID_VALUE,           "CUDA_ERROR_INVALID_VALUE",           "invalid argument"                        },
    {OUT_OF_MEMORY,           "CUDA_ERROR_OUT_OF_MEMORY",           "out of memory"                           },
    {NOT_INITIALIZED,         "CUDA_ERROR_NOT_INITIALIZED",         "initialization error"                    },
    {100,                     "CUDA_ERROR_NO_DEVICE",               "no CUDA-capable device is detected"      },
    {INVALID_DEVICE,          "CUDA_ERROR_INVALID_DEVICE",          "invalid device ordinal"                  },
    {INVALID_CONTEXT,         "CUDA_ERROR_INVALID_CONTEXT",         "invalid device context"                  },
    {NO_BINARY_FOR_GPU,       "CUDA_ERROR_NO_BINARY_FOR_GPU",       "no kernel image is available"            },
    {INVALID_PTX,             "CUDA_ERROR_INVALID_PTX",             "a PTX JIT compilation failed"            },
    {UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain"                                            },
    {INVALID_HANDLE,          "CUDA_ERROR_INVALID_HANDLE",          "invalid resource handle"                 },
    {NOT_FOUND,               "CUDA_ERROR_NOT_FOUND",               "named symbol not found"                  },
    {NOT_READY,               "CUDA_ERROR_NOT_READY",               "device not ready"                        },
    {ILLEGAL_ADDRESS,         "CUDA_ERROR_ILLEGAL_ADDRESS",         "an illegal memory access was encountered"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"                                                                },
    {LAUNCH_TIMEOUT,          "CUDA_ERROR_LAUNCH_TIMEOUT",          "the launch timed out and was terminated" },
    {CONTEXT_IS_DESTROYED,    "CUDA_ERROR_CONTEXT_IS_DESTROYED",    "context is destroyed"                    },
    {MISALIGNED_ADDRESS,      "CUDA_ERROR_MISALIGNED_ADDRESS",      "misaligned address"                      },
    {LAUNCH_FAILED,           "CUDA_ERROR_LAUNCH_FAILED",           "unspecified launch failure"              },
    {UNKNOWN,                 "CUDA_ERROR_UNKNOWN",                 "unknown error"                           }
};

static int describe(int status, const char **name, const char **text)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (errors[i].status == status) {
            *name = errors[i].name;
            *text = errors[i].text;
            return OK;
        }
    }
    *name = *text = NULL;
    return INVALID_VALUE;
}

EXPORT int cuGetErrorName(int status, const char **name);
EXPORT int cuGetErrorName(int status, const char **name)
{
    const char *text;
    return describe(status, name, &text);
}

EXPORT int cuGetErrorString(int status, const char **text);
EXPORT int cuGetErrorString(int status, const char **text)
{
    const char *name;
    return describe(status, &name, text);
}

/* NVRTC from 12.9 on looks for a driver, and calls this without looking whether it is there. */
EXPORT int cuGetExportTable(const void **table, const void *id);
EXPORT int cuGetExportTable(const void **table, const void *id)
{
    (void)id;
    *table = NULL;
    return NOT_FOUND;
}

/* ---- for tests: settings and reports ---- */

EXPORT int cuemu_set(const char *name, const char *value);
EXPORT int cuemu_set(const char *name, const char *value)
{
    pthread_mutex_lock(&lock);
    if (!configured)
        config_read();
    configured = true;
    bool known = config_set(name, value);
    if (!strcmp(name, "CUEMU_FAIL")) { /* counts begin anew */
        calls = 0;
        ncounts = 0;
    }
    return api_leave(known ? OK : INVALID_VALUE);
}

EXPORT int cuemu_reports(void);
EXPORT int cuemu_reports(void)
{
    return report_count();
}

EXPORT const char *cuemu_last_report(void);
EXPORT const char *cuemu_last_report(void)
{
    return report_last();
}

EXPORT const char *cuemu_last_kind(void);
EXPORT const char *cuemu_last_kind(void)
{
    return fault_name(report_last_kind());
}

EXPORT void cuemu_clear_reports(void);
EXPORT void cuemu_clear_reports(void)
{
    report_reset();
}

EXPORT unsigned long long cuemu_calls(void);
EXPORT unsigned long long cuemu_calls(void)
{
    return api_calls();
}

/* A counter of the last launch, by the name that stats_write gives it or by an opcode. */
EXPORT unsigned long long cuemu_stat(const char *name);
EXPORT unsigned long long cuemu_stat(const char *name)
{
    const struct stats *s = &last_stats;
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"instructions",     s->instructions    },
        {"lanes",            s->lanes           },
        {"divergent",        s->divergent       },
        {"blocks",           s->blocks          },
        {"barriers",         s->barriers        },
        {"mufu",             s->mufu            },
        {"mma_flops",        s->mma_flops       },
        {"wavefronts",       s->wavefronts      },
        {"wavefronts_ideal", s->wavefronts_ideal},
        {"shared_bytes",     s->shared_bytes    },
        {"sectors",          s->sectors         },
        {"sectors_ideal",    s->sectors_ideal   },
        {"global_bytes",     s->global_bytes    }
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (!strcmp(fields[i].name, name))
            return fields[i].value;
    }
    const struct ptx_opcode *oc = ptx_opcode_find(name);
    return oc ? s->op[oc->op] : 0;
}
