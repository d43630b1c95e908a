#!/bin/sh
# SPDX-License-Identifier: MIT
# Rules of HACKING.md that a script can see, and the symbols that the shared library exports.
srcdir=${srcdir:-$(dirname "$0")/..}
built=$PWD
cd "$srcdir" || exit 1
count=0

# none NAME OFFENDERS: good when there are no offenders.
none()
{
    count=$((count + 1))
    if [ -z "$2" ]; then
        echo "ok $count - $1"
    else
        echo "$2" | sed 's/^/# /'
        echo "not ok $count - $1"
    fi
}

skip()
{
    count=$((count + 1))
    echo "ok $count # SKIP $1"
}

# lines REGEX FOLDER...: file:line:text of each match in C sources.
lines()
{
    regex=$1
    shift
    for folder; do
        [ -d "$folder" ] && find "$folder" -name '*.[ch]' -exec grep -nE "$regex" /dev/null {} +
    done
}

library="lib backends cuda opencl simd models"
all="$library tools bench t examples"

none "only lib/os.c and lib/os_win.c include system headers" "$(
    lines '^ *# *include *<(unistd|pthread|dlfcn|time|fcntl|sched|signal|dirent|poll|io\.h|process\.h|malloc\.h|sys/|windows)' \
        $library tools bench | grep -v -e '^lib/os\.c:' -e '^lib/os_win\.c:')"
none "only lib/env.c reads the environment" "$(
    lines '\<getenv *\(' $all | grep -v -e '^lib/env\.c:' -e '^t/cuemu/config\.c:')"
none "intrinsics are inside simd/" "$(
    lines '(immintrin|arm_neon)\.h|\<_mm[0-9]*_|\<vld1q_' lib backends models tools bench)"
none "the library never ends the process" "$(lines '\<(abort|_?exit|quick_exit) *\(' $library)"
none "each source file names its licence" "$(
    find $library tools bench t \( -name '*.[ch]' -o -name '*.t' \) -type f 2>/dev/null |
        xargs grep -L 'SPDX-License-Identifier: MIT')"
none "each function of the public headers has its comment, or shares that of the line above" "$(
    awk '/^ATTEND_API/ && above !~ /(\*\/|;)$/ { print FILENAME ":" FNR ": " $0 } { above = $0 }' lib/attend.h models/models.h)"
none "no flag that breaks infinities" "$(
    grep -nE -e '-(ffast-math|ffinite-math-only|Ofast)' Makefile.am configure.ac m4/attend.m4)"

# What the header declares is what the shared library exports, no more and no less.
shared=$built/.libs/libattend.so
if [ -f "$shared" ] && command -v nm >/dev/null; then
    declared=$(cat lib/attend.h models/models.h | tr '\n' ' ' | grep -o 'ATTEND_API [^();]*(' |
        sed -n 's/.*[ *]\(attend_[a-z0-9_]*\) *($/\1/p' | sort)
    exported=$(nm -D --defined-only "$shared" | awk '{ print $3 }' | sort)
    both=$(printf '%s\n%s\n' "$declared" "$exported" | sort | uniq -d)
    none "every function of the headers is exported" "$(
        printf '%s\n%s\n' "$declared" "$both" | sort | uniq -u)"
    none "nothing else is exported" "$(printf '%s\n%s\n' "$exported" "$both" | sort | uniq -u)"
else
    skip "no shared library here to list the symbols of"
    skip "no shared library here to list the symbols of"
fi

# The header on its own, as strict C11 and as C++17.
for compiler in "${CC:-cc} -std=c11 -x c" "${CXX:-c++} -std=c++17 -x c++"; do
    if command -v "${compiler%% *}" >/dev/null; then
        none "attend.h alone is clean for $compiler" "$(
            $compiler -Wall -Wextra -pedantic -fsyntax-only lib/attend.h 2>&1)"
    else
        skip "no ${compiler%% *}"
    fi
done
# The API reference.
if command -v doxygen >/dev/null; then
    api=$built/001-lint.tmp
    none "Doxygen makes the API reference without a warning" "$(
        mkdir -p "$api" && { cat doc/Doxyfile; echo "OUTPUT_DIRECTORY = $api"; } | doxygen - 2>&1)"
    rm -rf "$api"
else
    skip "no doxygen"
fi
echo "1..$count"
