#!/bin/sh
# SPDX-License-Identifier: MIT
# A language model on the emulated CUDA device: the logits of the shortest case, keys and values in f32
# and f16, every step on the device.  Some minutes of processor time each.
. "${srcdir:-$(dirname "$0")/..}/t/on_cuda.sh"
need_cuda
need_cases smollm2
[ -n "$ATTEND_MODEL" ] || skip_all "ATTEND_MODEL names no model"
folder=$ATTEND_FIXTURES/smollm2/p1_chat_capital
rows=$(sed -n 's/.*"prompt_tokens": *\([0-9]*\).*/\1/p' "$folder/case.json")

# logits KV TIER
logits()
{
    "$ATTEND_ATTEND" plan -m "$ATTEND_MODEL" --device cuda:0 --kv "$1" >"$said/plan" 2>/dev/null
    elsewhere=$(grep -e '->' "$said/plan" | grep -cv -e '-> cuda:0/')
    result "$([ -s "$said/plan" ] && [ "$elsewhere" = 0 ]; echo $?)" \
        "--kv $1: $(grep -ce '-> cuda:0/' "$said/plan") steps on the device, $elsewhere elsewhere"
    "$ATTEND_ATTEND" logits -m "$ATTEND_MODEL" --tokens "$folder/in/tokens.npy" --from "$rows" \
        --device cuda:0 --kv "$1" -o "$said/logits.npy" 2>"$said/err"
    status=$?
    [ $status = 0 ] || sed 's/^/# /' "$said/err"
    result $status "--kv $1: logits"
    $python "$ATTEND_FIXTURES/check_case.py" "$folder" "$said" --tier "$2" >"$said/tap" 2>&1
    status=$?
    sed 's/^/# /' "$said/tap"
    result $status "--kv $1: within tier $2"
    device_results "--kv $1"
}

logits f32 fp32
logits f16 fp16kv
echo "1..$count"
