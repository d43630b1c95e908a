#!/bin/sh
# SPDX-License-Identifier: MIT
# Each shape of attention under a simulator that looks for races between work items, reads and writes
# outside of buffers, and wrong calls.  It leaves exit statuses alone, so its log must be empty.
icd=/usr/lib/oclgrind/liboclgrind-rt-icd.so
if ! [ -f $icd ]; then
    echo "1..0 # SKIP oclgrind is not here"
    exit 0
fi
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/vendors"
echo $icd >"$scratch/vendors/oclgrind.icd"
export OCL_ICD_VENDORS="$scratch/vendors" ATTEND_CACHE=off
export OCLGRIND_DATA_RACES=1 OCLGRIND_CHECK_API=1 OCLGRIND_LOG="$scratch/log"
if ! "${ATTEND_ATTEND:-attend}" devices | grep -q 'opencl:0 .*Oclgrind'; then
    echo "1..0 # SKIP the OpenCL loader does not find oclgrind"
    exit 0
fi
n=0
for shape in decode decode_cpu cpu gpu_local gpu_nolocal unfused; do
    n=$((n + 1))
    rm -f "$OCLGRIND_LOG"
    ATTEND_OPENCL_SHAPE=$shape "${ATTEND_ATTEND:-attend}" check --device opencl:0 \
        attention:f32:b1h2g1q3k35d16:causal-br:lse >"$scratch/out" 2>&1
    status=$?
    if [ $status = 0 ] && ! [ -s "$OCLGRIND_LOG" ]; then
        echo "ok $n - $shape: right, and nothing in the simulator's log"
    else
        sed 's/^/# /' "$scratch/out" "$OCLGRIND_LOG"
        echo "not ok $n - $shape: exit status $status, and the log above"
    fi
done
# The backward pass, by cases of t/700.
for case in "cpu attention_packed" "gpu_local attention_packed" "cpu attention_score_packed" \
    "gpu_local attention_score_packed" "cpu mask" "cpu merge"; do
    shape=${case% *}
    n=$((n + 1))
    rm -f "$OCLGRIND_LOG"
    ATTEND_BACKEND=opencl ATTEND_OPENCL_SHAPE=$shape t/700-grad.t ${case#* } >"$scratch/out" 2>&1
    status=$?
    if [ $status = 0 ] && ! [ -s "$OCLGRIND_LOG" ]; then
        echo "ok $n - $case, backward: right, and nothing in the simulator's log"
    else
        grep -e '^not ok' -e '^#' "$scratch/out" | sed 's/^/# /'
        sed 's/^/# /' "$OCLGRIND_LOG"
        echo "not ok $n - $case, backward: exit status $status, and the log above"
    fi
done
echo "1..$n"
