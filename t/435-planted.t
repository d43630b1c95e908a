#!/bin/sh
# SPDX-License-Identifier: MIT
# Mistakes planted in kernels, by ATTEND_KERNEL_EDIT, are found: a missing barrier and a read past the end of
# a tensor by oclgrind, whose log t/430 wants empty; more local memory than there is by a question before the
# launch.  The fourth kind, an assumption about subgroups, takes a device that has some: t/948.
icd=/usr/lib/oclgrind/liboclgrind-rt-icd.so
if ! [ -f $icd ]; then
    echo "1..0 # SKIP oclgrind is not here"
    exit 0
fi
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/vendors"
echo $icd >"$scratch/vendors/oclgrind.icd"
export OCL_ICD_VENDORS="$scratch/vendors" ATTEND_CACHE=off ATTEND_OPENCL_SHAPE=gpu_local
export OCLGRIND_DATA_RACES=1 OCLGRIND_CHECK_API=1 OCLGRIND_LOG="$scratch/log"
attend=${ATTEND_ATTEND:-attend}
if ! "$attend" devices | grep -q 'opencl:0 .*Oclgrind'; then
    echo "1..0 # SKIP the OpenCL loader does not find oclgrind"
    exit 0
fi
n=0

# NAME, WHAT is to be said, EDIT: in the simulator's log, or why the kernel is not used.
planted()
{
    n=$((n + 1))
    rm -f "$OCLGRIND_LOG"
    ATTEND_KERNEL_EDIT=$3 "$attend" plan --device opencl:0 attention:f32:b1h1g1q9k35d16 >"$scratch/out" 2>&1
    if cat "$scratch/out" "$OCLGRIND_LOG" 2>/dev/null | grep -q "$2"; then
        echo "ok $n - $1: $2"
    else
        sed 's/^/# /' "$scratch/out"
        echo "not ok $n - $1: nobody says \"$2\""
    fi
}

planted "no mistake" "gpu_local" "nothing=>nothing"
planted "a barrier is missing" "data race" "            AT_BARRIER();
            for (int c = 0; c < CHUNK; c++) {=>            for (int c = 0; c < CHUNK; c++) {"
planted "keys past the end are read" "Invalid read" "j < to && c < a->dk=>j < to + 5 && c < a->dk"
planted "too much local memory" "bytes of local memory" "#define PAD 33=>#define PAD 3300"
n=$((n + 1))
if ! [ -s "$OCLGRIND_LOG" ]; then
    echo "ok $n - and no launch was tried with it"
else
    echo "not ok $n - and no launch was tried with it"
fi
echo "1..$n"
