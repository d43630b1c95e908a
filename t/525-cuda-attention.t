#!/bin/sh
# SPDX-License-Identifier: MIT
# Attention on the emulated CUDA device, a word for each of its kernels; `slow` runs the whole grid.
ATTEND_LIBCUDA=${ATTEND_CUEMU-none} ATTEND_BACKEND=cuda
CUEMU_CC=${CUEMU_CC-80} CUEMU_SCHED=1
export ATTEND_LIBCUDA ATTEND_BACKEND CUEMU_CC CUEMU_SCHED
if ! "$ATTEND_ATTEND" devices | grep 'cuda:0' | grep -q 'NVRTC [0-9]'; then
    echo "1..0 # SKIP the emulator of CUDA's driver or NVRTC is absent"
    exit 0
fi
words="attention:f32:b1h4g2q9k17d16:causal-br attention:f16:b2h2g2q33k65d64 attention:f32:b1h2g1q1k70d32"
# A group of decode passes over 512 of so many keys, in two steps: else its sums never meet a new maximum.
words="$words attention:f32:b1h2g1q1k16500d16:huge:lse"
[ "$1" = slow ] && words=
exec "$ATTEND_ATTEND" check --quiet --device cuda:0 $words
