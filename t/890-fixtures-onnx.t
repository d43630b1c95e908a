#!/bin/sh
# SPDX-License-Identifier: MIT
# The cases of $ATTEND_FIXTURES/onnx through `attend run`, on every device here: fixtures_onnx.py.
if [ -z "$ATTEND_FIXTURES" ]; then
    echo "1..0 # SKIP ATTEND_FIXTURES names no folder of reference cases"
    exit 0
elif ! [ -d "$ATTEND_FIXTURES/onnx" ]; then
    echo "1..0 # SKIP there is no folder $ATTEND_FIXTURES/onnx"
    exit 0
elif "${ATTEND_ATTEND:-attend}" run --onnx-test /dev/null 2>&1 | grep -q 'without protobuf-c'; then
    echo "1..0 # SKIP this build has no reader of ONNX models"
    exit 0
fi
# The first python3 of PATH may be another than the one that Debian's packages are for.
for python in python3 /usr/bin/python3; do
    if $python -c 'import numpy' 2>/dev/null; then
        exec $python "${srcdir:-$(dirname "$0")/..}/t/fixtures_onnx.py"
    fi
done
echo "1..0 # SKIP python3 with numpy is not here"
