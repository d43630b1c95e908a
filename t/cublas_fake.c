/* SPDX-License-Identifier: MIT */
/* A stand-in for cuBLAS on the emulated driver: what is used of it, by loops, with its rules
 * checked. fake_cublas_driver gives it the driver before anything else. */
#include "cu.h"

#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))
enum { NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13 };

struct cublas_handle_ {
    cu_stream stream;
    cu_context context;
    int math;
};

static const struct at_cu *cu;
static int handles, calls, math;
static const char *fault = "";

EXPORT void fake_cublas_driver(const struct at_cu *driver);
EXPORT void fake_cublas_driver(const struct at_cu *driver)
{
    cu = driver;
}

/* What goes wrong from now on: "", "create", "product" or "sgemm". */
EXPORT void fake_cublas_fault(const char *name);
EXPORT void fake_cublas_fault(const char *name)
{
    fault = name;
}

EXPORT int fake_cublas_handles(void);
EXPORT int fake_cublas_handles(void)
{
    return handles;
}

EXPORT int fake_cublas_calls(void);
EXPORT int fake_cublas_calls(void)
{
    return calls;
}

/* The mode of the last product. */
EXPORT int fake_cublas_math(void);
EXPORT int fake_cublas_math(void)
{
    return math;
}

EXPORT int cublasCreate_v2(cublas_handle *handle);
EXPORT int cublasCreate_v2(cublas_handle *handle)
{
    struct cublas_handle_ *h = calloc(1, sizeof *h);
    if (!h || fault[0] == 'c' || cu->context_get(&h->context) || !h->context) {
        free(h);
        return NOT_INITIALIZED;
    }
    handles++;
    *handle = h;
    return 0;
}

EXPORT int cublasDestroy_v2(cublas_handle h);
EXPORT int cublasDestroy_v2(cublas_handle h)
{
    handles--;
    free(h);
    return 0;
}

EXPORT int cublasSetStream_v2(cublas_handle h, cu_stream stream);
EXPORT int cublasSetStream_v2(cublas_handle h, cu_stream stream)
{
    h->stream = stream;
    return 0;
}

EXPORT int cublasSetMathMode(cublas_handle h, int mode);
EXPORT int cublasSetMathMode(cublas_handle h, int mode)
{
    h->math = mode;
    return 0;
}

/* A matrix by columns, of the device's memory; one NULL is no memory. */
static float *fetch(const void *from, int rows, int columns, int ld, cu_stream stream)
{
    float *to = malloc((size_t)rows * (size_t)columns * sizeof *to);
    for (int j = 0; j < columns && to; j++)
        if (cu->copy_out(to + (size_t)j * (size_t)rows,
                         (cu_deviceptr)(uintptr_t)((const float *)from + (size_t)j * (size_t)ld),
                         (size_t)rows * sizeof *to, stream) ||
            cu->stream_synchronize(stream)) {
            free(to);
            to = NULL;
        }
    return to;
}

static int multiply(const struct cublas_handle_ *h, int turned, int m, int n, int k, const float *a,
                    const float *b, float *column, float *c, int ldc)
{
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            column[i] = fault[0] == 'p' ? 1 : 0;
            for (int l = 0; l < k; l++)
                column[i] += (turned ? a[i * k + l] : a[l * m + i]) * b[j * k + l];
        }
        if (cu->copy_in((cu_deviceptr)(uintptr_t)(c + (size_t)j * (size_t)ldc), column,
                        (size_t)m * sizeof *column, h->stream) ||
            cu->stream_synchronize(h->stream))
            return EXECUTION_FAILED;
    }
    return 0;
}

EXPORT int cublasSgemm_v2(cublas_handle h, int turn_a, int turn_b, int m, int n, int k,
                          const float *alpha, const void *a, int lda, const void *b, int ldb,
                          const float *beta, void *c, int ldc);
EXPORT int cublasSgemm_v2(cublas_handle h, int turn_a, int turn_b, int m, int n, int k,
                          const float *alpha, const void *a, int lda, const void *b, int ldb,
                          const float *beta, void *c, int ldc)
{
    cu_context now = NULL;
    int turned = turn_a == CUBLAS_OP_T;
    calls++;
    if (fault[0] == 's')
        return EXECUTION_FAILED;
    if (cu->context_get(&now) || now != h->context ||
        (h->math != CUBLAS_PEDANTIC_MATH && h->math != CUBLAS_TF32_TENSOR_OP_MATH))
        return NOT_INITIALIZED;
    math = h->math;
    if ((turn_a != CUBLAS_OP_N && !turned) || turn_b != CUBLAS_OP_N || m < 0 || n < 0 || k < 0 ||
        *alpha != 1 || *beta != 0 || lda < (turned ? k : m) || ldb < k || ldc < m)
        return INVALID_VALUE;
    float *x = fetch(a, turned ? k : m, turned ? m : k, lda, h->stream);
    float *y = fetch(b, k, n, ldb, h->stream), *column = malloc((size_t)m * sizeof *column);
    int code =
        x && y && column ? multiply(h, turned, m, n, k, x, y, column, c, ldc) : EXECUTION_FAILED;
    free(x);
    free(y);
    free(column);
    return code;
}
