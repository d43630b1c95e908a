#!/bin/sh
# SPDX-License-Identifier: MIT
# What is installed, as others use it: the first example found by pkg-config and by CMake; the wheel in an
# environment of its own.
srcdir=$(cd "${srcdir:-$(dirname "$0")/..}" && pwd)
tmp=$PWD/970-install.tmp
count=0

# try NAME COMMAND...: a result.
try()
{
    count=$((count + 1))
    name=$1
    shift
    if "$@" >$tmp.said 2>&1; then
        echo "ok $count - $name"
    else
        sed 's/^/# /' $tmp.said
        echo "not ok $count - $name"
    fi
}

skip()
{
    count=$((count + 1))
    echo "ok $count # SKIP $1"
}

prints() # PROGRAM
{
    LD_LIBRARY_PATH=$lib "$@" >$tmp/got && sed -n '/^\/\* Prints:/,$ s/^ \* //p' "$srcdir/examples/1-sdpa.c" |
        diff - $tmp/got
}

with_pkg_config()
{
    flags=$(PKG_CONFIG_PATH=$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tmp/root pkg-config --cflags --libs attend) &&
        ${CC:-cc} "$srcdir/examples/1-sdpa.c" $flags -lm -o $tmp/by-pkg-config && prints $tmp/by-pkg-config
}

with_cmake()
{
    mkdir -p $tmp/cmake && cat >$tmp/cmake/CMakeLists.txt <<END &&
cmake_minimum_required(VERSION 3.10)
project(example C)
find_package(attend 0.1 REQUIRED)
add_executable(by-cmake $srcdir/examples/1-sdpa.c)
target_link_libraries(by-cmake attend::attend m)
END
        cmake -S $tmp/cmake -B $tmp/cmake/build -Dattend_DIR=$lib/cmake/attend &&
        cmake --build $tmp/cmake/build && prints $tmp/cmake/build/by-cmake
}

with_wheel()
{
    unset MAKEFLAGS MAKELEVEL
    python3 -m venv --system-site-packages $tmp/venv && ${MAKE:-make} wheel &&
        $tmp/venv/bin/pip install -q --no-deps --no-index python/attend-*.whl &&
        cd / && env -u ATTEND_LIBRARY $tmp/venv/bin/python -c '
import attend, ctypes
print(attend.version(), attend.devices())'
}

rm -rf $tmp && mkdir $tmp || exit 1
try "make install" ${MAKE:-make} install DESTDIR=$tmp/root
lib=$(dirname "$(find $tmp/root -name 'pkgconfig')")
try "the example by pkg-config" with_pkg_config
if command -v cmake >/dev/null; then
    try "the example by CMake" with_cmake
else
    skip "there is no cmake"
fi
if [ -f .libs/libattend.so ] && python3 -c 'import venv, ensurepip' 2>/dev/null; then
    try "the wheel" with_wheel
else
    skip "no shared library, or no python3 with venv"
fi
rm -rf $tmp $tmp.said
echo "1..$count"
