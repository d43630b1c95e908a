#!/bin/sh
# SPDX-License-Identifier: MIT
# The cases of $ATTEND_FIXTURES/torch through `attend sdpa`, on every device here: fixtures_torch.py.
if [ -z "$ATTEND_FIXTURES" ]; then
    echo "1..0 # SKIP ATTEND_FIXTURES names no folder of reference cases"
    exit 0
elif ! [ -d "$ATTEND_FIXTURES/torch" ]; then
    echo "1..0 # SKIP there is no folder $ATTEND_FIXTURES/torch"
    exit 0
fi
# The first python3 of PATH may be another than the one that Debian's packages are for.
for python in python3 /usr/bin/python3; do
    if $python -c 'import numpy' 2>/dev/null; then
        exec $python "${srcdir:-$(dirname "$0")/..}/t/fixtures_torch.py"
    fi
done
echo "1..0 # SKIP python3 with numpy is not here"
