/* SPDX-License-Identifier: MIT */
/* The environment variables that the library, program and tests look at, in one list. */
#ifndef AT_ENV_H
#define AT_ENV_H

/* X(name, meaning).  The variable is ATTEND_name. */
#define AT_ENV_LIST(X)                                                                             \
    X(ISA, "the best instruction set to use: scalar, avx2, avx512, neon")                          \
    X(THREADS, "how many threads a context starts by default")                                     \
    X(BACKEND, "the only backend to probe, such as ref, simd, opencl")                             \
    X(FIXTURES, "the folder of reference cases that the tests read")                               \
    X(MODEL, "the GGUF model that the tests read")                                                 \
    X(EMBEDDER, "the folder of the sentence model that the tests read")                            \
    X(ATTEND, "the program that the tests run")

enum at_env {
#define AT_ENV_ENUM(name, meaning) AT_ENV_##name,
    AT_ENV_LIST(AT_ENV_ENUM)
#undef AT_ENV_ENUM
        AT_ENV_COUNT
};

/* The value, or NULL when it is unset or empty. */
const char *at_env(enum at_env which);
const char *at_env_name(enum at_env which);    /* "ATTEND_ISA" */
const char *at_env_meaning(enum at_env which); /* one line of documentation */

#endif
