#!/bin/sh
# SPDX-License-Identifier: MIT
# Reference cases on the emulated CUDA device, through the program: a few at sm_80; with the argument
# "slow", all at sm_80 and sm_90 and each 8th at sm_75, sm_100 and sm_120.  A report of the emulator's
# checkers, or no launch on the device, is a failure.
. "${srcdir:-$(dirname "$0")/..}/t/on_cuda.sh"
need_cuda
need_cases torch

# run_cases KIND CC N: each N-th case of a kind at an architecture.
run_cases()
{
    CUEMU_CC=$2 ATTEND_TEST_EVERY=$3 \
        $python "$srcdir/t/fixtures_$1.py" cuda:0 >"$said/tap" 2>&1
    status=$?
    grep -B 3 -e '^not ok' "$said/tap" | sed 's/^/# /'
    result $status "$1, sm_$2: $(grep '^# [0-9]* cases' "$said/tap" | cut -c 3-)"
    device_results "$1, sm_$2"
}

if [ "$1" = slow ]; then
    for cc in 80 90; do
        run_cases torch $cc 1
        run_cases onnx $cc 1
    done
    for cc in 75 100 120; do
        run_cases torch $cc 8
        run_cases onnx $cc 8
    done
else
    run_cases torch 80 24
    run_cases onnx 80 20
fi
echo "1..$count"
