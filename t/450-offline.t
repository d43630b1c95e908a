#!/bin/sh
# SPDX-License-Identifier: MIT
# Kernels for GPUs that are not here, compiled by clang for AMD's: no vector register is spilled, and registers,
# local memory and what an item has in memory (the argument block in backward kernels, else nothing) are at most those of the table.  "slow": older
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

# GPU DV "FILES": compiles them; standard input has kernels, each with the most vector registers, bytes of local
# memory, and bytes of an item in memory.
amd()
{
    { cat "$srcdir/t/amdgcn.h"; program $3; } >"$scratch/k.cl"
    if ! $clang -x cl -cl-std=CL1.2 -target amdgcn-amd-amdhsa -mcpu=$1 -nogpulib -Xclang -finclude-default-header \
        -DAT_DV=$2 -DAT_ITEMS=64 -DAT_B=0 -O2 -S -o "$scratch/k.s" "$scratch/k.cl" 2>"$scratch/err"; then
        sed 's/^/# /' "$scratch/err"
        result 1 "$3, $2 channels, $1: does not compile"
        return
    fi
    while read -r kernel most local memory; do
        seen=$(awk -v kernel=$kernel '
            /^ *\.group_segment_fixed_size:/ { local = $2 }
            /^ *\.name: / { name = $2 }
            /^ *\.private_segment_fixed_size:/ { private = $2 }
            /^ *\.vgpr_count:/ { count = $2 }
            /^ *\.vgpr_spill_count:/ && name == kernel { print count, $2, local, private }' "$scratch/k.s")
        kernel="$kernel, $2 channels, $1"
        fits "$kernel" $most $local $memory $seen
    done
}

# NAME MOST LOCAL MEMORY REGISTERS SPILLED LOCAL MEMORY
fits()
{
    [ "${5:-9999}" -le $2 ] && [ "$6" = 0 ] && [ "$7" -le $3 ] && [ "$8" -le $4 ]
    result $? "$1: ${5:-no} registers (at most $2), $6 spilled, $7 bytes local ($3), $8 in memory ($4)"
}

# GPU: the table
table()
{
    amd $1 64 attn_local <<END
attn_local 208 13696 0
END
    amd $1 128 attn_local <<END
attn_local 240 13696 0
END
    amd $1 64 "attn_merge attn_decode" <<END
decode 208 12896 0
decode_merge 64 0 0
END
    amd $1 128 "attn_merge attn_decode" <<END
decode 224 12896 0
decode_merge 64 0 0
END
    amd $1 64 attn_nolocal <<END
attn_nolocal 144 0 0
END
    amd $1 64 "attn_unfused attn_weights" <<END
unfused_scores 48 0 0
unfused_softmax 32 256 0
unfused_values 32 0 0
weights_ends 24 256 0
weights_rows 24 0 0
weights_columns 32 0 0
weights_pool 48 256 0
weights_top 32 0 0
END
    amd $1 64 attn_mask <<END
mask 56 0 0
mask_grad 56 0 0
END
    amd $1 64 gemm <<END
matmul 72 8448 0
matvec 64 1024 0
END
    amd $1 64 "back attn_back" <<END
back_rows 144 12672 1072
back_keys 160 12672 1072
END
    amd $1 128 "back attn_back" <<END
back_rows 176 12672 1072
back_keys 192 12672 1072
END
}

# DEVICE DV FILES...
intel()
{
    device=$1 dv=$2
    shift 2
    program "$@" >"$scratch/k.cl"
    ocloc compile -device $device -file "$scratch/k.cl" -options "-cl-std=CL1.2 -DAT_DV=$dv -DAT_ITEMS=64" -output k \
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
            intel $device 64 attn_unfused attn_weights
            intel $device 64 attn_mask
        done
    else
        n=$((n + 1))
        echo "ok $n # SKIP ocloc is not here (Debian: intel-opencl-icd)"
    fi
fi
echo "1..$n"
