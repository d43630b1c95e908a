/* SPDX-License-Identifier: MIT */
/* The backends that are compiled in, in the order they are probed. */
#include "backend.h"

const struct at_backend *const at_backends[] = {&at_backend_ref, &at_backend_simd,
                                                &at_backend_opencl, &at_backend_cuda, NULL};
