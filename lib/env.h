/* SPDX-License-Identifier: MIT */
/* The environment variables that the library, program and tests look at, in one list. */
#ifndef AT_ENV_H
#define AT_ENV_H

/* X(name, meaning).  The variable is ATTEND_name. */
#define AT_ENV_LIST(X)                                                                             \
    X(ISA, "the highest instruction set to use: scalar, avx2, avx512, neon")                       \
    X(THREADS, "how many threads a context starts by default")                                     \
    X(DETERMINISTIC, "1: plans are deterministic unless their options say otherwise")              \
    X(BACKEND, "the only backend to probe, such as ref, simd, opencl")                             \
    X(LIBOPENCL, "the OpenCL library to load, instead of the usual ones")                          \
    X(LIBCLBLAST, "the CLBlast library to load, for CPUs of OpenCL too; none: it is not used")     \
    X(LIBCBLAS, "the CBLAS library for large products on the CPU; 1: a usual one; unset: none")    \
    X(OPENCL_SHAPE, "the only attention kernel of devices: decode, cpu, gpu_local, ...")           \
    X(KERNEL_EDIT, "tests: \"this=>that\" is done to the text of kernels before it is compiled")   \
    X(OPENCL_MEMORY, "copy: CPUs of OpenCL do not work in the host's memory either")               \
    X(LIBCUDA, "the CUDA driver to load, instead of the usual one")                                \
    X(LIBNVRTC, "the compiler NVRTC to load, instead of the usual ones")                           \
    X(LIBCUBLAS, "the cuBLAS library to load; none: it is not used")                               \
    X(CACHE, "the folder of compiled programs; off: none are kept")                                \
    X(FIXTURES, "the folder of reference cases that the tests read")                               \
    X(MODEL, "the GGUF model that the tests read")                                                 \
    X(EMBEDDER, "the folder of the sentence model that the tests read")                            \
    X(CUEMU, "the emulator of the CUDA driver that the tests load")                                \
    X(RECORD, "a file that tests of instructions append their results to")                         \
    X(ATTEND, "the program that the tests run")                                                    \
    X(TEST_EVERY, "tests of words and cases check only each n-th, for slow checkers")

#include <stddef.h>

enum at_env {
#define AT_ENV_ENUM(name, meaning) AT_ENV_##name,
    AT_ENV_LIST(AT_ENV_ENUM)
#undef AT_ENV_ENUM
        AT_ENV_COUNT
};

/* The value, or NULL when it is unset or empty. */
const char *at_env(enum at_env which);
/* The folder "attend" in that of the user's caches, into buf: its length, or -1 where nobody says.
 */
int at_env_caches(char *buf, size_t size);
const char *at_env_name(enum at_env which);    /* "ATTEND_ISA" */
const char *at_env_meaning(enum at_env which); /* one line of documentation */

#endif
