#!/bin/sh
# SPDX-License-Identifier: MIT
# The cases of $ATTEND_FIXTURES/smollm2 through `attend logits` and `attend generate` on the model
# $ATTEND_MODEL: fixtures_smollm2.py.  Argument "slow": all of them on the reference too.
if [ -z "$ATTEND_FIXTURES" ]; then
    echo "1..0 # SKIP ATTEND_FIXTURES names no folder of reference cases"
elif ! [ -d "$ATTEND_FIXTURES/smollm2" ]; then
    echo "1..0 # SKIP there is no folder $ATTEND_FIXTURES/smollm2"
elif [ -z "$ATTEND_MODEL" ]; then
    echo "1..0 # SKIP ATTEND_MODEL names no model"
elif ! python3 -c 'import numpy' 2>/dev/null; then
    echo "1..0 # SKIP python3 with numpy is not here"
else
    exec python3 "${srcdir:-$(dirname "$0")/..}/t/fixtures_smollm2.py" "$@"
fi
