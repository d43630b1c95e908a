# SPDX-License-Identifier: MIT
"""Attention as it was before it was fused: OpenBLAS's products (NumPy's) and an exponential between
them, the scores of 256 rows at a time in a buffer that is used again."""
import numpy as np

from problem import Unsupported

ROWS = 256


def unfused(p, threads):
    if p.kind != "f32":
        raise Unsupported("f32 only")
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads, "blas")
    out = np.empty((p.b, p.h, p.sq, p.d), np.float32)
    q = p.q * np.float32(p.d ** -0.5)
    rows = min(ROWS, p.sq) if p.sq > 1 else p.ratio  # decoding: the heads of a group are rows
    space = np.empty(rows * p.skv, np.float32)

    def block(q, k, v, o, seen):
        s = space[: q.shape[0] * k.shape[0]].reshape(q.shape[0], k.shape[0])
        np.matmul(q, k.T, out=s)
        if seen is not None:
            s[~seen] = -np.inf
        s -= s.max(axis=1, keepdims=True)
        np.exp(s, out=s)
        np.matmul(s, v, out=o)
        o /= s.sum(axis=1, keepdims=True)

    def group(b, g):
        k, v = p.k[b, g], p.v[b, g]
        heads = slice(g * p.ratio, (g + 1) * p.ratio)
        if p.sq == 1:
            return block(q[b, heads, 0], k, v, out[b, heads, 0], None)
        for h in range(heads.start, heads.stop):
            for i in range(0, p.sq, rows):
                j0, j1 = p.keys(i)[0], p.keys(min(i + rows, p.sq) - 1)[1]
                seen = masks[i] if p.causal else None
                block(q[b, h, i : i + rows], k[j0:j1], v[j0:j1], out[b, h, i : i + rows], seen)

    masks = {}
    if p.causal and p.sq > 8192:
        raise Unsupported("masks of a long sequence")
    for i in range(0, p.sq if p.causal else 0, rows):
        j0, j1 = p.keys(i)[0], p.keys(min(i + rows, p.sq) - 1)[1]
        masks[i] = p.visible(i, min(i + rows, p.sq))[:, j0:j1]

    def run():
        for b in range(p.b):
            for g in range(p.g):
                group(b, g)

    return run, lambda: out


PEERS = {"openblas": unfused}
