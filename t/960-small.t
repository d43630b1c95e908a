#!/bin/sh
# SPDX-License-Identifier: MIT
# The smallest library that configure's switches leave: it builds, stays under the limit, computes attention
# on the CPU's kernels, and says what was left out.  With --sizes, instead: the table of doc/building.md, each
# configuration's size in KiB, stripped.
srcdir=$(cd "${srcdir:-$(dirname "$0")/..}" && pwd)
tmp=$PWD/960-small.tmp
most=300 # KiB
small='-Os -fno-asynchronous-unwind-tables'
tight='-Wl,-z,noseparate-code,-O1,--build-id=none'
unset MAKEFLAGS MAKELEVEL

# build ARGUMENTS...: in $tmp, configured with them; its size is in $size.
build()
{
    rm -rf $tmp && mkdir $tmp && cd $tmp || exit 1
    {
        "$srcdir/configure" -q --disable-static --without-nvrtc CC="${CC:-cc}" "$@" &&
            ${MAKE:-make} -j2 libattend.la && strip -o small.so .libs/libattend.so
    } >log 2>&1 || { tail -n 20 log | sed 's/^/# /'; return 1; }
    size=$(($(wc -c <small.so) / 1024))
}

# result NAME, after a command.
result()
{
    [ $? = 0 ] || printf 'not '
    count=$((count + 1))
    echo "ok $count - $1"
}

print_sizes()
{
    set --
    for switches in '' '--disable-opencl --disable-cuda' --disable-models --disable-training --disable-quantised \
        --disable-avx512 --disable-scalar; do
        set -- "$@" $switches
        build "$@" && echo "$size ${switches:-everything}"
    done
    build "$@" CFLAGS="$small" LDFLAGS="$tight" && echo "$size CFLAGS='$small'"
    cd .. && rm -rf $tmp
}

case $1 in --sizes) print_sizes; exit ;; esac

case $(uname -m) in x86_64) scalar=--disable-scalar ;; *) scalar= ;; esac
build --disable-opencl --disable-cuda --disable-models --disable-training --disable-quantised --disable-avx512 \
    $scalar CFLAGS="$small" LDFLAGS="$tight"
result "it builds"
echo "# ${size:=0} KiB"
[ $size -gt 0 ] && [ $size -lt $most ]
result "it has less than $most KiB"
cat >program.c <<'END'
#include <attend.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    float x[2 * 8 * 16 * 64], most = 0;
    char err[200];
    attend_device_info d;
    attend_ctx *ctx;
    attend_array q = {ATTEND_F32, ATTEND_SHAPE(2, 8, 16, 64), x, sizeof x}, o = {ATTEND_F32, {0, {0}}, NULL, 0};
    for (int i = 0; i < 2 * 8 * 16 * 64; i++)
        x[i] = (float)(i % 13) / 13;
    if (attend_ctx_new(NULL, &ctx) < 0)
        return 1;
    for (int i = 0; i < attend_device_count(ctx); i++)
        if (attend_device_get(ctx, i, &d) == 0 && d.present)
            printf("%s\n", strncmp(d.name, "simd:", 5) ? d.name : "simd");
    if (attend_sdpa(ctx, &q, &q, &q, NULL, NULL, &o, err, sizeof err) < 0)
        return fprintf(stderr, "%s\n", err), 1;
    for (int i = 0; i < 2 * 8 * 16 * 64; i++)
        most = ((float *)o.data)[i] > most ? ((float *)o.data)[i] : most;
    printf("%d\n", most > 0.3 && most < 1);
    attend_graph *g = attend_graph_new(ctx);
    attend_graph_sum(g, attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(3)), ATTEND_SHAPE(1));
    printf("%s\n", attend_graph_error(g));
    attend_graph_free(g);
    attend_free(o.data);
    attend_ctx_free(ctx);
    return 0;
}
END
${CC:-cc} -I"$srcdir/lib" program.c .libs/libattend.so -lm -o program && LD_LIBRARY_PATH=.libs ./program >got
result "a program runs"
cat >want <<'END'
ref
simd
1
this library was built without training (--disable-training)
END
diff want got
result "it computes attention on the CPU, and says what was left out"
cd .. && rm -rf $tmp
echo 1..$count
