# SPDX-License-Identifier: MIT
# What scripts share that run the program on the emulated CUDA device.
srcdir=${srcdir:-$(dirname "$0")/..}
ATTEND_LIBCUDA=${ATTEND_CUEMU-none} ATTEND_BACKEND=cuda CUEMU_SCHED=1
export ATTEND_LIBCUDA ATTEND_BACKEND CUEMU_SCHED

skip_all()
{
    echo "1..0 # SKIP $*"
    exit 0
}

need_cuda()
{
    "$ATTEND_ATTEND" devices | grep 'cuda:0' | grep -q 'NVRTC [0-9]' ||
        skip_all "the emulator of CUDA's driver or NVRTC is absent"
}

# need_cases KIND: they and a python that can read them, $python.
need_cases()
{
    [ -d "$ATTEND_FIXTURES/$1" ] || skip_all "ATTEND_FIXTURES names no folder with cases of $1"
    for python in python3 /usr/bin/python3; do
        $python -c 'import numpy' 2>/dev/null && return
    done
    skip_all "python3 with numpy is not here"
}

said=$(mktemp -d) || exit 1
trap 'rm -rf "$said"' EXIT
CUEMU_REPORT=$said/report CUEMU_STATS=$said/stats
export CUEMU_REPORT CUEMU_STATS
count=0

# result STATUS NAME
result()
{
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; fi
}

# device_results NAME: the emulator's checkers reported nothing, and the device had work; then forgets both.
device_results()
{
    [ -z "$ATTEND_REAL_GPU" ] || return 0 # which counts nothing
    sed 's/^/# /' "$CUEMU_REPORT" 2>/dev/null | head -20
    result "$([ ! -s "$CUEMU_REPORT" ]; echo $?)" "$1: the checkers reported nothing"
    result "$([ -s "$CUEMU_STATS" ]; echo $?)" "$1: $(wc -l <"$CUEMU_STATS") launches"
    rm -f "$CUEMU_REPORT" "$CUEMU_STATS"
}
