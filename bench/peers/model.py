#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A language model beside llama.cpp, in one process, in turn: tokens a second of a prompt of 512
tokens, and of decoding where 16 and 512 tokens came before.

    FOLDER/bin/python bench/peers/model.py MODEL.gguf --lib build/.libs/libattend.so [--threads 1]

A ratio is attend's time over that of the faster llama.cpp, flash on or off; the median of those of each round."""
import argparse
import ctypes as c
import json
import os
import random
import statistics
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import attend_peer
from machine import cpu, versions

PROMPT, SHORT, CONTEXT = 512, 16, 1024
PHASES = ("prefill %d" % PROMPT, "decode at %d" % PROMPT, "decode at %d" % SHORT)


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("model")
    a.add_argument("--lib", default="build/.libs/libattend.so", help="libattend.so (build/.libs/libattend.so)")
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--reps", type=int, default=5)
    a.add_argument("--tokens", type=int, default=32, help="decoded each time (32)")
    a.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: of the process, for one thread")
    a.add_argument("--json", metavar="FILE", help="all of it, too")
    return a.parse_args()


class LlamaOpts(c.Structure):
    _fields_ = [("size", c.c_size_t), ("device", c.c_char_p), ("context", c.c_int64), ("batch", c.c_int64),
                ("kv", c.c_int), ("precision", c.c_int), ("rest", c.c_char * 256)]


class Attend:
    """The model by this library; precision as in attend.h: 0 exact, 2 int8."""

    def __init__(self, attend, path, precision):
        self.lib, self.err = attend.lib, c.create_string_buffer(320)
        file, self.model, opts = c.c_void_p(), c.c_void_p(), LlamaOpts()
        self.must(self.lib.attend_gguf_open(path.encode(), c.byref(file), self.err, 320))
        self.lib.attend_llama_opts_init(c.byref(opts))
        opts.context, opts.precision = CONTEXT, precision
        self.must(self.lib.attend_llama_new(attend.ctx, file, c.byref(opts), c.byref(self.model), self.err, 320))
        self.lib.attend_llama_vocabulary.restype = c.c_int64
        self.vocabulary = self.lib.attend_llama_vocabulary(self.model)
        self.logits = (c.c_float * self.vocabulary)()

    def must(self, status):
        if status < 0:
            raise RuntimeError(self.err.value.decode())

    def reset(self):
        self.lib.attend_llama_reset(self.model)

    def feed(self, tokens):
        ids, n = (c.c_int32 * len(tokens))(*tokens), len(tokens)
        self.must(self.lib.attend_llama_feed(self.model, ids, c.c_int64(n), c.c_int64(n - 1), self.logits, self.err,
                                             c.c_size_t(320)))


class LlamaCpp:
    def __init__(self, path, threads, flash, cache={}):
        import llama_cpp as L

        self.L, opts = L, L.llama_context_default_params()
        if not cache:
            quiet = L.llama_log_callback(lambda *_: None)
            L.llama_log_set(quiet, None)
            L.llama_backend_init()
            cache["model"] = L.llama_model_load_from_file(path.encode(), L.llama_model_default_params())
            cache["quiet"] = quiet
        opts.n_ctx, opts.n_batch, opts.n_ubatch = CONTEXT, PROMPT, PROMPT
        opts.n_threads = opts.n_threads_batch = threads
        opts.flash_attn_type = int(flash)
        opts.no_perf = True
        self.context = L.llama_init_from_model(cache["model"], opts)

    def reset(self):
        self.L.llama_memory_clear(self.L.llama_get_memory(self.context), True)

    def feed(self, tokens):
        ids = (c.c_int32 * len(tokens))(*tokens)  # which the batch points to
        if self.L.llama_decode(self.context, self.L.llama_batch_get_one(ids, len(tokens))) != 0:
            raise RuntimeError("llama_decode failed")
        self.logits = self.L.llama_get_logits(self.context)


def most_likely(runner, vocabulary):
    return max(range(vocabulary), key=runner.logits.__getitem__)


def one_round(runner, tokens, count, clock):
    """Nanoseconds a token of each phase."""
    def timed(feed, n):
        begin = clock()
        feed()
        return (clock() - begin) / n

    decode = lambda: [runner.feed([t]) for t in tokens[:count]]
    runner.reset()
    ns = [timed(lambda: runner.feed(tokens), PROMPT), timed(decode, count)]
    runner.reset()
    runner.feed(tokens[:SHORT])
    return ns + [timed(decode, count)]


def measure(runners, args, vocabulary):
    clock = time.process_time_ns if args.clock == "cpu" else time.perf_counter_ns
    tokens = [random.Random(1).randrange(100, vocabulary) for _ in range(PROMPT)]
    rounds = {name: [] for name in runners}
    for name, r in runners.items():
        one_round(r, tokens, args.tokens, clock)  # warm
        print("%-22s the token after these: %d" % (name, most_likely(r, vocabulary)))
    for _ in range(args.reps):
        for name, r in runners.items():
            rounds[name].append(one_round(r, tokens, args.tokens, clock))
    return rounds


def report(rounds):
    results = []
    for at, phase in enumerate(PHASES):
        ns = {name: [r[at] for r in each] for name, each in rounds.items()}
        best = min((n for n in ns if n.startswith("llama.cpp")), key=lambda n: statistics.median(ns[n]))
        for name, x in ns.items():
            ratio = statistics.median(a / b for a, b in zip(x, ns[best]))
            rate = 1e9 / statistics.median(x)
            results.append({"phase": phase, "name": name, "tokens_per_second": rate, "best": best, "ratio": ratio})
            print("%-14s %-22s %9.1f tokens/s  %.3f of %s" % (phase, name, rate, ratio, best))
    return results


def main():
    args = arguments()
    if args.clock == "cpu" and args.threads > 1:
        sys.exit("--clock cpu needs --threads 1: threads add up their time")
    attend = attend_peer.Attend(args.lib, args.threads)
    print(cpu(), "|", args.threads, "threads |", args.clock, "|", versions(attend, "llama-cpp-python"))
    exact = Attend(attend, args.model, 0)
    runners = {"attend": exact, "attend int8": Attend(attend, args.model, 2),
               "llama.cpp": LlamaCpp(args.model, args.threads, False),
               "llama.cpp flash": LlamaCpp(args.model, args.threads, True)}
    results = report(measure(runners, args, exact.vocabulary))
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"cpu": cpu(), "threads": args.threads, "clock": args.clock, "results": results}, f, indent=1)


if __name__ == "__main__":
    main()
