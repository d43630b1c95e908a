#!/bin/sh
# SPDX-License-Identifier: MIT
# The block functions of NEON on any machine: a cross build, run under qemu-user.  `make check-aarch64` runs more
# tests, in a build of its own.
srcdir=${srcdir:-$(dirname "$0")/..}
. "$srcdir/t/other_isa.sh"
folder=t/neon
cc=aarch64-linux-gnu-gcc
flags=-DHAVE_SIMD_NEON=1

case $(uname -m) in
aarch64 | arm64) skip "this machine runs NEON itself" ;;
esac
command -v $cc >/dev/null || skip "no cross compiler for NEON: $cc"
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || skip "no qemu-aarch64 to run NEON"

mkdir -p $folder
compile simd/kernels.c neon.o -DAT_SIMD_ISA_NEON
finish_build -static
run_tests "$qemu"
