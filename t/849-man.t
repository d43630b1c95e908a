#!/bin/sh
# SPDX-License-Identifier: MIT
# The manual page knows every verb, and every flag that a verb's help lists.
srcdir=${srcdir:-$(dirname "$0")/..}
count=0
[ -n "$ATTEND_ATTEND" ] || { echo "1..0 # SKIP ATTEND_ATTEND does not name the program"; exit; }
sed 's/\\-/-/g; s/\\fB//g; s/\\fI//g; s/\\fP//g' "$srcdir/doc/attend.1" >849-man.tmp
for verb in $("$ATTEND_ATTEND" --help | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p'); do
    absent=
    grep -q "^\.B $verb" 849-man.tmp || absent=" $verb"
    for flag in $("$ATTEND_ATTEND" $verb --help | sed -n 's/^  \(-[-a-z]*\).*/\1/p'); do
        grep -q -e "$flag\\([^-a-z]\\|\$\\)" 849-man.tmp || absent="$absent $flag"
    done
    count=$((count + 1))
    if [ -z "$absent" ]; then
        echo "ok $count - $verb and its flags"
    else
        echo "# absent:$absent"
        echo "not ok $count - $verb and its flags"
    fi
done
rm 849-man.tmp
echo "1..$count"
