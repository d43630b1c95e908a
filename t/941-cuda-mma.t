#!/bin/sh
# SPDX-License-Identifier: MIT
# Attention by tensor cores, every word of t/527, and its gradients, of t/542, an architecture after the other: some minutes each.
. "${srcdir:-$(dirname "$0")/..}/t/on_cuda.sh"
need_cuda
for cc in 75 80 90 100 120; do
    for test in t/527-cuda-mma.t t/542-cuda-back.t; do
        $test slow $cc >"$said/out" 2>&1
        status=$?
        grep -A 3 '^not ok' "$said/out" | sed 's/^/# /'
        result $status "$test, sm_$cc: $(grep -c '^ok' "$said/out") results"
    done
done
echo "1..$count"
