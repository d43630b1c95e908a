# SPDX-License-Identifier: MIT
# What the tests of instruction sets that this machine lacks share: some tests of family 3 are built in $folder with
# the few sources that they need, by $cc with $flags.  Sourced.
sources="lib/env.c lib/expr.c lib/os.c lib/quant.c lib/str.c lib/type.c simd/select.c t/tap.c"
tests="310-attn-blocks 330-gemm 350-rows"

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

# What is left once the instruction set's own kernels are compiled, and the programs, with FLAG...
finish_build()
{
    compile simd/kernels.c scalar.o -O0 -DAT_SIMD_ISA_SCALAR
    for s in $sources; do
        compile "$s" "$(basename "$s" .c).o"
    done
    for t in $tests; do
        compile "t/$t.c" $t.main
        $cc "$@" -Wl,--gc-sections $folder/*.o $folder/$t.main -o $folder/$t -lm >$folder/log 2>&1 ||
            broken "$t does not link"
    done
}

# Their results, by RUNNER..., as those of one program.
run_tests()
{
    for t in $tests; do
        "$@" $folder/$t
    done | awk '/^(not )?ok / { sub(/ok [0-9]+/, "ok " ++n) }
                /^1\.\./ { plans++; next }
                { print }
                END { if (plans < '$(echo $tests | wc -w)') print "Bail out! a program did not end"; print "1.." n }'
}
