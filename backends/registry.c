/* SPDX-License-Identifier: MIT */
/* The backends that are compiled in, in the order they are probed. */
#include "backend.h"

const struct at_backend *const at_backends[] = {&at_backend_ref, &at_backend_simd,
#ifndef AT_NO_OPENCL
                                                &at_backend_opencl,
#endif
#ifndef AT_NO_CUDA
                                                &at_backend_cuda,
#endif
                                                NULL};
