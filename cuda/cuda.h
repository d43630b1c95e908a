/* SPDX-License-Identifier: MIT */
/* The CUDA backend inside: the driver and the compiler that were found, and the devices. */
#ifndef AT_CUDA_H
#define AT_CUDA_H

#include "cu.h"
#include "gpu.h"
#include "os.h"
#include "programs.h"

struct at_cuda_block;

/* NVRTC: loaded when devices are looked for.  lib is NULL where there is none. */
struct at_cuda_compiler {
    struct at_os_lib *lib;
    struct at_nvrtc nvrtc;
    int version; /* as the driver's: 13000 is 13.0 */
    char why[200];
};

/* A device.  Its primary context is retained when it is first used, under `lock`, as programs are
 * made and memory is handed out. */
struct at_cuda_device {
    const struct at_cu *cu;
    const struct at_cuda_compiler *compiler;
    attend_ctx *ctx;
    cu_device id;
    struct at_gpu gpu;
    char device_name[96];
    int capability; /* 90 is 9.0 */
    int units, driver;
    size_t global_bytes;

    struct at_os_mutex *lock;
    cu_context context;
    bool lost;
    bool ptx_only;   /* it has refused a cubin */
    cu_stream given; /* the caller's, where has_given, for all execs; NULL is the legacy stream */
    bool has_given;
    int streams; /* of execs, so far */
    struct at_program *program;
    struct at_cuda_block *block; /* memory: memory.c */

    struct at_os_mutex *blas_lock; /* cublas.c: */
    struct at_os_lib *blas_lib;
    struct at_cublas blas;
    cublas_handle blas_handle; /* NULL, and why, where it is not used */
    bool blas_asked;
    char blas_why[200];
};

/* What a context has of CUDA: ctx->cuda. */
struct at_cuda {
    struct at_os_lib *lib;
    struct at_cu cu;
    struct at_cuda_compiler compiler;
    struct at_cuda_device *device;
    int ndevice;
};

/* probe.c */
/* 0 where the device can be used; its context is retained the first time. */
int at_cuda_open(struct at_cuda_device *d, struct at_err *e);
/* A thread works in one context: at_cuda_enter makes it the device's and gives what it was, which
 * at_cuda_leave puts back. */
struct at_cuda_entry {
    cu_context before;
    bool changed;
};
int at_cuda_enter(struct at_cuda_device *d, struct at_cuda_entry *entry, struct at_err *e);
/* The same to give something back, when nobody can be told of errors: tries harder. */
bool at_cuda_enter_last(struct at_cuda_device *d, struct at_cuda_entry *entry);
void at_cuda_leave(struct at_cuda_device *d, const struct at_cuda_entry *entry);
/* A status for a failed call: memory that is out, or a device that failed, which after some codes
 * is lost. */
int at_cuda_fail(struct at_cuda_device *d, cu_result code, const char *what, struct at_err *e);

/* compiler.c */
void at_cuda_compiler_find(struct at_cuda_compiler *c, int driver);
/* The one of a name, or why not. */
bool at_cuda_compiler_open(struct at_cuda_compiler *c, const char *name);
/* A program's text for an architecture such as "sm_90" or "compute_90": a cubin for the first, PTX
 * for the second, from at_alloc.  Options are words such as -DAT_B=0. */
int at_cuda_compile(struct at_cuda_device *d, const char *text, const char *options,
                    const char *arch, char **out, size_t *bytes, struct at_err *e);
/* The newest architecture of the compiler's that the device can run; 0 none, or no compiler. */
int at_cuda_compiler_target(const struct at_cuda_compiler *c, int capability);

/* program.c */
int at_cuda_kernel(const struct at_device *d, const struct at_gpu_source *source, const char *name,
                   void **kernel, struct at_err *e);
int at_cuda_launch(const struct at_device *d, void *stream, const struct at_gpu_launch *l,
                   struct at_err *e);
void at_cuda_programs_free(struct at_cuda_device *d);

/* memory.c */
extern const struct at_memory at_cuda_memory;
void at_cuda_blocks_free(struct at_cuda_device *d);

/* cublas.c */
int at_cuda_library(const struct at_device *d, struct at_err *e);
int at_cuda_gemm(const struct at_device *d, void *stream, const struct at_gpu_gemm *g,
                 struct at_err *e);
void at_cuda_library_free(struct at_cuda_device *d);

static inline struct at_cuda_device *at_cuda_device_of(const struct at_device *d)
{
    return d->handle;
}

#endif
