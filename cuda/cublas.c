/* SPDX-License-Identifier: MIT */
/* cuBLAS, found at run time: products of f32.  A handle for each device of a context, made when the
 * first product asks for it, and tried on a product whose result is known: what gives another, or
 * fails, is not used, and our kernel does the product.  Nothing of f32 is rounded to tf32 unless
 * the plan may. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "cuda.h"
#include "env.h"

/* Newest first; only of a version that the driver may know, as libraries say themselves. */
static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11",
                                    "libcublas.so",    "cublas64_13.dll", "cublas64_12.dll",
                                    "cublas64_11.dll"};

static int load(struct at_cuda_device *d, struct at_err *e)
{
    const char *asked = at_env(AT_ENV_LIBCUBLAS);
    char err[256] = "";
    if (!asked && at_env(AT_ENV_LIBCUDA))
        return at_fail(e, ATTEND_EUNSUPPORTED, "cuBLAS loads the usual driver, not %s",
                       at_env_name(AT_ENV_LIBCUDA));
    int status = asked ? at_os_lib_open(&d->blas_lib, asked, err, sizeof err) : -1;
    for (int i = 0; !asked && status < 0 && i < AT_LEN(names); i++)
        status = at_os_lib_open(&d->blas_lib, names[i], err, sizeof err);
    if (status < 0) {
        d->blas_lib = NULL;
        return asked ? at_fail(e, ATTEND_EUNSUPPORTED, "%s names no library: %.150s",
                               at_env_name(AT_ENV_LIBCUBLAS), err)
                     : at_fail(e, ATTEND_EUNSUPPORTED, "no cuBLAS was found (%s)", names[0]);
    }
#define TAKE(name, symbol, args)                                                                   \
    if (!at_os_lib_symbol(d->blas_lib, #symbol, &d->blas.name))                                    \
        return at_fail(e, ATTEND_EUNSUPPORTED, "the cuBLAS library has no " #symbol);
    AT_CUBLAS_LIST(TAKE)
#undef TAKE
    return 0;
}

static int multiply(struct at_cuda_device *d, cu_stream stream, const struct at_gpu_gemm *g,
                    struct at_err *e)
{
    static const float one = 1, zero = 0;
    const float *a = (const float *)g->a + g->a_at, *b = (const float *)g->b + g->b_at;
    if (g->m > INT_MAX || g->n > INT_MAX || g->k > INT_MAX || g->a_row > INT_MAX ||
        g->b_row > INT_MAX || g->c_row > INT_MAX)
        return at_fail(e, ATTEND_ELIMIT, "a product with more than 31 bits of rows or columns");
    /* by columns each matrix is its transpose: c^T = b^T a^T */
    int code = d->blas.set_stream(d->blas_handle, stream);
    if (!code)
        code = d->blas.set_math(d->blas_handle,
                                g->tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_PEDANTIC_MATH);
    if (!code)
        code = d->blas.sgemm(d->blas_handle, g->b_rows ? CUBLAS_OP_T : CUBLAS_OP_N, CUBLAS_OP_N,
                             (int)g->n, (int)g->m, (int)g->k, &one, b, (int)g->b_row, a,
                             (int)g->a_row, &zero, (float *)g->c + g->c_at, (int)g->c_row);
    return code ? at_fail(e, ATTEND_EDEVICE, "cublasSgemm failed on %s (%d)", d->device_name, code)
                : 0;
}

int at_cuda_gemm(const struct at_device *device, void *stream, const struct at_gpu_gemm *g,
                 struct at_err *e)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    int status = at_cuda_enter(d, &entry, e);
    if (status == 0) {
        at_os_mutex_lock(d->blas_lock);
        status = multiply(d, stream, g, e);
        at_os_mutex_unlock(d->blas_lock);
    }
    at_cuda_leave(d, &entry);
    return status;
}

/* ---- a product whose result is known ---- */

enum { M = 32, N = 48, K = 64 };

/* Small whole numbers: sums are exact in every order. */
static float number(int64_t i)
{
    return (float)(i * 7 % 11 - 5);
}

static bool is_right(const float *a, const float *b, const float *c)
{
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = 0;
            for (int k = 0; k < K; k++)
                sum += a[i * K + k] * b[j * K + k];
            if (c[i * N + j] != sum)
                return false;
        }
    return true;
}

static int try(const struct at_device *device, struct at_err *e)
{
    const struct at_memory *m = device->memory;
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_gpu_gemm g = {
        .m = M, .n = N, .k = K, .a_row = K, .b_row = K, .c_row = N, .b_rows = true};
    float a[M * K], b[N * K], c[M * N] = {0};
    void *stream = NULL;
    for (int i = 0; i < M * K; i++)
        a[i] = number(i);
    for (int i = 0; i < N * K; i++)
        b[i] = number(i + 3);
    int status = m->stream_new(device, &stream, e);
    if (status == 0)
        status = m->alloc(device, sizeof a, &g.a, e);
    if (status == 0)
        status = m->alloc(device, sizeof b, &g.b, e);
    if (status == 0)
        status = m->alloc(device, sizeof c, &g.c, e);
    if (status == 0)
        status = m->upload(device, stream, g.a, 0, a, sizeof a, e);
    if (status == 0)
        status = m->upload(device, stream, g.b, 0, b, sizeof b, e);
    if (status == 0)
        status = multiply(d, stream, &g, e);
    if (status == 0)
        status = m->download(device, stream, c, g.c, 0, sizeof c, e);
    if (stream && m->finish(device, stream, e) < 0)
        status = status < 0 ? status : ATTEND_EDEVICE;
    m->free(device, g.a);
    m->free(device, g.b);
    m->free(device, g.c);
    m->stream_free(device, stream);
    if (status == 0 && !is_right(a, b, c))
        status = at_fail(e, ATTEND_EUNSUPPORTED, "cuBLAS gave a wrong product");
    return status;
}

static void destroy(struct at_cuda_device *d)
{
    if (d->blas_handle)
        d->blas.destroy(d->blas_handle);
    d->blas_handle = NULL;
}

/* The device is entered, blas_lock held. */
static int choose(const struct at_device *device, struct at_err *e)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    int status = load(d, e), code = 0;
    if (status == 0 && (code = d->blas.create(&d->blas_handle))) {
        d->blas_handle = NULL;
        status = at_fail(e, ATTEND_EUNSUPPORTED, "cublasCreate failed (%d)", code);
    }
    if (status == 0)
        status = try(device, e);
    if (status < 0)
        destroy(d);
    return status;
}

int at_cuda_library(const struct at_device *device, struct at_err *e)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    struct at_err said = {0};
    int status = at_cuda_enter(d, &entry, e);
    if (status == 0) {
        at_os_mutex_lock(d->blas_lock);
        if (!d->blas_asked && choose(device, &said) < 0)
            snprintf(d->blas_why, sizeof d->blas_why, "%.199s", said.text);
        d->blas_asked = true;
        if (!d->blas_handle)
            status = at_fail(e, ATTEND_EUNSUPPORTED, "%s", d->blas_why);
        at_os_mutex_unlock(d->blas_lock);
    }
    at_cuda_leave(d, &entry);
    return status;
}

void at_cuda_library_free(struct at_cuda_device *d)
{
    destroy(d);
    at_os_lib_keep(d->blas_lib);
    d->blas_lib = NULL;
}
