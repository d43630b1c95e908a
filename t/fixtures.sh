# SPDX-License-Identifier: MIT
# What t/*-fixtures-*.t share: fixtures_KIND.py, or why it is skipped.
tests=${srcdir:-$(dirname "$0")/..}/t

skip() {
    echo "1..0 # SKIP $*"
    exit 0
}

# run_cases KIND [DEVICE...]
run_cases() {
    kind=$1
    shift
    [ -n "$ATTEND_FIXTURES" ] || skip "ATTEND_FIXTURES names no folder of reference cases"
    [ -d "$ATTEND_FIXTURES/$kind" ] || skip "there is no folder $ATTEND_FIXTURES/$kind"
    # The first python3 of PATH may be another than the one that Debian's packages are for.
    for python in python3 /usr/bin/python3; do
        if $python -c 'import numpy' 2>/dev/null; then
            exec $python "$tests/fixtures_$kind.py" "$@"
        fi
    done
    skip "python3 with numpy is not here"
}
