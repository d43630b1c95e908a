# SPDX-License-Identifier: MIT
"""The standard shapes as every peer gets them: the same numbers, rounded to the same type."""
import numpy as np

TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")

# B, Hq, Hkv, Sq, Skv, D, causal, window (keys that a row sees, itself counted; 0: all)
SHAPES = {
    "A": (1, 32, 8, 2048, 2048, 128, True, 0),
    "B": (8, 12, 12, 512, 512, 64, False, 0),
    "C1": (2, 8, 8, 4096, 77, 64, False, 0),
    "C2": (2, 8, 8, 4096, 4096, 64, False, 0),
    "D": (1, 4, 4, 16384, 16384, 64, True, 0),
    "E4096": (1, 32, 8, 1, 4096, 128, False, 0),
    "E32768": (1, 32, 8, 1, 32768, 128, False, 0),
    "F": (16, 32, 8, 1, 4096, 128, False, 0),
    "G": (1, 4, 4, 16384, 16384, 64, True, 512),
    "I": (1, 4, 4, 16, 16, 32, False, 0),
}


class Unsupported(Exception):
    """Why a peer cannot do a problem."""


class Problem:
    def __init__(self, name, kind, store):
        """store(kind, x): the f32 array x in type kind, and what its numbers then are."""
        self.name, self.kind = name, kind
        (self.b, self.h, self.g, self.sq, self.skv, self.d, self.causal, self.window) = SHAPES[name]
        self.ratio, self.decode = self.h // self.g, self.sq == 1
        random = np.random.default_rng(7)
        rows = lambda heads, n: random.standard_normal((self.b, heads, n, self.d), dtype=np.float32)
        self.q_kind = "f32" if kind in ("q8_0", "q4_0") else kind
        self.q_stored, self.q = store(self.q_kind, rows(self.h, self.sq))
        self.k_stored, self.k = store(kind, rows(self.g, self.skv))
        self.v_stored, self.v = store(kind, rows(self.g, self.skv))

    def keys(self, i):
        """The keys [first, end) that row i sees."""
        end = i + 1 if self.causal else self.skv
        return (max(0, end - self.window) if self.window else 0), end

    def flops(self):
        pairs = sum(end - first for first, end in map(self.keys, range(self.sq)))
        return 4 * self.b * self.h * pairs * self.d

    def expanded(self, x):
        """Keys or values with a copy for each query head, for peers without groups."""
        return np.repeat(x, self.ratio, axis=1) if self.ratio > 1 else x

    def visible(self, i0, i1):
        """bool [i1 - i0, Skv]"""
        i, j = np.arange(i0, i1)[:, None], np.arange(self.skv)[None, :]
        seen = np.ones((i1 - i0, self.skv), bool)
        if self.causal:
            seen &= j <= i
        if self.window:
            seen &= i - j < self.window
        return seen

    def error(self, out):
        """The largest difference from float64 over 64 rows; out is (B, H, Sq, D)."""
        random, worst = np.random.default_rng(11), 0.0
        for _ in range(64):
            b, h, i = (int(random.integers(n)) for n in (self.b, self.h, self.sq))
            first, end = self.keys(i)
            k, v = (x[b, h // self.ratio, first:end].astype(np.float64) for x in (self.k, self.v))
            s = k @ self.q[b, h, i].astype(np.float64) / np.sqrt(self.d)
            p = np.exp(s - s.max())
            worst = max(worst, float(np.abs(p @ v / p.sum() - out[b, h, i]).max()))
        return worst

    def tolerance(self):
        """Beyond this a result is wrong: peers that compute in 16 bits, or quantise q, are not."""
        return {"f32": 2e-5, "f16": 1e-2, "bf16": 5e-2, "q8_0": 2e-2, "q4_0": 3e-2}[self.kind]
