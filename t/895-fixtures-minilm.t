#!/bin/sh
# SPDX-License-Identifier: MIT
# The cases of $ATTEND_FIXTURES/minilm through `attend embed` and `attend map` on the sentence model in
# the folder $ATTEND_EMBEDDER: fixtures_minilm.py.
if [ -z "$ATTEND_FIXTURES" ]; then
    echo "1..0 # SKIP ATTEND_FIXTURES names no folder of reference cases"
elif ! [ -d "$ATTEND_FIXTURES/minilm" ]; then
    echo "1..0 # SKIP there is no folder $ATTEND_FIXTURES/minilm"
elif [ -z "$ATTEND_EMBEDDER" ]; then
    echo "1..0 # SKIP ATTEND_EMBEDDER names no sentence model"
elif ! python3 -c 'import numpy' 2>/dev/null; then
    echo "1..0 # SKIP python3 with numpy is not here"
else
    exec python3 "${srcdir:-$(dirname "$0")/..}/t/fixtures_minilm.py" "$@"
fi
