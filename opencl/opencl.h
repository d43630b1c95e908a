/* SPDX-License-Identifier: MIT */
/* The OpenCL backend inside: the library that was found, and its devices. */
#ifndef AT_OPENCL_H
#define AT_OPENCL_H

#include "cl.h"
#include "gpu.h"
#include "os.h"
#include "programs.h"

#include <stdatomic.h>

/* Of products: whether CLBlast is faster, or it is being measured. */
enum { AT_CLBLAST_UNKNOWN, AT_CLBLAST_MEASURED, AT_CLBLAST_OURS, AT_CLBLAST_THEIRS };

/* A device of OpenCL's.  What listing it needs is read when it is found; the context is made when
 * it is first used, under `lock`, as programs are. */
struct at_cl_device {
    const struct at_cl *cl;
    attend_ctx *ctx;
    cl_platform_id platform;
    cl_device_id id;
    struct at_gpu gpu;
    char device_name[96], driver[64], version[256], platform_name[64], platform_version[320];
    cl_ulong global_bytes, most_bytes; /* of memory; of one buffer */
    cl_uint units;
    bool is_cpu, fp16, fp64, subgroups, dot;

    struct at_os_mutex *lock;
    cl_context context;
    cl_command_queue given; /* the caller's; NULL: each exec makes its own */
    bool in_place;          /* memory of the host is used where it is: tried, not believed */
    bool lost;
    char lost_by[128]; /* the call that said so, and its code */
    struct at_program *program;

    _Atomic int clblast;   /* of clblast.c: AT_CLBLAST_..., */
    char clblast_why[200]; /* and why it is not used */
    struct at_os_lib *clblast_lib;
    cl_int(AT_CL_CALL *sgemm)(int layout, int turn_a, int turn_b, size_t m, size_t n, size_t k,
                              float alpha, cl_mem a, size_t a_at, size_t a_row, cl_mem b,
                              size_t b_at, size_t b_row, float beta, cl_mem c, size_t c_at,
                              size_t c_row, cl_command_queue *queue, cl_event *event);
    cl_int(AT_CL_CALL *clblast_clear)(void);
    cl_int(AT_CL_CALL *clblast_override)(cl_device_id device, const char *kernel, int precision,
                                         size_t n, const char **names, const size_t *values);
};

/* What a context has of OpenCL: ctx->opencl. */
struct at_opencl {
    struct at_os_lib *lib;
    struct at_cl cl;
    struct at_cl_device *device;
    int ndevice;
};

/* "CL_OUT_OF_RESOURCES (-5)", or the number alone. */
const char *at_cl_error_name(cl_int code, char buf[48]);
/* A status for a failed call: memory that is out, or a device that failed, which after some codes
 * is lost. */
int at_cl_fail(struct at_cl_device *d, cl_int code, const char *what, struct at_err *e);
/* 0, or that the device was lost, and by what. */
int at_cl_usable(const struct at_cl_device *d, struct at_err *e);
/* 0 where the device can be used; its context is made the first time. */
int at_cl_open(struct at_cl_device *d, struct at_err *e);
/* program.c */
int at_cl_kernel(const struct at_device *d, const struct at_gpu_source *source, const char *name,
                 void **kernel, struct at_err *e);
int at_cl_launch(const struct at_device *d, void *stream, const struct at_gpu_launch *l,
                 struct at_err *e);
void at_cl_programs_free(struct at_cl_device *d);
/* clblast.c: see struct at_gpu */
int at_cl_library(const struct at_device *d, struct at_err *e);
int at_cl_gemm(const struct at_device *d, void *stream, const struct at_gpu_gemm *g,
               struct at_err *e);
/* Makes the library multiply with these parameters from now on, in all of the process; false where
 * the device has no room for them, or the library does not take them. */
#define AT_CLBLAST_SETS 3
bool at_cl_library_tune(const struct at_cl_device *d, int set);
void at_cl_library_leave(struct at_cl_device *d);
/* memory.c */
extern const struct at_memory at_cl_memory;
bool at_cl_try_in_place(struct at_cl_device *d);

static inline struct at_cl_device *at_cl_device_of(const struct at_device *d)
{
    return d->handle;
}

#endif
