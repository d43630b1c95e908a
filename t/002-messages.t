#!/bin/sh
# SPDX-License-Identifier: MIT
# What the library says when a graph, a device, a file or a model is refused: every sentence in the sources is
# listed in messages.txt, and nothing else is, so that whoever writes or changes one reads it beside the
# others.  `t/002-messages.t --list` prints the list as it should be.  The tests of each room cause them:
# 030 (npy), 100 (graphs), 130 and 160 (devices), 140 (what is bound), 800 to 890 (models).
srcdir=${srcdir:-$(dirname "$0")/..}

# Each string of two words or more, its pieces joined: of files, under the name of what they do.
sentences()
{
    echo "== $1"
    shift
    for file; do
        # one line; the macros of printf and scanf, joined, are the letter they stand for
        tr '\n' ' ' <"$file" | sed 's/" *PRI\([diux]\)[0-9A-Z]* *"/\1/g; s/" *PRI\([diux]\)[0-9A-Z]*/\1"/g' | awk '
            function flush() {
                if (text !~ /^[ ,{]/ && text ~ /[a-z%][a-z0-9.]*'"'"'?,? +[^ ]/ && length(text) > 9)
                    print "  " text
                text = ""
            }
            {
                n = length($0)
                for (i = 1; i <= n; i++) {
                    c = substr($0, i, 1)
                    if (c == "\"") {
                        for (i++; (c = substr($0, i, 1)) != "\""; i++) {
                            text = text c
                            if (c == "\\")
                                text = text substr($0, ++i, 1)
                        }
                    } else if (c == "'"'"'") {
                        i += substr($0, i + 1, 1) == "\\" ? 3 : 2
                        flush()
                    } else if (substr($0, i, 2) == "/*") {
                        i += 2 + index(substr($0, i + 2), "*/")
                    } else if (c != " ") {
                        flush()
                    }
                }
                flush()
            }'
    done | LC_ALL=C sort -u
}

list()
(
    cd "$srcdir" || exit
    sentences "graphs, plans and runs" lib/attn.c lib/canon.c lib/dlpack.c lib/exec.c lib/expr.c lib/expr_call.c \
        lib/expr_parse.c lib/grad.c lib/graph.c lib/kvcache.c lib/layers.c lib/memplan.c lib/op*.c lib/plan.c \
        lib/validate.c lib/visible.c
    sentences "devices" lib/context.c lib/place.c simd/select.c opencl/probe.c opencl/share.c cuda/probe.c \
        cuda/compiler.c cuda/share.c
    sentences "files and models" lib/npy.c models/*.c
)

if [ "$1" = --list ]; then
    list
    exit
fi
list | diff "$srcdir/t/messages.txt" - | sed 's/^/# /' >002-messages.tmp
if [ -s 002-messages.tmp ]; then
    cat 002-messages.tmp
    printf 'not '
fi
echo "ok 1 - t/messages.txt has every sentence"
rm -f 002-messages.tmp
echo 1..1
