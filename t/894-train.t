#!/bin/sh
# SPDX-License-Identifier: MIT
# Training that was stopped and resumed is training that was not: the same bits, on one thread or two.
srcdir=${srcdir:-$(dirname "$0")/..}
tmp=894-train.tmp
gpt=$(pwd)/examples/train/gpt
count=0

# check NAME: says whether the last command went well, and what it said where not.
check()
{
    good=$?
    count=$((count + 1))
    if [ $good = 0 ]; then
        echo "ok $count - $1"
    else
        sed 's/^/# /' $tmp/said
        echo "not ok $count - $1"
    fi
}

[ -x "$gpt" ] || { echo "1..0 # SKIP this build has no examples/train/gpt"; exit; }
rm -rf $tmp && mkdir $tmp || exit 1
text=$srcdir/HACKING.md

ATTEND_THREADS=1 "$gpt" $tmp/whole --steps 4 "$text" >$tmp/said 2>&1
check "four steps"
ATTEND_THREADS=2 "$gpt" $tmp/parts --steps 2 "$text" >$tmp/said 2>&1
check "two steps, on two threads"
cp $tmp/parts/model.safetensors $tmp/half
ATTEND_THREADS=1 "$gpt" $tmp/parts --steps 4 "$text" >$tmp/said 2>&1
check "two more"
for file in checkpoint model; do
    cmp $tmp/whole/$file.safetensors $tmp/parts/$file.safetensors >$tmp/said 2>&1
    check "$file.safetensors has the same bits"
done
! cmp -s $tmp/half $tmp/parts/model.safetensors
check "which are not those after two steps"
rm -rf $tmp
echo "1..$count"
