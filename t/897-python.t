#!/bin/sh
# SPDX-License-Identifier: MIT
# The Python package in python/ with the shared library of this build: python_package.py.
srcdir=${srcdir:-$(dirname "$0")/..}
library=$PWD/.libs/libattend.so
if ! [ -f "$library" ]; then
    echo "1..0 # SKIP there is no shared library here"
elif ! python3 -c 'import numpy' 2>/dev/null; then
    echo "1..0 # SKIP python3 with numpy is not here"
elif nm -D "$library" | grep -q -e __asan_ -e __tsan_; then
    echo "1..0 # SKIP this python cannot load a library with a sanitizer"
else
    ATTEND_LIBRARY=$library PYTHONPATH=$srcdir/python exec python3 "$srcdir/t/python_package.py"
fi
