/* SPDX-License-Identifier: MIT */
/* NVRTC: finding the one that suits the driver, and compiling with it. */
#include <stdio.h>
#include <string.h>

#include "cuda.h"
#include "env.h"

/* Newest first.  The wheels of PyPI and toolkits elsewhere are named by ATTEND_LIBNVRTC. */
static const char *const names[] = {
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so.11.2",
    "libnvrtc.so",
    "/usr/local/cuda/lib64/libnvrtc.so",
    "/opt/cuda/lib64/libnvrtc.so",
    "nvrtc64_130_0.dll",
    "nvrtc64_120_0.dll",
};

static bool take_functions(struct at_cuda_compiler *c)
{
#define TAKE(name, symbol, args)                                                                   \
    if (!at_os_lib_symbol(c->lib, #symbol, &c->nvrtc.name))                                        \
        return false;
    AT_NVRTC_LIST(TAKE)
#undef TAKE
    return true;
}

/* NVRTC looks for its other half by name alone, and not beside itself: where it was found in a
 * folder that the system does not search, what is already loaded serves. */
static void load_builtins(const char *name, int major, int minor)
{
    const char *end = strrchr(name, '/');
    char path[512], err[200];
    struct at_os_lib *lib;
    int n = end ? snprintf(path, sizeof path, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(end - name),
                           name, major, minor)
                : -1;
    if (n > 0 && n < (int)sizeof path && at_os_lib_open(&lib, path, err, sizeof err) == 0)
        at_os_lib_keep(lib);
}

bool at_cuda_compiler_open(struct at_cuda_compiler *c, const char *name)
{
    char err[200];
    int major = 0, minor = 0;
    if (at_os_lib_open(&c->lib, name, err, sizeof err) < 0) {
        c->lib = NULL;
        snprintf(c->why, sizeof c->why, "no NVRTC was found to compile kernels: %.140s", err);
        return false;
    }
    if (take_functions(c) && !c->nvrtc.version(&major, &minor)) {
        c->version = 1000 * major + 10 * minor;
        load_builtins(name, major, minor);
        return true;
    }
    snprintf(c->why, sizeof c->why, "%.120s is no NVRTC that can be used", name);
    at_os_lib_keep(c->lib);
    c->lib = NULL;
    return false;
}

/* A compiler newer than the driver makes PTX that the driver refuses, so one that is not newer is
 * taken first; where there is none, cubins of the newer may still run. */
void at_cuda_compiler_find(struct at_cuda_compiler *c, int driver)
{
    const char *asked = at_env(AT_ENV_LIBNVRTC);
    struct at_cuda_compiler newer = {.lib = NULL};
    if (asked) {
        at_cuda_compiler_open(c, asked);
        return;
    }
    for (int i = 0; i < AT_LEN(names); i++) {
        if (!at_cuda_compiler_open(c, names[i]))
            continue;
        if (c->version / 1000 <= driver / 1000) {
            at_os_lib_keep(newer.lib);
            return;
        }
        if (newer.lib)
            at_os_lib_keep(c->lib);
        else
            newer = *c;
        c->lib = NULL;
    }
    if (newer.lib)
        *c = newer;
    else
        snprintf(c->why, sizeof c->why,
                 "no NVRTC was found to compile kernels (%s, for one; %s can name it)", names[0],
                 at_env_name(AT_ENV_LIBNVRTC));
}

int at_cuda_compiler_target(const struct at_cuda_compiler *c, int capability)
{
    int n = 0, best = 0, arch[64];
    if (!c->lib || c->nvrtc.arch_count(&n) || n > AT_LEN(arch) || c->nvrtc.archs(arch))
        return 0;
    for (int i = 0; i < n; i++)
        if (arch[i] <= capability && arch[i] > best)
            best = arch[i];
    return best;
}

/* The first line of a log that says "error". */
static int compile_failed(struct at_cuda_device *d, nvrtc_program p, const char *arch,
                          struct at_err *e)
{
    const struct at_nvrtc *n = &d->compiler->nvrtc;
    size_t size = 0;
    n->log_size(p, &size);
    char *log = at_calloc(d->ctx, (int64_t)size + 1, 1);
    if (log && n->log(p, log))
        log[0] = 0;
    const char *line = log ? strstr(log, "error") : NULL;
    while (line && line > log && line[-1] != '\n')
        line--;
    if (log && log[0])
        at_log(d->ctx, "%s: build log: %.400s", d->device_name, log);
    int status = at_fail(e, ATTEND_EUNSUPPORTED, "%s: NVRTC for %s: %.*s", d->device_name, arch,
                         line ? (int)strcspn(line, "\n") : 6, line ? line : "no log");
    at_free(d->ctx, log);
    return status;
}

/* "-DDV=64 -DAT_B=0" as options of their own, in words. */
static int split_words(const char *options, char *words, size_t size, const char **option, int most)
{
    int n = 0;
    snprintf(words, size, "%s", options);
    for (char *p = words; *p && n < most;) {
        p += strspn(p, " ");
        if (!*p)
            break;
        option[n++] = p;
        p += strcspn(p, " ");
        if (*p)
            *p++ = 0;
    }
    return n;
}

/* What was compiled: a cubin where the architecture is a real one, else PTX with its NUL. */
static int take_output(struct at_cuda_device *d, nvrtc_program p, bool real, char **out,
                       size_t *bytes, struct at_err *e)
{
    const struct at_nvrtc *n = &d->compiler->nvrtc;
    int code = real ? n->cubin_size(p, bytes) : n->ptx_size(p, bytes);
    if (!code && *bytes) {
        *out = at_alloc(d->ctx, (int64_t)*bytes);
        if (!*out)
            return at_fail(e, ATTEND_ENOMEM, "no memory for a program");
        code = real ? n->cubin(p, *out) : n->ptx(p, *out);
    }
    if (!code && *bytes)
        return 0;
    at_free(d->ctx, *out);
    *out = NULL;
    return at_fail(e, ATTEND_EUNSUPPORTED, "%s: NVRTC gave no %s", d->device_name,
                   real ? "cubin" : "PTX");
}

int at_cuda_compile(struct at_cuda_device *d, const char *text, const char *options,
                    const char *arch, char **out, size_t *bytes, struct at_err *e)
{
    const struct at_nvrtc *n = &d->compiler->nvrtc;
    const char *option[24] = {NULL, "--std=c++17"};
    char target[48], words[sizeof((struct at_gpu_source *)0)->defines + 16];
    nvrtc_program p = NULL;
    *out = NULL;
    snprintf(target, sizeof target, "--gpu-architecture=%s", arch);
    option[0] = target;
    int count = 2 + split_words(options, words, sizeof words, option + 2, AT_LEN(option) - 2);
    if (n->create(&p, text, "attend.cu", 0, NULL, NULL))
        return at_fail(e, ATTEND_ENOMEM, "%s: nvrtcCreateProgram failed", d->device_name);
    int status = n->compile(p, count, option)
                     ? compile_failed(d, p, arch, e)
                     : take_output(d, p, !strncmp(arch, "sm_", 3), out, bytes, e);
    n->destroy(&p);
    return status;
}
