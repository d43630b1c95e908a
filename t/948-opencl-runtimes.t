#!/bin/sh
# SPDX-License-Identifier: MIT
# Other implementations of OpenCL, each alone by OCL_ICD_VENDORS: Intel's for CPUs (a compiler of its own, fp16,
# subgroups), from PyPI, once, into t/opencl.intel (800 MB); Mesa's rusticl where it is installed; and oclgrind, for
# what takes it longer than t/430 may.  Intel's runs every word of `attend check` and the reference cases, and must
# show what a barrier of a subgroup alone leaves wrong: the fourth of the mistakes that t/435 plants.
srcdir=$(cd "${srcdir:-$(dirname "$0")/..}" && pwd)
attend=${ATTEND_ATTEND:-attend}
intel=$PWD/t/opencl.intel
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/vendors"
export OCL_ICD_VENDORS="$scratch/vendors" ATTEND_CACHE="$scratch/programs"
n=0

# result STATUS NAME
result()
{
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}

skip()
{
    n=$((n + 1))
    echo "ok $n # SKIP $1"
}

# use LIBRARY NAME: is it the one that the loader finds?
use()
{
    echo "$1" >"$scratch/vendors/one.icd"
    "$attend" devices 2>/dev/null | grep -q "opencl:0 .*$2"
}

# counted NAME COMMAND...: TAP of its own becomes one result with the count.
counted()
{
    name=$1
    shift
    "$@" >"$scratch/out" 2>&1
    status=$?
    grep '^not ok' "$scratch/out" | sed 's/^/# /'
    result $status "$name: $(grep '^ok' "$scratch/out" | grep -vc '# SKIP') results"
}

if ! [ -f "$intel/lib/libintelocl.so" ]; then
    { python3 -m venv "$intel" && "$intel/bin/pip" install -q intel-opencl-rt intel-cmplr-lib-rt; } >/dev/null 2>&1
fi
if use "$intel/lib/libintelocl.so" Intel; then
    counted "Intel: the grid" "$attend" check --device opencl:0
    for test in 850-fixtures-torch 890-fixtures-onnx; do
        if [ -n "$ATTEND_FIXTURES" ]; then
            counted "Intel: $test" sh "$srcdir/t/$test.t" opencl:0
        else
            skip "ATTEND_FIXTURES names no folder of reference cases"
        fi
    done
    ATTEND_OPENCL_SHAPE=gpu_local ATTEND_CACHE=off ATTEND_KERNEL_EDIT="#define AT_BARRIER() barrier(CLK_LOCAL_MEM_FENCE)=>#pragma OPENCL EXTENSION cl_khr_subgroups : enable
#define AT_BARRIER() sub_group_barrier(CLK_LOCAL_MEM_FENCE)" \
        "$attend" plan --device opencl:0 attention:f32:b1h1g1q9k35d16 2>&1 | grep -q 'its trial gave'
    result $? "Intel: a group is no subgroup, and the trial of the kernel says so"
else
    skip "Intel's OpenCL for CPUs is not here (PyPI: intel-opencl-rt, intel-cmplr-lib-rt)"
fi
if use /usr/lib/oclgrind/liboclgrind-rt-icd.so Oclgrind; then
    export OCLGRIND_DATA_RACES=1 OCLGRIND_CHECK_API=1 OCLGRIND_LOG="$scratch/log"
    ATTEND_OPENCL_SHAPE=unfused ATTEND_BACKEND=opencl counted "oclgrind: weights" t/233-weights-packed.t few
    ! [ -s "$OCLGRIND_LOG" ]
    result $? "and nothing in its log"
else
    skip "oclgrind is not here"
fi
export RUSTICL_ENABLE=llvmpipe
if use "${RUSTICL:-libRusticlOpenCL.so.1}" llvmpipe; then
    word=attention:f32:b1h2g1q9k35d16:causal-br:lse # of the other shapes llvmpipe makes nothing in minutes
    for shape in unfused gpu_nolocal; do
        ATTEND_OPENCL_SHAPE=$shape counted "rusticl: $shape" "$attend" check --device opencl:0 $word
        ATTEND_OPENCL_SHAPE=$shape "$attend" plan --device opencl:0 $word 2>/dev/null | grep -q "opencl:0/$shape"
        result $? "rusticl: $shape is what ran"
    done
else
    skip "Mesa's rusticl is not here (Debian: mesa-opencl-icd)"
fi
echo "1..$n"
