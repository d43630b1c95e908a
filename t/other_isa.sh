# SPDX-License-Identifier: MIT
# What the tests of instruction sets that this machine lacks share: t/310-attn-blocks.c is built in $folder with
# the few sources that it needs, by $cc with $flags.  Sourced.
sources="lib/env.c lib/expr.c lib/os.c lib/quant.c lib/str.c lib/type.c simd/select.c t/tap.c t/310-attn-blocks.c"

skip()
{
    echo "ok 1 # SKIP $1"
    echo 1..1
    exit 0
}

broken()
{
    sed 's/^/# /' $folder/log
    echo "Bail out! $1"
    exit 1
}

# compile SOURCE OBJECT FLAG...: -O1, as it is the arithmetic that is tested; unused functions, of which
# some need more of the library, are dropped when linking.
compile()
{
    source=$srcdir/$1 object=$folder/$2
    shift 2
    $cc -std=gnu11 -O1 -ffunction-sections -ffp-contract=off -fno-math-errno -fno-trapping-math $flags "$@" \
        -DATTEND_BUILDING -I"$srcdir" -I"$srcdir/lib" -I"$srcdir/simd" \
        -I"$srcdir/t" -c "$source" -o "$object" >$folder/log 2>&1 || broken "$source does not compile"
}

# What is left once the instruction set's own kernels are compiled, and the program, with FLAG...
finish_build()
{
    compile simd/kernels.c scalar.o -O0 -DAT_SIMD_ISA_SCALAR
    for s in $sources; do
        compile "$s" "$(basename "$s" .c).o"
    done
    $cc "$@" -Wl,--gc-sections $folder/*.o -o $folder/test -lm >$folder/log 2>&1 || broken "it does not link"
}
