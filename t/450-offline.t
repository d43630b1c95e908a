#!/bin/sh
# SPDX-License-Identifier: MIT
# Kernels for GPUs that are not here, compiled by clang for AMD's: no vector register is spilled, nothing of an
# item is in memory, and registers and local memory are at most those of the table.  "slow": older
# architectures, too, and Intel's by ocloc where that is installed, which says where it spills.
clang=
for c in clang clang-19 clang-16 clang-15 clang-14; do
    [ -z "$clang" ] && $c --print-targets 2>/dev/null | grep -q amdgcn && clang=$c
done
if [ -z "$clang" ]; then
    echo "1..0 # SKIP there is no clang that knows amdgcn"
    exit 0
fi
srcdir=${srcdir:-$(dirname "$0")/..}
text=$srcdir/backends/portable
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
n=0

result()
{
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}

# FILES... > the text of a program
program()
{
    cat "$text/prelude.cl" "$srcdir/backends/kernel_args.h" "$text/score.cl"
    for f in "$@"; do cat "$text/$f.cl"; done
}

# GPU DV KERNEL VGPRS LOCAL FILES...
amd()
{
    gpu=$1 dv=$2 kernel=$3 most=$4 local=$5
    shift 5
    { cat "$srcdir/t/amdgcn.h"; program "$@"; } >"$scratch/k.cl"
    if ! $clang -x cl -cl-std=CL1.2 -target amdgcn-amd-amdhsa -mcpu=$gpu -nogpulib -Xclang -finclude-default-header \
        -DAT_DV=$dv -O2 -S -o "$scratch/k.s" "$scratch/k.cl" 2>"$scratch/err"; then
        sed 's/^/# /' "$scratch/err"
        result 1 "$kernel, $dv channels, $gpu: does not compile"
        return
    fi
    seen=$(awk -v kernel=$kernel '
        /^ *\.group_segment_fixed_size:/ { local = $2 }
        /^ *\.name: / && $2 ~ /^(attn_|decode)/ { name = $2 }
        /^ *\.private_segment_fixed_size:/ { private = $2 }
        /^ *\.vgpr_count:/ { count = $2 }
        /^ *\.vgpr_spill_count:/ && name == kernel { print count, $2, local, private }' "$scratch/k.s")
    set -- $seen
    [ "${1:-9999}" -le $most ] && [ "$2" = 0 ] && [ "$3" -le $local ] && [ "$4" = 0 ]
    result $? "$kernel, $dv channels, $gpu: ${1:-no} registers (at most $most), $2 spilled, $3 bytes local ($local), $4 in memory"
}

# GPU: the table
table()
{
    amd $1 64 attn_local 208 13696 attn_local
    amd $1 128 attn_local 240 13696 attn_local
    amd $1 64 decode 208 9568 attn_merge attn_decode
    amd $1 128 decode 224 9568 attn_merge attn_decode
    amd $1 64 decode_merge 64 0 attn_merge attn_decode
    amd $1 64 attn_nolocal 144 0 attn_nolocal
}

# DEVICE DV FILES...
intel()
{
    device=$1 dv=$2
    shift 2
    program "$@" >"$scratch/k.cl"
    ocloc compile -device $device -file "$scratch/k.cl" -options "-cl-std=CL1.2 -DAT_DV=$dv" -output k \
        -out_dir "$scratch" >"$scratch/err" 2>&1
    status=$?
    grep -i spill "$scratch/err" | sed 's/^/# /'
    grep -qi spill "$scratch/err" && status=1
    result $status "$*, $dv channels, $device: compiles without spills"
}

table gfx1030
if [ "$1" = slow ]; then
    table gfx906
    table gfx90a
    if command -v ocloc >/dev/null; then
        for device in dg2 tgllp; do
            for dv in 64 128; do
                intel $device $dv attn_local
                intel $device $dv attn_merge attn_decode
            done
            intel $device 64 attn_nolocal
        done
    else
        n=$((n + 1))
        echo "ok $n # SKIP ocloc is not here (Debian: intel-opencl-icd)"
    fi
fi
echo "1..$n"
