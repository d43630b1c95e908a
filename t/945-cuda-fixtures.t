#!/bin/sh
# SPDX-License-Identifier: MIT
# All cases of t/545 on the emulated CUDA device.
exec "${srcdir:-$(dirname "$0")/..}/t/545-cuda-fixtures.t" slow
