#!/bin/sh
# SPDX-License-Identifier: MIT
# Operators, gradients and random problems on every architecture that the emulator plays; its checkers on
# PTX of old and new compilers; attention as Triton compiles it.  Compilers come from PyPI, once, into
# t/cuda.wheels (400 MB); what cannot be had is skipped.
srcdir=$(cd "${srcdir:-$(dirname "$0")/..}" && pwd)
wheels=$PWD/t/cuda.wheels
count=0
mkdir -p "$wheels"

# result NAME STATUS
result()
{
    count=$((count + 1))
    if [ "$2" = 0 ]; then echo "ok $count - $1"; else echo "not ok $count - $1"; fi
}

skip()
{
    count=$((count + 1))
    echo "ok $count # SKIP $1"
}

# wheel FOLDER PACKAGE: unpacks it there, unless it is there.
wheel()
{
    [ -f "$wheels/$1/done" ] && return 0
    python3 -m pip install -q --no-deps --target "$wheels/$1" "$2" >"$wheels/log" 2>&1 &&
        touch "$wheels/$1/done"
}

# on CC NAME COMMAND...: a test on an architecture, with nothing reported.
on()
{
    cc=$1 name=$2
    shift 2
    rm -f "$wheels/report"
    CUEMU_CC=$cc CUEMU_REPORT=$wheels/report "$@" >"$wheels/out" 2>&1
    status=$?
    grep '^not ok' "$wheels/out" | sed 's/^/# /'
    if [ -s "$wheels/report" ]; then
        head -5 "$wheels/report" | sed 's/^/# /'
        status=1
    fi
    result "$name, sm_$cc: $(grep -c '^ok' "$wheels/out") results" $status
}

for cc in 75 90 100 120; do
    on $cc operators t/520-cuda-operators.t
    on $cc gradients t/540-cuda-grad.t
done
for cc in 75 80 90 100 120; do
    on $cc "random words" env ATTEND_LIBCUDA="$ATTEND_CUEMU" ATTEND_BACKEND=cuda t/920-random.t ${cc}00 40
    on $cc "random gradients" env ATTEND_LIBCUDA="$ATTEND_CUEMU" ATTEND_BACKEND=cuda t/925-random-grad.t ${cc}00 10
done
for cc in 75 80 90 100 120; do
    on $cc "attention, the grid" "$srcdir/t/525-cuda-attention.t" slow
done

for package in nvidia-cuda-nvrtc-cu11==11.8.89 nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-nvrtc==13.5.37; do
    folder=nvrtc-${package#*==}
    if wheel $folder $package; then
        lib=$(ls "$wheels/$folder"/nvidia/*/lib/libnvrtc.so.[0-9]* | head -1)
        ATTEND_LIBNVRTC=$lib CUEMU_DRIVER=14000 t/510-cuemu-checkers.t >"$wheels/out" 2>&1
        status=$?
        grep '^not ok' "$wheels/out" | sed 's/^/# /'
        result "checkers, $package: $(grep -c '^ok' "$wheels/out") results" $status
    else
        skip "$package could not be had from PyPI"
    fi
done

if wheel triton triton==3.9.0 && PYTHONPATH=$wheels/triton python3 -c 'import triton' 2>/dev/null; then
    for kind in 75,1 80,1 80,3 86,2 89,3 120,2; do
        cc=${kind%,*} stages=${kind#*,} ptx=$wheels/flash-$cc-$stages.ptx
        shared=$(PYTHONPATH=$wheels/triton TRITON_CACHE_DIR=$wheels/cache \
            python3 "$srcdir/t/triton_flash.py" "$cc" "$stages" "$ptx" 2>"$wheels/log")
        for mode in lazy eager; do
            t/triton_run "$ptx" "${shared:-0}" "$cc" $mode "$cc"
            result "Triton's attention, sm_$cc, $stages stages, $mode" $?
        done
    done
else
    skip "Triton could not be had from PyPI"
fi
echo "1..$count"
