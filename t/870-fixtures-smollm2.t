#!/bin/sh
# SPDX-License-Identifier: MIT
# The cases of smollm2 through `attend logits` and `attend generate` on the model $ATTEND_MODEL, on
# simd, or the devices named.
. "${srcdir:-$(dirname "$0")/..}/t/fixtures.sh"
[ -n "$ATTEND_MODEL" ] || skip "ATTEND_MODEL names no model"
run_cases smollm2 "$@"
