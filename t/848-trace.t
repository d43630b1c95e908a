#!/bin/sh
# SPDX-License-Identifier: MIT
# --trace FILE, and the plan as JSON and DOT: read by other programs.
srcdir=${srcdir:-$(dirname "$0")/..}
[ -n "$ATTEND_ATTEND" ] || { echo "1..0 # SKIP ATTEND_ATTEND does not name the program"; exit; }
command -v python3 >/dev/null || { echo "1..0 # SKIP there is no python3 to read JSON"; exit; }
exec python3 "$srcdir/t/trace.py"
