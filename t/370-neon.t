#!/bin/sh
# SPDX-License-Identifier: MIT
# The block functions of NEON on any machine: a cross build of t/310-attn-blocks.c with the few sources that
# it needs, run under qemu-user.  `make check-neon` runs more tests, in a build of its own.
srcdir=${srcdir:-$(dirname "$0")/..}
cc=aarch64-linux-gnu-gcc
sources="lib/env.c lib/expr.c lib/quant.c lib/str.c lib/type.c simd/select.c t/tap.c t/310-attn-blocks.c"

skip()
{
    echo "ok 1 # SKIP $1"
    echo 1..1
    exit 0
}

broken()
{
    sed 's/^/# /' t/neon/log
    echo "Bail out! $1"
    exit 1
}

# compile SOURCE OBJECT FLAG...: -O1, as it is the arithmetic that is tested; unused functions, of which
# some need more of the library, are dropped when linking.
compile()
{
    source=$srcdir/$1 object=t/neon/$2
    shift 2
    $cc -std=gnu11 -O1 -ffunction-sections -ffp-contract=off -fno-math-errno -fno-trapping-math "$@" \
        -DATTEND_BUILDING -DHAVE_SIMD_NEON=1 -I"$srcdir" -I"$srcdir/lib" -I"$srcdir/simd" \
        -I"$srcdir/t" -c "$source" -o "$object" >t/neon/log 2>&1 || broken "$source does not compile"
}

case $(uname -m) in
aarch64 | arm64) skip "this machine runs NEON itself" ;;
esac
command -v $cc >/dev/null || skip "no cross compiler for NEON: $cc"
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || skip "no qemu-aarch64 to run NEON"

mkdir -p t/neon
compile simd/kernels.c neon.o -DAT_SIMD_ISA_NEON
compile simd/kernels.c scalar.o -O0 -DAT_SIMD_ISA_SCALAR
for s in $sources; do
    compile "$s" "$(basename "$s" .c).o"
done
$cc -static -Wl,--gc-sections t/neon/*.o -o t/neon/test -lm >t/neon/log 2>&1 || broken "it does not link"
exec "$qemu" t/neon/test
