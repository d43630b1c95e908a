/* SPDX-License-Identifier: MIT */
/* The parts of CUDA's driver and of NVRTC that are used here, declared anew from their
 * documentation, so that nothing is needed where this is built; the functions are looked up at run
 * time.  Symbols with _v2 are named as the driver exports them. */
#ifndef AT_CU_H
#define AT_CU_H

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#    define AT_CU_CALL __stdcall
#else
#    define AT_CU_CALL
#endif

typedef int cu_result, cu_device;
typedef uint64_t cu_deviceptr;
typedef struct cu_context_ *cu_context;
typedef struct cu_module_ *cu_module;
typedef struct cu_function_ *cu_function;
typedef struct cu_stream_ *cu_stream;
typedef struct cu_event_ *cu_event;

enum {
    CU_SUCCESS = 0,
    CU_INVALID_VALUE = 1,
    CU_OUT_OF_MEMORY = 2,
    CU_NO_DEVICE = 100,
    CU_NO_BINARY_FOR_GPU = 209,
    CU_INVALID_PTX = 218,
    CU_UNSUPPORTED_PTX_VERSION = 222,
    CU_NOT_FOUND = 500,
    CU_NOT_READY = 600,
    CU_ILLEGAL_ADDRESS = 700,
    CU_LAUNCH_FAILED = 719
};
enum { /* of a device */
       CU_MAX_THREADS_PER_BLOCK = 1,
       CU_MAX_SHARED_PER_BLOCK = 8,
       CU_WARP_SIZE = 10,
       CU_MULTIPROCESSORS = 16,
       CU_CAPABILITY_MAJOR = 75,
       CU_CAPABILITY_MINOR = 76,
       CU_MAX_SHARED_OPTIN = 97
};
enum { CU_FUNC_SHARED = 1, CU_FUNC_LOCAL = 3, CU_FUNC_REGS = 4, CU_FUNC_MAX_DYNAMIC = 8 };
enum { CU_STREAM_NON_BLOCKING = 1, CU_EVENT_DISABLE_TIMING = 2 };
enum { CU_JIT_ERROR_LOG = 5, CU_JIT_ERROR_LOG_SIZE = 6 };

/* X(name here, exported name, arguments); all give a cu_result. */
#define AT_CU_LIST(X)                                                                              \
    X(init, cuInit, (unsigned))                                                                    \
    X(driver_version, cuDriverGetVersion, (int *))                                                 \
    X(device_count, cuDeviceGetCount, (int *))                                                     \
    X(device_get, cuDeviceGet, (cu_device *, int))                                                 \
    X(device_name, cuDeviceGetName, (char *, int, cu_device))                                      \
    X(device_memory, cuDeviceTotalMem_v2, (size_t *, cu_device))                                   \
    X(device_attribute, cuDeviceGetAttribute, (int *, int, cu_device))                             \
    X(context_retain, cuDevicePrimaryCtxRetain, (cu_context *, cu_device))                         \
    X(context_release, cuDevicePrimaryCtxRelease_v2, (cu_device))                                  \
    X(context_set, cuCtxSetCurrent, (cu_context))                                                  \
    X(context_get, cuCtxGetCurrent, (cu_context *))                                                \
    X(synchronize, cuCtxSynchronize, (void))                                                       \
    X(mem_alloc, cuMemAlloc_v2, (cu_deviceptr *, size_t))                                          \
    X(mem_free, cuMemFree_v2, (cu_deviceptr))                                                      \
    X(mem_info, cuMemGetInfo_v2, (size_t *, size_t *))                                             \
    X(mem_range, cuMemGetAddressRange_v2, (cu_deviceptr *, size_t *, cu_deviceptr))                \
    X(copy_in, cuMemcpyHtoDAsync_v2, (cu_deviceptr, const void *, size_t, cu_stream))              \
    X(copy_out, cuMemcpyDtoHAsync_v2, (void *, cu_deviceptr, size_t, cu_stream))                   \
    X(copy, cuMemcpyDtoDAsync_v2, (cu_deviceptr, cu_deviceptr, size_t, cu_stream))                 \
    X(set8, cuMemsetD8Async, (cu_deviceptr, unsigned char, size_t, cu_stream))                     \
    X(module_load, cuModuleLoadDataEx, (cu_module *, const void *, unsigned, int *, void **))      \
    X(module_unload, cuModuleUnload, (cu_module))                                                  \
    X(module_function, cuModuleGetFunction, (cu_function *, cu_module, const char *))              \
    X(function_attribute, cuFuncGetAttribute, (int *, int, cu_function))                           \
    X(function_set, cuFuncSetAttribute, (cu_function, int, int))                                   \
    X(launch, cuLaunchKernel,                                                                      \
      (cu_function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,          \
       cu_stream, void **, void **))                                                               \
    X(stream_create, cuStreamCreate, (cu_stream *, unsigned))                                      \
    X(stream_destroy, cuStreamDestroy_v2, (cu_stream))                                             \
    X(stream_synchronize, cuStreamSynchronize, (cu_stream))                                        \
    X(stream_context, cuStreamGetCtx, (cu_stream, cu_context *))                                   \
    X(stream_wait, cuStreamWaitEvent, (cu_stream, cu_event, unsigned))                             \
    X(event_create, cuEventCreate, (cu_event *, unsigned))                                         \
    X(event_record, cuEventRecord, (cu_event, cu_stream))                                          \
    X(event_query, cuEventQuery, (cu_event))                                                       \
    X(event_synchronize, cuEventSynchronize, (cu_event))                                           \
    X(event_elapsed, cuEventElapsedTime, (float *, cu_event, cu_event))                            \
    X(event_destroy, cuEventDestroy_v2, (cu_event))                                                \
    X(error_name, cuGetErrorName, (cu_result, const char **))                                      \
    X(error_string, cuGetErrorString, (cu_result, const char **))

struct at_cu {
#define AT_CU_MEMBER(name, symbol, args) cu_result(AT_CU_CALL *name) args;
    AT_CU_LIST(AT_CU_MEMBER)
#undef AT_CU_MEMBER
};

/* ---- NVRTC ---- */

typedef struct nvrtc_program_ *nvrtc_program;

#define AT_NVRTC_LIST(X)                                                                           \
    X(version, nvrtcVersion, (int *, int *))                                                       \
    X(arch_count, nvrtcGetNumSupportedArchs, (int *))                                              \
    X(archs, nvrtcGetSupportedArchs, (int *))                                                      \
    X(create, nvrtcCreateProgram,                                                                  \
      (nvrtc_program *, const char *, const char *, int, const char *const *,                      \
       const char *const *))                                                                       \
    X(destroy, nvrtcDestroyProgram, (nvrtc_program *))                                             \
    X(compile, nvrtcCompileProgram, (nvrtc_program, int, const char *const *))                     \
    X(log_size, nvrtcGetProgramLogSize, (nvrtc_program, size_t *))                                 \
    X(log, nvrtcGetProgramLog, (nvrtc_program, char *))                                            \
    X(ptx_size, nvrtcGetPTXSize, (nvrtc_program, size_t *))                                        \
    X(ptx, nvrtcGetPTX, (nvrtc_program, char *))                                                   \
    X(cubin_size, nvrtcGetCUBINSize, (nvrtc_program, size_t *))                                    \
    X(cubin, nvrtcGetCUBIN, (nvrtc_program, char *))

struct at_nvrtc {
#define AT_NVRTC_MEMBER(name, symbol, args) int(AT_CU_CALL * name) args;
    AT_NVRTC_LIST(AT_NVRTC_MEMBER)
#undef AT_NVRTC_MEMBER
};

/* ---- cuBLAS ---- */

typedef struct cublas_handle_ *cublas_handle;
enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum { CUBLAS_PEDANTIC_MATH = 2, CUBLAS_TF32_TENSOR_OP_MATH = 3 };

/* Matrices are by columns; their pointers are the device's. */
#define AT_CUBLAS_LIST(X)                                                                          \
    X(create, cublasCreate_v2, (cublas_handle *))                                                  \
    X(destroy, cublasDestroy_v2, (cublas_handle))                                                  \
    X(set_stream, cublasSetStream_v2, (cublas_handle, cu_stream))                                  \
    X(set_math, cublasSetMathMode, (cublas_handle, int))                                           \
    X(sgemm, cublasSgemm_v2,                                                                       \
      (cublas_handle, int, int, int, int, int, const float *, const void *, int, const void *,     \
       int, const float *, void *, int))

struct at_cublas {
#define AT_CUBLAS_MEMBER(name, symbol, args) int(AT_CU_CALL * name) args;
    AT_CUBLAS_LIST(AT_CUBLAS_MEMBER)
#undef AT_CUBLAS_MEMBER
};

#endif
