#!/bin/sh
# SPDX-License-Identifier: MIT
# The smallest library that configure's switches leave: it builds, computes attention, and is as small as
# doc/building.md says.
srcdir=$(cd "${srcdir:-$(dirname "$0")/..}" && pwd)
tmp=$PWD/960-small.tmp
most=560 # KiB, stripped
rm -rf $tmp && mkdir $tmp && cd $tmp || exit 1
unset MAKEFLAGS MAKELEVEL
{
    "$srcdir/configure" -q --disable-static --disable-opencl --disable-cuda --disable-models --disable-avx512 \
        CFLAGS=-Os && ${MAKE:-make} -j2 libattend.la
} >log 2>&1 || { tail -n 20 log | sed 's/^/# /'; echo "not ok 1 - it builds"; echo 1..1; exit; }
echo "ok 1 - it builds"
strip -o small.so .libs/libattend.so
size=$(($(wc -c <small.so) / 1024))
echo "# $size KiB"
[ $size -le $most ] || printf 'not '
echo "ok 2 - it has at most $most KiB"
${CC:-cc} -I"$srcdir/lib" "$srcdir/examples/1-sdpa.c" .libs/libattend.so -lm -o program &&
    LD_LIBRARY_PATH=.libs ./program >got && sed -n '/^\/\* Prints:/,$ s/^ \* //p' "$srcdir/examples/1-sdpa.c" |
        diff - got || printf 'not '
echo "ok 3 - it computes attention"
cd .. && rm -rf $tmp
echo 1..3
