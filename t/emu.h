/* SPDX-License-Identifier: MIT */
/* What the tests of CUDA share: the driver under test (the emulator of t/cuemu; or a real one that
 * ATTEND_CUEMU names, where settings do nothing and nothing is reported), NVRTC where there is one,
 * and short words for memory, modules and launches, which bail where the set-up is broken. */
#ifndef T_EMU_H
#define T_EMU_H

#include "cu.h"
#include "tap.h"

extern struct at_cu emu_cu;

/* Loads the driver and opens a device of compute capability cc; skips the whole test where the
 * emulator was not built.  May be called again, with another cc: all that was is gone. */
void emu_open(int cc);
void emu_close(void); /* releases the context: what leaked is reported */
/* A setting of the emulator, such as "CUEMU_ASYNC", "eager". */
void emu_set(const char *name, const char *value);
int emu_reports(void); /* since emu_fresh */
const char *emu_kind(void);
const char *emu_report(void);
unsigned long long emu_stat(const char *name);
unsigned long long emu_calls(void);
void emu_fresh(void); /* a new context, no reports */
void emu_clear(void); /* no reports */

cu_deviceptr emu_alloc(size_t size);
cu_deviceptr emu_upload(const void *data, size_t size);
cu_result emu_download(void *to, cu_deviceptr from, size_t size); /* also waits */

/* NULL with a diagnosis where it does not load; *status is the driver's. */
cu_module emu_load(const char *ptx, cu_result *status);
cu_function emu_function(cu_module m, const char *name);
/* In the legacy stream; then waits.  args: as many pointers as the kernel has parameters. */
cu_result emu_run(cu_function f, int blocks, int threads, int dynamic, void **args);

/* The compiler.  NULL: there is none; why says where it was looked for. */
const struct at_nvrtc *emu_nvrtc(const char **why);
/* PTX of a CUDA text, malloc'd; options end with NULL.  Bails where it does not compile. */
char *emu_compile(const struct at_nvrtc *c, const char *text, const char *const *options);

/* Do the arguments of a test ask for a variant on an architecture?  Numbers are architectures,
 * other words variants, a kind that is not there stands for all, and "all" for both; without any:
 * `quick`. */
bool emu_asked(int argc, char **argv, int cc, const char *variant, bool quick);

#endif
