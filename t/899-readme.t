#!/bin/sh
# SPDX-License-Identifier: MIT
# The commands of README.md, each line of its indented blocks: run in a folder of their own, at sizes that a test
# can wait for; of those that install or fetch things it is seen that the files they name are there.  A line
# of no known kind fails.  The blocks of C are 896-examples.t's.
srcdir=$(cd "${srcdir:-$(dirname "$0")/..}" && pwd)
built=$PWD
tmp=$PWD/899-readme.tmp
count=0
[ -n "$ATTEND_ATTEND" ] && [ -x "$ATTEND_ATTEND" ] || { echo "1..0 # SKIP ATTEND_ATTEND does not name the program"; exit; }

# result NAME, after a command whose words are in $tmp/said.
result()
{
    status=$?
    count=$((count + 1))
    [ $status = 0 ] || { sed 's/^/# /' $tmp/said; printf 'not '; }
    echo "ok $count - $1"
}

skip()
{
    count=$((count + 1))
    echo "ok $count # SKIP $2: $1"
}

# What README calls by names of its own, as it is here.
rm -rf $tmp && mkdir -p $tmp/bin $tmp/F && cd $tmp || exit 1
printf '#!/bin/sh\nexec "%s" "$@"\n' "$ATTEND_ATTEND" >bin/attend
printf '#!/bin/sh\necho "-I%s/lib" "%s/libattend.la" -lm\n' "$srcdir" "$built" >bin/pkg-config
printf '#!/bin/sh\nPATH=%s\nexec "%s/libtool" --quiet --tag=CC --mode=link %s %s -o a.out "$@"\n' \
    "'$PATH'" "$built" "${CC:-cc}" "$CFLAGS" >bin/cc
chmod +x bin/*
PATH=$tmp/bin:$PATH
awk '/^```c$/ { inside = 1; next } /^```/ { inside = 0 } inside' "$srcdir/README.md" >example.c
awk '/^```/ { fenced = !fenced } !fenced && /^    / { sub(/^    /, ""); sub(/ +# .*/, ""); print }' "$srcdir/README.md" >lines

# files LINE: does each file of ours that it names exist?
files()
{
    for word in $1; do
        case $word in
        ./check | ./quickstart | ./bootstrap | bench/*) [ -x "$srcdir/$word" ] || [ -f "$srcdir/$word" ] || { echo "$word"; return 1; } ;;
        esac
    done
}

while IFS= read -r line; do
    small=$(printf '%s\n' "$line" | sed "s|FOLDER|F|g; s|MODEL.gguf|$ATTEND_MODEL|g; s|SmolLM2[^ ]*.gguf|$ATTEND_MODEL|
        s|--steps [0-9]*|--steps 3|; s|--sample [0-9]*|--sample 5|; s|common-licenses/\*|common-licenses/GPL-3|
        s|^examples/|$built/examples/|; s|^\\$ ||
        s|attend bench \(A B C2 D \)*|attend bench I --reps 1 |g; s|A B C2 D ||")
    case $line in
    import\ attend*) python="import numpy; query = key = value = numpy.ones((1, 2, 5, 8), numpy.float32); import attend" ;;
    out\ =\ attend.*)
        if [ -f "$built/.libs/libattend.so" ] && python3 -c 'import numpy' 2>/dev/null &&
            ! nm -D "$built/.libs/libattend.so" | grep -q -e __asan_ -e __tsan_; then
            ATTEND_LIBRARY=$built/.libs/libattend.so PYTHONPATH=$srcdir/python PYTHONDONTWRITEBYTECODE=1 \
                python3 -c "$python
$line" >said 2>&1
            result "$line"
        else
            skip "$line" "no shared library or no numpy"
        fi
        ;;
    *quickstart* | ./check* | *venv* | *peers*)
        files "$line" >said
        result "$line (its files are there)"
        ;;
    attend\ sdpa\ ...* | ...* | '' | \ *attention\ f32*) ;;
    attend* | \$\ attend* | examples/* | cc\ * | head\ *)
        case $line in *MODEL.gguf* | *SmolLM2*.gguf* | *"-m DIR"*) [ -f "$ATTEND_MODEL" ] || { skip "$line" "no model"; continue; } ;; esac
        case $line in examples/train/*) [ -x "${small%% *}" ] || { skip "$line" "no such example here"; continue; } ;; esac
        case $line in *FOLDER/*) [ -d F ] && [ -f F/date.txt ] || { skip "$line" "nothing was learnt"; continue; } ;; esac
        case $line in cc\ *) [ -f "$built/libattend.la" ] || { skip "$line" "no libattend.la"; continue; } ;; esac
        case $line in *common-licenses*) [ -f /usr/share/common-licenses/GPL-3 ] || { skip "$line" "no such text"; continue; } ;; esac
        sh -c "$small" >said 2>&1 </dev/null
        result "$line"
        case $line in cc\ *) ./a.out >said 2>&1 && grep -q '^0.6698 0.3302$' said; result "and it prints what README says" ;; esac
        ;;
    *)
        echo "no rule for it in $0" >said
        false
        result "$line"
        ;;
    esac
done <lines
cd "$built" && rm -rf $tmp
echo "1..$count"
