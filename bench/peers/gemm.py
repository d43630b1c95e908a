#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Products of square f32 matrices beside OpenBLAS (NumPy's), in one process, in turn:

    FOLDER/bin/python bench/peers/gemm.py --lib build/.libs/libattend.so [--threads 1] [N...]

A ratio is attend's time over OpenBLAS's, the median of those of each round."""
import argparse
import ctypes as c
import json
import statistics
import sys
import time

import numpy as np

import attend_peer
from machine import cpu, versions

SIZES = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
ENOUGH = 10e6  # nanoseconds of one measurement


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("sizes", nargs="*", type=int, metavar="N", help="of %s (all)" % " ".join(map(str, SIZES)))
    a.add_argument("--lib", default="build/.libs/libattend.so", help="libattend.so (build/.libs/libattend.so)")
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--reps", type=int, default=9)
    a.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: of the process, for one thread")
    a.add_argument("--json", metavar="FILE", help="all of it, too")
    return a.parse_args()


def seconds(run, calls, clock):
    begin = clock()
    for _ in range(calls):
        run()
    return (clock() - begin) / calls * 1e-9


def measure(attend, n, reps, clock):
    random = np.random.default_rng(3)
    a, b = (random.standard_normal((n, n), dtype=np.float32) for _ in range(2))
    ours, theirs = np.empty_like(a), np.empty_like(a)
    runs = [attend.make_matmul(a, b, ours), lambda: np.matmul(a, b, out=theirs)]
    for run in runs:
        run()
    calls = [int(max(1, min(4096, ENOUGH * 1e-9 / max(seconds(run, 1, clock), 1e-7)))) for run in runs]
    x = [[seconds(run, count, clock) for run, count in zip(runs, calls)] for _ in range(reps)]
    rate = [2e-9 * n ** 3 / statistics.median(column) for column in zip(*x)]
    bound = 4e-7 * n * np.abs(a).max() * np.abs(b).max()
    return {"n": n, "gflops": rate[0], "openblas_gflops": rate[1], "ratio": statistics.median(p / q for p, q in x),
            "difference": float(np.abs(ours - theirs).max()), "wrong": bool(np.abs(ours - theirs).max() > bound)}


def main():
    from threadpoolctl import threadpool_info, threadpool_limits

    args = arguments()
    if args.clock == "cpu" and args.threads > 1:
        sys.exit("--clock cpu needs --threads 1: threads add up their time")
    clock = time.process_time_ns if args.clock == "cpu" else time.perf_counter_ns
    attend = attend_peer.Attend(args.lib, args.threads)
    threadpool_limits(args.threads, "blas")
    blas = ["%s %s %s" % (i["internal_api"], i["version"], i.get("architecture", "")) for i in threadpool_info()
            if i["user_api"] == "blas"]
    print(cpu(), "|", args.threads, "threads |", args.clock, "|", versions(attend, "numpy"), *blas)
    results = []
    for n in args.sizes or SIZES:
        r = measure(attend, n, args.reps, clock)
        results.append(r)
        print("%5d  %8.1f GFLOP/s  OpenBLAS %8.1f  %.3f%s" %
              (n, r["gflops"], r["openblas_gflops"], r["ratio"], "  WRONG" if r["wrong"] else ""), flush=True)
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"cpu": cpu(), "threads": args.threads, "clock": args.clock, "blas": blas, "results": results}, f,
                      indent=1)


if __name__ == "__main__":
    main()
