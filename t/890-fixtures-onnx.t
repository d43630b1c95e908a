#!/bin/sh
# SPDX-License-Identifier: MIT
# The cases of onnx through `attend run`, on the devices named, or every one that is here.
. "${srcdir:-$(dirname "$0")/..}/t/fixtures.sh"
if "${ATTEND_ATTEND:-attend}" run --onnx-test /dev/null 2>&1 | grep -q 'without protobuf-c'; then
    skip "this build has no reader of ONNX models"
fi
run_cases onnx "$@"
