#!/bin/sh
# SPDX-License-Identifier: MIT
# The page of `attend map` in a browser without a screen: that its script runs to its end, in the grid and with
# a head enlarged.
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
tmp=$PWD/975-page.tmp
count=0

# has TEXT NAME
has()
{
    count=$((count + 1))
    if grep -q -F "$1" $tmp/dom; then
        echo "ok $count - $2"
    else
        head -c 2000 $tmp/dom | sed 's/^/# /'
        echo "not ok $count - $2"
    fi
}

# load URL: the page's document when its script is done.
load()
{
    timeout 120 "$chromium" --headless --no-sandbox --disable-gpu --user-data-dir=$tmp/profile \
        --virtual-time-budget=5000 --window-size=1400,900 --dump-dom "$1" >$tmp/dom 2>$tmp/said
}

[ -n "$chromium" ] || { echo "1..0 # SKIP there is no chromium"; exit; }
[ -f "$ATTEND_MODEL" ] || { echo "1..0 # SKIP ATTEND_MODEL names no model"; exit; }
rm -rf $tmp && mkdir $tmp || exit 1
"$ATTEND_ATTEND" map -m "$ATTEND_MODEL" "The quick brown fox jumps over the lazy dog." -o $tmp/page.html --quiet ||
    echo "Bail out! attend map failed"

load "file://$tmp/page.html"
has 'layers of' "the page says what it shows"
has '<figcaption>0.0' "the first head is there"
has 'class="on"' "and chosen"
has '> fox</span>' "tokens are there"
load "file://$tmp/page.html#1.0,4"
has '<div id="large" class="open">' "a head can be opened by the address"
has 'looks at' "and a token tells where it looks"

# A file's weights, whose rows and columns have tokens of their own.
printf '\223NUMPY\001\000v\000%-117s\n' \
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" >$tmp/w.npy
printf '\000\000\200\077%.0s' 1 2 3 4 5 6 >>$tmp/w.npy
printf 'here\nthere\n' >$tmp/rows
printf 'ici\noh\nla\n' >$tmp/columns
(cd $tmp && "$ATTEND_ATTEND" map --weights w.npy --labels rows,columns -o two.html) ||
    echo "Bail out! attend map failed"
load "file://$tmp/two.html#0.0,1"
has '<span class="from">there</span>' "of two texts, a token of the rows"
has 'to (columns)' "at those of the columns"
rm -rf $tmp
echo "1..$count"
