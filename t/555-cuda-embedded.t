#!/bin/sh
# SPDX-License-Identifier: MIT
# The PTX that is embedded, on the emulated CUDA device without NVRTC: what is embedded runs there, what
# is not says so, and a driver that is older than the PTX refuses it.
. "${srcdir:-$(dirname "$0")/..}/t/on_cuda.sh"
ATTEND_LIBNVRTC=none ATTEND_CACHE=off CUEMU_CC=${CUEMU_CC-86}
export ATTEND_LIBNVRTC ATTEND_CACHE CUEMU_CC
[ -f "$ATTEND_CUEMU" ] || skip_all "the emulator of CUDA's driver is absent"
"$ATTEND_ATTEND" devices | grep 'cuda:0' >"$said/devices"
if grep -q 'no NVRTC, and no embedded PTX' "$said/devices"; then
    "$ATTEND_ATTEND" plan attention:f32:b1h2g1q9k17d64 --device cuda:0 >"$said/out" 2>&1
    result "$([ $? != 0 ]; echo $?)" "without NVRTC and embedded PTX the device is absent"
    echo "ok 2 # SKIP this build embeds no PTX"
    echo "1..2"
    exit 0
fi
grep -q 'no NVRTC, but embedded PTX' "$said/devices"
result $? "devices says what there is"

# placed WORD PATTERN NAME
placed()
{
    "$ATTEND_ATTEND" plan "$1" --device cuda:0 >"$said/plan" 2>&1
    grep -q -e "$2" "$said/plan"
    status=$?
    [ $status = 0 ] || sed 's/^/# /' "$said/plan"
    result $status "$3"
}

for word in attention:f32:b1h2g2q70k70d64:causal-br attention:f16:b1h4g2q33k65d128 attention:f32:b1h4g2q1k70d64; do
    placed $word 'attention.*-> cuda:0/' "$word is on the device"
    "$ATTEND_ATTEND" check --quiet --device cuda:0 $word >"$said/out" 2>&1
    status=$?
    [ $status = 0 ] || sed 's/^/# /' "$said/out"
    result $status "$word is right"
done
device_results "embedded PTX"
placed attention:f32:b1h2g1q9k17d64:xmask7 'not among the embedded' "a printed expression is not embedded"
CUEMU_DRIVER=10020
export CUEMU_DRIVER
placed attention:f32:b1h2g1q9k17d64 'takes no program for compute_75, embedded (222)' \
    "an older driver refuses the PTX"
echo "1..$count"
