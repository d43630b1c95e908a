#!/bin/sh
# SPDX-License-Identifier: MIT
# The ABI of the shared library, as abidw sees it, is what t/abi.txt says: functions with their types, layouts of
# structures, values of enumerations.  What breaks it changes -version-info in Makefile.am; `t/898-abi.t --list`
# prints the file as it should be then.
srcdir=${srcdir:-$(dirname "$0")/..}
library=.libs/libattend.so

list()
{
    abidw --no-elf-needed --no-corpus-path --no-comp-dir-path --no-show-locs --drop-undefined-syms $library |
        python3 "$srcdir/t/abi.py" "$srcdir/lib/attend.h" "$srcdir/models/models.h"
}

if [ "$1" = --list ]; then
    list
elif ! [ -f $library ]; then
    echo "1..0 # SKIP there is no shared library here"
elif ! command -v abidw >/dev/null || ! command -v python3 >/dev/null; then
    echo "1..0 # SKIP abidw (Debian: abigail-tools) and python3 are not here"
elif ! readelf -S $library | grep -q '\.debug_info' || ! [ -f examples/train/gpt ]; then
    echo "1..0 # SKIP the library has no debugging information, or is not whole"
elif [ "$(uname -m)" != x86_64 ] || readelf -s $library | grep -q __asan_; then
    echo "1..0 # SKIP t/abi.txt is of x86-64, without sanitizers"
else
    list >898-abi.tmp
    diff "$srcdir/t/abi.txt" 898-abi.tmp | sed 's/^/# /' >898-abi.diff
    if [ -s 898-abi.diff ]; then
        cat 898-abi.diff
        printf 'not '
    fi
    echo "ok 1 - the ABI is that of t/abi.txt"
    rm -f 898-abi.tmp 898-abi.diff
    echo 1..1
fi
