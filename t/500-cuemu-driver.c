/* SPDX-License-Identifier: MIT */
/* The emulated driver: streams run late, events order them, misuse is reported, faults can be
 * injected at any call, and modules are refused for what real drivers refuse. */
#include "emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* add: x[i] += k */
static const char add_text[] = ".version 7.0\n.target sm_75\n.address_size 64\n"
                               ".visible .entry add(.param .u64 px, .param .u32 pk)\n{\n"
                               ".reg .b64 %rd<4>; .reg .b32 %r<4>;\n"
                               "ld.param.u64 %rd1, [px];\nld.param.u32 %r1, [pk];\n"
                               "mov.u32 %r2, %tid.x;\nmul.wide.u32 %rd2, %r2, 4;\n"
                               "add.s64 %rd3, %rd1, %rd2;\nld.global.u32 %r3, [%rd3];\n"
                               "add.s32 %r3, %r3, %r1;\nst.global.u32 [%rd3], %r3;\nret;\n}\n";

static cu_function add;
static cu_module module;

static void start(int cc)
{
    emu_open(cc);
    module = emu_load(add_text, NULL);
    add = emu_function(module, "add");
}

static cu_result launch(cu_deviceptr x, int k, int n, cu_stream s)
{
    void *args[] = {&x, &k};
    return emu_cu.launch(add, 1, 1, 1, (unsigned)n, 1, 1, 0, s, args, NULL);
}

static void test_late(void)
{
    cu_stream s = NULL;
    int host[4] = {1, 2, 3, 4}, back[4] = {0}, first;
    start(80);
    emu_cu.stream_create(&s, CU_STREAM_NON_BLOCKING);
    cu_deviceptr x = emu_alloc(sizeof host);
    emu_cu.copy_in(x, host, sizeof host, s);
    is_int(launch(x, 10, 4, s), 0, "a launch");
    emu_cu.copy_out(back, x, sizeof back, s);
    first = back[0];
    is_int(first, 0, "nothing has run before somebody waits");
    host[1] = 100; /* too early: the copy has not been made */
    is_int(emu_cu.stream_synchronize(s), 0, "waiting");
    is_int(back[0], 11, "now it has run");
    is_int(back[1], 110, "a host buffer that was used again too early is seen to be");
    emu_cu.stream_destroy(s);
    emu_cu.mem_free(x);
}

static void two_streams(bool wait)
{
    cu_stream s = NULL, t = NULL;
    cu_event v = NULL;
    int host[4] = {1, 2, 3, 4}, back[4] = {0};
    start(80);
    emu_cu.stream_create(&s, CU_STREAM_NON_BLOCKING);
    emu_cu.stream_create(&t, CU_STREAM_NON_BLOCKING);
    emu_cu.event_create(&v, CU_EVENT_DISABLE_TIMING);
    cu_deviceptr x = emu_upload(host, sizeof host);
    launch(x, 10, 4, s);
    emu_cu.event_record(v, s);
    if (wait)
        emu_cu.stream_wait(t, v, 0);
    emu_cu.copy_out(back, x, sizeof back, t);
    emu_cu.stream_synchronize(t);
    is_int(back[0], wait ? 11 : 1, "a stream that %s for the other",
           wait ? "waits" : "does not wait");
    cu_result first = emu_cu.event_query(v);
    is_int(first, wait ? 0 : CU_NOT_READY, "its event");
    while (emu_cu.event_query(v) == CU_NOT_READY)
        continue;
    ok(true, "who asks again and again sees it done");
}

static void test_events(void)
{
    two_streams(false);
    two_streams(true);
}

static void test_modules(void)
{
    cu_result r;
    start(80);
    emu_load("\177ELF and the rest of a cubin", &r);
    is_int(r, CU_NO_BINARY_FOR_GPU, "a cubin is refused: PTX must do");
    emu_load(
        ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry f()\n{\nfrobnicate.b32;\n}",
        &r);
    is_int(r, CU_INVALID_PTX, "an unknown opcode is an error");
    emu_load(
        ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry f()\n{\n.reg .b32 %r;\n"
        "add.sideways.s32 %r, 1, 2;\n}",
        &r);
    is_int(r, CU_INVALID_PTX, "an unknown modifier too");
    emu_load(".version 9.9\n.target sm_75\n.address_size 64\n", &r);
    is_int(r, CU_UNSUPPORTED_PTX_VERSION, "PTX newer than the driver");
    emu_set("CUEMU_DRIVER", "11080");
    emu_load(".version 8.0\n.target sm_75\n.address_size 64\n", &r);
    is_int(r, CU_UNSUPPORTED_PTX_VERSION, "and than an older driver");
    emu_set("CUEMU_DRIVER", "13000");
    emu_load(".version 8.0\n.target sm_90\n.address_size 64\n", &r);
    is_int(r, CU_NO_BINARY_FOR_GPU, "PTX of a newer architecture");
    emu_load(".version 8.0\n.target sm_75\n.address_size 64\n.visible .entry "
             "f()\n{\ncp.async.wait_all;\n}",
             &r);
    is_int(r, CU_INVALID_PTX, "an instruction that the target has not");
    emu_load(".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry "
             "f()\n{\ncp.async.wait_all;\n}",
             &r);
    is_int(r, 0, "and that it has");
    for (size_t n = 0; n < sizeof add_text - 1;
         n += 7) { /* truncated anywhere: refused, no crash */
        char *part = calloc(1, n + 1);
        memcpy(part, add_text, n);
        emu_load(part, &r);
        if (!r && n > 60 && n < sizeof add_text - 4)
            diag("%zu bytes load", n);
        free(part);
    }
    ok(true, "truncated modules");
}

static void kind_is(const char *want, const char *name)
{
    if (!ok(emu_reports() > 0 && !strcmp(emu_kind(), want), "%s", name))
        diag("%d reports, the last: %s: %s", emu_reports(), emu_kind(), emu_report());
    emu_fresh();
    module = emu_load(add_text, NULL);
    add = emu_function(module, "add");
}

static void test_misuse(void)
{
    start(80);
    cu_deviceptr x = emu_alloc(64);
    emu_cu.mem_free(x);
    emu_cu.mem_free(x);
    kind_is("API misuse", "memory freed twice");
    emu_cu.mem_free(12345);
    kind_is("API misuse", "memory freed that is none");
    x = emu_alloc(64);
    emu_cu.set8(x, 0, 64, NULL);
    launch(x, 1, 16, NULL);
    emu_cu.mem_free(x);
    kind_is("API misuse", "memory freed while a launch is queued");
    x = emu_alloc(64);
    emu_cu.copy_in(x + 60, add_text, 8, NULL);
    kind_is("API misuse", "a copy past the end");
    emu_cu.context_set(NULL);
    launch(x, 1, 16, NULL);
    kind_is("API misuse", "a launch with no context");
    launch(x, 1, 1025, NULL);
    kind_is("launch", "1025 threads");
    void *args[2] = {&x, NULL};
    emu_cu.launch(add, 1, 1, 1, 1, 1, 1, 0, NULL, args, NULL);
    kind_is("launch", "a parameter too few");
    emu_cu.launch(add, 1, 65536, 1, 1, 1, 1, 0, NULL, args, NULL);
    kind_is("launch", "a grid too large");
    int k = 0;
    void *both[2] = {&x, &k};
    emu_cu.launch(add, 1, 1, 1, 1, 1, 1, 60000, NULL, both, NULL);
    kind_is("launch", "more shared memory than was asked for");
    is_int(emu_cu.function_set(add, CU_FUNC_MAX_DYNAMIC, 200000), CU_INVALID_VALUE,
           "more than there is");
    is_int(emu_cu.function_set(add, CU_FUNC_MAX_DYNAMIC, 60000), 0, "as much as there is");
    x = emu_alloc(64);
    emu_close();
    ok(!strcmp(emu_kind(), "leak"), "what is left when the context is released");
}

static cu_result whole_program(void)
{
    cu_context c = NULL;
    cu_module m = NULL;
    cu_function f = NULL;
    cu_deviceptr x = 0;
    int host[4] = {1, 2, 3, 4}, k = 1;
    cu_result r = emu_cu.context_retain(&c, 0);
    if (r)
        return r;
    r = emu_cu.context_set(c);
    if (!r)
        r = emu_cu.module_load(&m, add_text, 0, NULL, NULL);
    if (!r)
        r = emu_cu.module_function(&f, m, "add");
    if (!r)
        r = emu_cu.mem_alloc(&x, sizeof host);
    if (!r)
        r = emu_cu.copy_in(x, host, sizeof host, NULL);
    void *args[] = {&x, &k};
    if (!r)
        r = emu_cu.launch(f, 1, 1, 1, 4, 1, 1, 0, NULL, args, NULL);
    if (!r)
        r = emu_cu.copy_out(host, x, sizeof host, NULL);
    cu_result wait = emu_cu.synchronize();
    r = r ? r : wait;
    if (x)
        emu_cu.mem_free(x);
    if (m)
        emu_cu.module_unload(m);
    emu_cu.context_release(0);
    return !r && host[3] != 5 ? -1 : r;
}

/* Every call can fail; the caller hears of it. */
static void test_injection(void)
{
    emu_open(80);
    emu_close();
    emu_set("CUEMU_FAIL", "");
    is_int(whole_program(), 0, "without faults");
    int n = (int)emu_calls(), heard = 0;
    for (int i = 1; i <= n; i++) {
        char text[32];
        snprintf(text, sizeof text, "*:%d", i);
        emu_set("CUEMU_FAIL", text);
        heard += whole_program() != 0;
        emu_set("CUEMU_FAIL", "");
        emu_open(80);
        emu_close();
    }
    ok(n > 8 && heard >= n - 3, "%d of %d injected faults were heard of", heard, n);
}

int main(void)
{
    test_late();
    test_events();
    test_modules();
    test_misuse();
    test_injection();
    return done_testing();
}
