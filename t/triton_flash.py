# SPDX-License-Identifier: MIT
"""Has Triton compile an attention kernel: triton_flash.py CC STAGES OUT.ptx, which prints the bytes of
shared memory.  No GPU is needed.  t/triton_run.c runs it."""
import sys
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def flash(Q, K, V, O, S, scale, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    base = tl.program_id(1) * S * D
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl.load(Q + base + rows[:, None] * D + d[None, :])
    m = tl.full([BM], -float("inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    for n in range(0, S, BN):
        keys = n + tl.arange(0, BN)
        k = tl.load(K + base + keys[None, :] * D + d[:, None])
        v = tl.load(V + base + keys[:, None] * D + d[None, :])
        s = tl.dot(q, k) * scale
        top = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - top[:, None])
        shrink = tl.exp2(m - top)
        l = l * shrink + tl.sum(p, 1)
        acc = tl.dot(p.to(tl.float16), v, acc * shrink[:, None])
        m = top
    tl.store(O + base + rows[:, None] * D + d[None, :], acc / l[:, None])


cc, stages, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
source = ASTSource(
    fn=flash,
    signature=dict(Q="*fp16", K="*fp16", V="*fp16", O="*fp32", S="i32", scale="fp32",
                   BM="constexpr", BN="constexpr", D="constexpr"),
    constexprs=dict(BM=64, BN=64, D=64),
    attrs={(i,): [["tt.divisibility", 16]] for i in range(5)})
kernel = triton.compile(source, target=GPUTarget("cuda", cc, 32),
                        options=dict(num_warps=4, num_stages=stages))
with open(out, "w") as f:
    f.write(kernel.asm["ptx"])
print(kernel.metadata.shared)
