#!/bin/sh
# SPDX-License-Identifier: MIT
# The cases of minilm through `attend embed` and `attend map` on the sentence model in the folder
# $ATTEND_EMBEDDER.
. "${srcdir:-$(dirname "$0")/..}/t/fixtures.sh"
[ -n "$ATTEND_EMBEDDER" ] || skip "ATTEND_EMBEDDER names no sentence model"
run_cases minilm
