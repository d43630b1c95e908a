#!/bin/sh
# SPDX-License-Identifier: MIT
# The examples and the C blocks of README.md, as their readers would compile them: with all warnings, and
# run.  An example ends with a comment of what it prints.  The first is valid C++17 too.
srcdir=${srcdir:-$(dirname "$0")/..}
tmp=896-examples.tmp
count=0

# result GOOD NAME: prints what is in $tmp/said where it is bad.
result()
{
    count=$((count + 1))
    if [ "$1" = 0 ]; then
        echo "ok $count - $2"
    else
        sed 's/^/# /' $tmp/said
        echo "not ok $count - $2"
    fi
}

# compile COMPILER-AND-FLAGS FILE: to $tmp/program, linked with the library of this build.
compile()
{
    rm -f $tmp/program $tmp/part.o
    $1 -Wall -Wextra -pedantic -Werror -I"$srcdir/lib" -I"$srcdir/models" -c "$2" -o $tmp/part.o >$tmp/said 2>&1 &&
        ./libtool --quiet --tag=CC --mode=link ${CC:-cc} $CFLAGS $tmp/part.o libattend.la -lm -o $tmp/program \
            >>$tmp/said 2>&1
}

[ -f libattend.la ] || { echo "1..0 # SKIP there is no libattend.la here"; exit; }
rm -rf $tmp && mkdir $tmp || exit 1

for file in "$srcdir"/examples/*.c; do
    compile "${CC:-cc} $CFLAGS -std=c11" "$file"
    result $? "$(basename "$file") compiles"
    sed -n '/^\/\* Prints:/,$ s/^ \* //p' "$file" >$tmp/want
    $tmp/program >$tmp/got 2>$tmp/said
    result $? "it runs"
    diff $tmp/want $tmp/got >$tmp/said
    result $? "it prints what it says"
done

# Each block from ```c to ```.
awk -v tmp=$tmp '/^```c$/ { n++; inside = 1; next } /^```/ { inside = 0 }
    inside { print > (tmp "/block" n ".c") }' "$srcdir/README.md"
for file in $tmp/block*.c; do
    compile "${CC:-cc} $CFLAGS -std=c11" "$file"
    result $? "README.md: $(basename "$file" .c) compiles"
    $tmp/program >$tmp/said 2>&1
    result $? "it runs"
done

if command -v "${CXX:-c++}" >/dev/null; then
    compile "${CXX:-c++} -std=c++17 -x c++" "$srcdir/examples/1-sdpa.c"
    result $? "1-sdpa.c compiles as C++17"
else
    count=$((count + 1))
    echo "ok $count # SKIP there is no C++ compiler"
fi
rm -rf $tmp
echo "1..$count"
