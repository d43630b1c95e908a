#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Attend beside other libraries, in one process, call after call in turn:

    bench/peers/setup FOLDER
    FOLDER/bin/python bench/peers/measure.py --lib build/.libs/libattend.so [--threads 1] [SHAPE...]

A ratio is attend's time over the best peer's, the median of those of each round."""
import argparse
import json
import os
import statistics
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # pools that wait do not take the CPU from others

import attend_peer
import ggml_peer
import openblas_peer
import openvino_peer
import ort_peer
import torch_peer
from machine import cpu, versions
from problem import SHAPES, TYPES, Problem, Unsupported

MODULES = (torch_peer, ort_peer, openvino_peer, ggml_peer, openblas_peer)
ENOUGH = 4e6  # nanoseconds of one measurement
HOPELESS = 8  # times the best peer: such a one is measured once
LONG = 5e8  # nanoseconds after which a first call is not repeated before it counts


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("shapes", nargs="*", metavar="SHAPE", help="of %s (all)" % " ".join(SHAPES))
    a.add_argument("--lib", default="build/.libs/libattend.so", help="libattend.so (build/.libs/libattend.so)")
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--kv-type", default="f32", help="with commas: of %s (f32)" % " ".join(TYPES))
    a.add_argument("--reps", type=int, default=7)
    a.add_argument("--quick", action="store_true",
                   help="3 repetitions, and only the first where a peer takes twice as long as the best")
    a.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: of the process, for one thread")
    a.add_argument("--peers", default="", help="only those whose names have one of these in them (all)")
    a.add_argument("--json", metavar="FILE", help="all of it, too")
    args = a.parse_args()
    args.hopeless = 2 if args.quick else HOPELESS
    args.reps = 3 if args.quick else args.reps
    return args


class Runner:
    def __init__(self, name, run, out, clock):
        self.name, self.run, self.out, self.clock = name, run, out, clock
        self.ns, self.calls = [], 1
        self.first = self.time()  # warms
        if self.first < LONG:
            self.first = self.time()
        self.calls = int(max(1, min(4096, ENOUGH / max(self.first, 1))))

    def time(self):
        run, begin = self.run, self.clock()
        for _ in range(self.calls):
            run()
        return (self.clock() - begin) / self.calls


def makers(args):
    wanted = [w for w in args.peers.split(",") if w]
    for module in MODULES:
        for name, make in module.PEERS.items():
            if not wanted or any(w in name for w in wanted):
                yield name, make


def measure(p, attend, args):
    clock = time.process_time_ns if args.clock == "cpu" else time.perf_counter_ns
    runners, absent = [Runner("attend", *attend.make(p), clock)], {}
    for name, make in makers(args):
        try:
            runners.append(Runner(name, *make(p, args.threads), clock))
        except Unsupported as e:
            absent[name] = str(e)
        except Exception as e:  # a peer that fails is no reason to stop
            absent[name] = "failed: " + " ".join(str(e).split())[:200]
    best = min((r.first for r in runners[1:]), default=0)
    for round in range(args.reps):
        for r in runners:
            if round == 0 or r is runners[0] or r.first < args.hopeless * best:
                r.ns.append(r.time())
    return report(p, runners, absent)


def report(p, runners, absent):
    rows = {}
    for r in runners:
        us, error = statistics.median(r.ns) / 1e3, p.error(r.out())
        rows[r.name] = {"us": us, "gflops": p.flops() / us / 1e3, "error": error, "reps": len(r.ns)}
        if not error <= p.tolerance():
            rows[r.name]["wrong"] = True
        if hasattr(r.out, "end"):
            r.out.end()
    peers = [r for r in runners[1:] if "wrong" not in rows[r.name]]
    best = min(peers, key=lambda r: rows[r.name]["us"], default=None)
    ratio = None
    if best:
        ratio = statistics.median(a / b for a, b in zip(runners[0].ns, best.ns))
    return {"shape": p.name, "kv": p.kind, "best": best.name if best else None, "ratio": ratio, "times": rows,
            "absent": absent}


def tell(r):
    a = r["times"]["attend"]
    print("%-7s %-5s %12.1f us %8.1f GFLOP/s" % (r["shape"], r["kv"], a["us"], a["gflops"]), end="")
    print("  %.3f of %s" % (r["ratio"], r["best"]) if r["best"] else "  no peer")
    for name, x in sorted(r["times"].items(), key=lambda kv: kv[1]["us"]):
        print("      %-12s %12.1f us  error %.1e%s" % (name, x["us"], x["error"], "  WRONG" if x.get("wrong") else ""))
    for name, why in r["absent"].items():
        print("      %-12s %s" % (name, why))
    sys.stdout.flush()


def peers(attend):
    names = ("torch", "onnxruntime", "openvino", "llama-cpp-python", "numpy")
    return {**versions(attend, *names), "ggml": ggml_peer.features()}


def main():
    args = arguments()
    if args.clock == "cpu" and args.threads > 1:
        sys.exit("--clock cpu needs --threads 1: threads add up their time")
    attend = attend_peer.Attend(args.lib, args.threads)
    all = {"cpu": cpu(), "threads": args.threads, "clock": args.clock, "versions": peers(attend), "results": []}
    print(all["cpu"], "|", args.threads, "threads |", args.clock, "|", all["versions"])
    for name in args.shapes or SHAPES:
        for kind in args.kv_type.split(","):
            all["results"].append(measure(Problem(name, kind, attend.store), attend, args))
            tell(all["results"][-1])
    if args.json:
        with open(args.json, "w") as f:
            json.dump(all, f, indent=1)


if __name__ == "__main__":
    main()
