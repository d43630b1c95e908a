#!/bin/sh
# SPDX-License-Identifier: MIT
# Attention by tensor cores, every word of t/527, an architecture after the other: some minutes each.
. "${srcdir:-$(dirname "$0")/..}/t/on_cuda.sh"
need_cuda
for cc in 75 80 90 100 120; do
    t/527-cuda-mma.t slow $cc >"$said/out" 2>&1
    status=$?
    grep -A 3 '^not ok' "$said/out" | sed 's/^/# /'
    result $status "attention by tensor cores, sm_$cc: $(grep -c '^ok' "$said/out") results"
done
echo "1..$count"
