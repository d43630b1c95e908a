#!/bin/sh
# SPDX-License-Identifier: MIT
# cuda/cu.h against the vendor's headers, where these and a C++ compiler are: t/cuda_abi.cc.
srcdir=${srcdir:-$(dirname "$0")/..}
for dir in "${CUDA_PATH:-/usr/local/cuda}/include" /usr/local/include /opt/cuda/include none; do
    [ -f "$dir/cuda.h" ] && break
done
compiler=$(command -v "${CXX:-g++}" || command -v c++)
if [ "$dir" = none ] || [ -z "$compiler" ]; then
    echo "1..0 # SKIP there is no cuda.h, or no C++ compiler"
    exit 0
fi
echo "1..1"
[ -f "$dir/nvrtc.h" ] && nvrtc=-DHAVE_NVRTC_H
[ -f "$dir/cublas_v2.h" ] && cublas=-DHAVE_CUBLAS_H
if said=$($compiler -std=c++17 -fsyntax-only $nvrtc $cublas -I"$dir" -I"$srcdir/cuda" "$srcdir/t/cuda_abi.cc" 2>&1); then
    echo "ok 1 - cuda/cu.h declares what $dir/cuda.h ($(sed -n 's/#define CUDA_VERSION //p' "$dir/cuda.h")) does"
else
    echo "$said" | sed 's/^/# /'
    echo "not ok 1 - cuda/cu.h is not what $dir/cuda.h declares"
fi
