/* SPDX-License-Identifier: MIT */
#include "emu.h"

#include "core.h"
#include "cuda.h"
#include "env.h"
#include "os.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct at_cu emu_cu;
static struct at_os_lib *driver;
static cu_context context;
static int (*set)(const char *, const char *);
static int (*reports)(void);
static const char *(*last_report)(void);
static const char *(*last_kind)(void);
static void (*clear_reports)(void);
static unsigned long long (*stat)(const char *);
static unsigned long long (*calls)(void);
static cu_result (*reset)(cu_device);
static char last_function[64] = "?";

static void need(cu_result r, const char *what)
{
    if (r)
        bail("%s gave %d: %s", what, r, last_report());
}

/* ---- a real driver, in the place of the emulator: t/gpu-conformance ---- */

static int no_setting(const char *name, const char *value)
{
    (void)name, (void)value;
    return 0;
}

static int no_reports(void)
{
    return 0;
}

static const char *no_text(void)
{
    return "";
}

static void no_clear(void)
{
}

static unsigned long long no_stat(const char *name)
{
    (void)name;
    return 0;
}

static unsigned long long no_calls(void)
{
    return 0;
}

static void be_real(void)
{
    set = no_setting;
    reports = no_reports;
    last_report = last_kind = no_text;
    clear_reports = no_clear;
    stat = no_stat;
    calls = no_calls;
    if (!at_os_lib_symbol(driver, "cuDevicePrimaryCtxReset_v2", &reset))
        bail("the driver has no cuDevicePrimaryCtxReset_v2");
}

static void need_capability(int cc)
{
    int major = 0, minor = 0;
    need(emu_cu.device_attribute(&major, CU_CAPABILITY_MAJOR, 0), "cuDeviceGetAttribute");
    need(emu_cu.device_attribute(&minor, CU_CAPABILITY_MINOR, 0), "cuDeviceGetAttribute");
    if (10 * major + minor < cc)
        skip_all("the device is of compute capability %d.%d, this needs %d.%d", major, minor,
                 cc / 10, cc % 10);
}

static void load_driver(void)
{
    char err[256];
    const char *name = at_env(AT_ENV_CUEMU);
    if (!name)
        skip_all("ATTEND_CUEMU does not name the emulator");
    if (at_os_lib_open(&driver, name, err, sizeof err))
        skip_all("the emulator of CUDA's driver does not load: %s", err);
#define TAKE(member, symbol, args)                                                                 \
    if (!at_os_lib_symbol(driver, #symbol, &emu_cu.member))                                        \
        bail("the driver has no " #symbol);
    AT_CU_LIST(TAKE)
#undef TAKE
    if (!at_os_lib_symbol(driver, "cuemu_set", &set)) {
        be_real();
        return;
    }
    if (!at_os_lib_symbol(driver, "cuemu_reports", &reports) ||
        !at_os_lib_symbol(driver, "cuemu_last_report", &last_report) ||
        !at_os_lib_symbol(driver, "cuemu_last_kind", &last_kind) ||
        !at_os_lib_symbol(driver, "cuemu_clear_reports", &clear_reports) ||
        !at_os_lib_symbol(driver, "cuemu_stat", &stat) ||
        !at_os_lib_symbol(driver, "cuemu_calls", &calls) ||
        !at_os_lib_symbol(driver, "cuDevicePrimaryCtxReset_v2", &reset))
        bail("%s is not the emulator", name);
}

static void open_context(void)
{
    need(emu_cu.context_retain(&context, 0), "cuDevicePrimaryCtxRetain");
    need(emu_cu.context_set(context), "cuCtxSetCurrent");
}

void emu_open(int cc)
{
    char text[16];
    if (!driver)
        load_driver();
    snprintf(text, sizeof text, "%d", cc);
    if (context)
        reset(0);
    set("CUEMU_CC", text);
    set("CUEMU_QUIET", "1");
    need(emu_cu.init(0), "cuInit");
    if (set == no_setting)
        need_capability(cc);
    clear_reports();
    open_context();
}

void emu_close(void)
{
    if (context)
        emu_cu.context_release(0);
    context = NULL;
}

void emu_fresh(void)
{
    reset(0);
    clear_reports();
    open_context();
}

void emu_clear(void)
{
    clear_reports();
}

void emu_set(const char *name, const char *value)
{
    set(name, value);
}

int emu_reports(void)
{
    return reports();
}

const char *emu_kind(void)
{
    return last_kind();
}

const char *emu_report(void)
{
    return last_report();
}

unsigned long long emu_stat(const char *name)
{
    return stat(name);
}

unsigned long long emu_calls(void)
{
    return calls();
}

cu_deviceptr emu_alloc(size_t size)
{
    cu_deviceptr p = 0;
    need(emu_cu.mem_alloc(&p, size), "cuMemAlloc");
    return p;
}

cu_deviceptr emu_upload(const void *data, size_t size)
{
    cu_deviceptr p = emu_alloc(size);
    need(emu_cu.copy_in(p, data, size, NULL), "cuMemcpyHtoDAsync");
    need(emu_cu.stream_synchronize(NULL), "cuStreamSynchronize");
    return p;
}

/* A line for what a kernel gave: its name, and the bytes as words. */
static void record(const char *file, const void *data, size_t size)
{
    FILE *f = fopen(file, "a");
    if (!f)
        bail("%s cannot be written", file);
    fputs(last_function, f);
    for (size_t i = 0; i + 4 <= size; i += 4) {
        uint32_t word;
        memcpy(&word, (const char *)data + i, 4);
        fprintf(f, " %08x", word);
    }
    fputc('\n', f);
    fclose(f);
}

cu_result emu_download(void *to, cu_deviceptr from, size_t size)
{
    const char *file = at_env(AT_ENV_RECORD);
    cu_result r = emu_cu.copy_out(to, from, size, NULL);
    if (!r)
        r = emu_cu.stream_synchronize(NULL);
    if (!r && file)
        record(file, to, size);
    return r;
}

cu_module emu_load(const char *ptx, cu_result *status)
{
    char log[600] = "";
    cu_module m = NULL;
    int options[2] = {CU_JIT_ERROR_LOG, CU_JIT_ERROR_LOG_SIZE};
    void *values[2] = {log, (void *)sizeof log};
    cu_result r = emu_cu.module_load(&m, ptx, 2, options, values);
    if (status)
        *status = r;
    else if (r)
        diag("the module does not load (%d): %s", r, log);
    return m;
}

cu_function emu_function(cu_module m, const char *name)
{
    cu_function f = NULL;
    if (!m || emu_cu.module_function(&f, m, name))
        bail("there is no kernel %s", name);
    snprintf(last_function, sizeof last_function, "%s", name);
    return f;
}

cu_result emu_run(cu_function f, int blocks, int threads, int dynamic, void **args)
{
    cu_result r = emu_cu.launch(f, (unsigned)blocks, 1, 1, (unsigned)threads, 1, 1,
                                (unsigned)dynamic, NULL, args, NULL);
    return r ? r : emu_cu.synchronize();
}

/* ---- NVRTC ---- */

const struct at_nvrtc *emu_nvrtc(const char **why)
{
    static struct at_cuda_compiler c;
    if (!c.lib)
        at_cuda_compiler_find(&c, INT_MAX); /* newer than any: the first that is found */
    *why = c.why;
    return c.lib ? &c.nvrtc : NULL;
}

char *emu_compile(const struct at_nvrtc *c, const char *text, const char *const *options)
{
    nvrtc_program p = NULL;
    int n = 0;
    while (options[n])
        n++;
    if (c->create(&p, text, "test.cu", 0, NULL, NULL))
        bail("nvrtcCreateProgram failed");
    if (c->compile(p, n, options)) {
        char log[4000] = "";
        size_t size = 0;
        if (!c->log_size(p, &size) && size < sizeof log)
            c->log(p, log);
        bail("NVRTC: %s", log);
    }
    size_t size = 0;
    char *ptx = c->ptx_size(p, &size) ? NULL : malloc(size + 1);
    if (!ptx || c->ptx(p, ptx))
        bail("nvrtcGetPTX failed");
    ptx[size] = 0;
    c->destroy(&p);
    return ptx;
}

bool emu_asked(int argc, char **argv, int cc, const char *variant, bool quick)
{
    bool archs = false, names = false, arch = false, name = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "all"))
            return true;
        if (!strncmp(argv[i], "-o", 2))
            continue;
        int number = atoi(argv[i]);
        archs = archs || number > 0;
        arch = arch || number == cc;
        names = names || !number;
        name = name || !strcmp(argv[i], variant);
    }
    return archs || names ? (arch || !archs) && (name || !names) : quick;
}
