#!/bin/sh
# SPDX-License-Identifier: MIT
# What ptxas makes of every kernel, and what kernels do in their main loops, an architecture after the
# other: some minutes each.  t/cuda-budgets.txt and t/cuda-counts.txt are what it is held to.
. "${srcdir:-$(dirname "$0")/..}/t/on_cuda.sh"
need_cuda

# measure TEST NAME ARCHITECTURES...
measure()
{
    test=$1 name=$2
    shift 2
    for cc in "$@"; do
        $test $cc >"$said/out" 2>&1
        status=$?
        grep -A 2 '^not ok' "$said/out" | sed 's/^/# /'
        result $status "$name, sm_$cc: $(grep -c '^ok' "$said/out") results"
    done
}

measure t/550-cuda-gate.t "compile gate" 75 80 86 89 90 100 120
measure t/552-cuda-counts.t counts 75 80 100
echo "1..$count"
