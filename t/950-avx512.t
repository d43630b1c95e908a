#!/bin/sh
# SPDX-License-Identifier: MIT
# The block functions of AVX-512 where the CPU has AVX2 but no AVX-512, or ATTEND_ISA masks it: by SIMDe (Debian:
# libsimde-dev), whose headers make this a matter of minutes.
srcdir=${srcdir:-$(dirname "$0")/..}
. "$srcdir/t/other_isa.sh"
folder=t/avx512
cc=${CC:-cc}
flags="-DHAVE_SIMD_AVX512=1 -DAT_SIMD_EMULATED"
names="$srcdir/simd/vec_avx512.h"

grep -q '^flags.* avx2 ' /proc/cpuinfo 2>/dev/null || skip "the CPU lacks AVX2, on which AVX-512 would be emulated"
grep -q '^flags.* avx512vl' /proc/cpuinfo && [ -z "$ATTEND_ISA" ] && skip "this machine runs AVX-512 itself"
mkdir -p $folder
echo '#include <simde/x86/avx512.h>' | $cc -E - >$folder/log 2>&1 || skip "no SIMDe to emulate AVX-512 with"

grep -oh '_mm512_[a-z0-9_]*' "$names" | sort -u | sed 's/.*/#define & simde&/' >$folder/simde_names.h
compile simd/kernels.c avx512.o -O0 -mavx2 -mfma -mf16c -DAT_SIMD_ISA_AVX512 -w -I"$srcdir/t/simde" -I$folder
finish_build
unset ATTEND_ISA
run_tests
