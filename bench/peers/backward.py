#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Attention forward and backward, beside PyTorch's fused path, call after call in turn on one thread:

    FOLDER/bin/python bench/peers/backward.py --lib build/.libs/libattend.so [--reps N] [SHAPE...]

(FOLDER: bench/peers/setup).  Processor time; ratios are medians of those of each round.  Operations are 3.5 times
those of the forward pass.  ATTEND_ISA=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ATEN_CPU_CAPABILITY=avx2 holds both
to AVX2; `attend bench` says what the machine's multiply-adds are."""
import argparse
import ctypes as c
import statistics
import time

import numpy as np
import torch

from attend_peer import TYPE, Attend, AttentionOpts, Shape, Tensor
from machine import cpu

# B, Hq, Hkv, S, D, causal
SHAPES = {"B": (8, 12, 12, 512, 64, False), "A1024": (1, 32, 8, 1024, 128, True)}
KINDS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def flops(name):
    b, h, _, s, d, causal = SHAPES[name]
    return 3.5 * 4 * b * h * d * (s * (s + 1) / 2 if causal else s * s)


def numbers(name):
    b, h, g, s, d, _ = SHAPES[name]
    random = np.random.default_rng(7)
    return {n: random.standard_normal((b, heads, s, d), dtype=np.float32)
            for n, heads in (("q", h), ("k", g), ("v", g), ("do", h))}


def attend_run(a, name, kind, x):
    """A call, and its gradients of Q, K and V."""
    lib, g = a.lib, c.c_void_p(a.lib.attend_graph_new(a.ctx))
    opts, none = AttentionOpts(), Tensor(None, -1)
    lib.attend_attention_opts_init(c.byref(opts))
    opts.causal, opts.align = int(SHAPES[name][-1]), 2
    t = {n: lib.attend_graph_input(g, n.encode(), TYPE["f32" if n == "do" else kind],
                                   Shape(4, (c.c_int64 * 6)(*v.shape))) for n, v in x.items()}
    out = lib.attend_graph_attention(g, t["q"], t["k"], t["v"], c.byref(opts), None)
    wrt, grads = (Tensor * 3)(t["q"], t["k"], t["v"]), (Tensor * 3)(none, none, none)
    a.must(lib.attend_grad(g, c.byref(out), c.byref(t["do"]), 1, wrt, 3, grads, None), lib.attend_graph_error(g))
    arrays = {n: v if n == "do" else a.store(kind, v)[0] for n, v in x.items()}
    lib.attend_graph_output(g, b"o", out)
    arrays["o"] = np.empty_like(x["q"])
    for n, grad in zip("qkv", grads):
        lib.attend_graph_output(g, b"d" + n.encode(), grad)
        arrays["d" + n] = np.empty_like(x[n])
    run = a.prepare(g, arrays)
    run.arrays = arrays  # as long as the call lives
    return run, [arrays["d" + n] for n in "qkv"]


def torch_run(name, kind, x):
    _, h, g, _, _, causal = SHAPES[name]
    q, k, v, do = (torch.from_numpy(x[n]).to(KINDS[kind]).requires_grad_(n != "do") for n in ("q", "k", "v", "do"))

    def run():
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=h != g)
        return torch.autograd.grad(o, (q, k, v), do)

    return run


def measure(a, name, kinds, reps):
    x, runs = numbers(name), {}
    for kind in kinds:
        runs["attend " + kind], grads = attend_run(a, name, kind, x)
        runs["torch " + kind] = theirs = torch_run(name, kind, x)
        runs["attend " + kind]()
        apart = max(float(np.abs(ours - t.float().numpy()).max()) for ours, t in zip(grads, theirs()))
        print("%s %s: gradients differ by %.1e from PyTorch's" % (name, kind, apart))
    ns = {n: [] for n in runs}
    for _ in range(reps):
        for n, run in runs.items():
            begin = time.thread_time_ns()
            run()
            ns[n].append(time.thread_time_ns() - begin)
    for n in runs:
        ms = statistics.median(ns[n]) / 1e6
        over = {other: statistics.median(p / q for p, q in zip(ns[n], ns[other]))
                for other in (n.replace("attend", "torch"), "attend f32")}
        print("  %-12s %8.1f ms %7.1f GFLOP/s" % (n, ms, flops(name) / ms / 1e6),
              *("  %.3f of %s" % (r, other) for other, r in over.items() if n.startswith("attend") and other != n))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("shapes", nargs="*", metavar="SHAPE", help="of %s (all)" % " ".join(SHAPES))
    p.add_argument("--lib", default="build/.libs/libattend.so", help="libattend.so (build/.libs/libattend.so)")
    p.add_argument("--types", default="f32", help="with commas: of f32, f16, bf16 (f32)")
    p.add_argument("--reps", type=int, default=9)
    args = p.parse_args()
    torch.set_num_threads(1)
    a = Attend(args.lib, 1)
    print(cpu(), "| PyTorch", torch.__version__, torch.backends.cpu.get_cpu_capability())
    for name in args.shapes or SHAPES:
        measure(a, name, args.types.split(","), args.reps)


main()
