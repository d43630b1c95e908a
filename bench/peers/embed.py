#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sentence embeddings beside sentence-transformers, in one process, call after call in turn:

    python3 -m venv FOLDER && FOLDER/bin/pip install sentence-transformers
    FOLDER/bin/python bench/peers/embed.py --model build/models/minilm [--lib build/.libs/libattend.so]

Both get the same 32 sentences as text and give vectors of length 1; tokens, batches and pooling are part of
the time.  A ratio is attend's time over the other's, the median of those of each round."""
import argparse
import ctypes
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # pools that wait do not take the CPU from others
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

WORDS = ("the river runs past an old mill where children feed ducks and a man with a red hat paints boats "
         "that wait for summer while rain falls on roofs of small houses near a bridge").split()
LENGTHS = {"short": (5, 14), "128 tokens": (126, 126)}  # words; each is one token


class Str(ctypes.Structure):
    _fields_ = [("s", ctypes.c_char_p), ("n", ctypes.c_size_t)]


class CtxOpts(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("threads", ctypes.c_int), ("rest", ctypes.c_uint8 * 1024)]


class Embedder:
    """attend_bert_embed, with a context of so many threads."""

    def __init__(self, lib, model, threads):
        self.lib, self.err = lib, ctypes.create_string_buffer(400)
        opts, self.ctx, self.bert = CtxOpts(), ctypes.c_void_p(), ctypes.c_void_p()
        lib.attend_ctx_opts_init(ctypes.byref(opts))
        opts.threads = threads
        lib.attend_bert_width.restype = ctypes.c_int64
        self.check(lib.attend_ctx_new(ctypes.byref(opts), ctypes.byref(self.ctx)))
        self.check(lib.attend_bert_open(self.ctx, model.encode(), None, ctypes.byref(self.bert), self.err,
                                        ctypes.c_size_t(400)))
        self.width = lib.attend_bert_width(self.bert)

    def check(self, status):
        if status < 0:
            raise RuntimeError(self.err.value.decode() or status)

    def encode(self, sentences):
        out = np.empty((len(sentences), self.width), np.float32)
        texts = [s.encode() for s in sentences]
        table = (Str * len(texts))(*[(t, len(t)) for t in texts])
        self.check(self.lib.attend_bert_embed(self.bert, table, ctypes.c_int64(len(texts)),
                                              ctypes.c_void_p(out.ctypes.data), self.err, ctypes.c_size_t(400)))
        return out


def sentences(low, high, seed):
    r = np.random.default_rng(seed)
    return [" ".join(r.choice(WORDS, r.integers(low, high + 1))) for _ in range(32)]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", required=True, help="a folder, such as ./quickstart --embeddings fetches")
    a.add_argument("--lib", default="build/.libs/libattend.so", help="libattend.so (build/.libs/libattend.so)")
    a.add_argument("--reps", type=int, default=9)
    a.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: of the process")
    args = a.parse_args()
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    lib = ctypes.CDLL(args.lib)
    peer = SentenceTransformer(args.model, device="cpu")
    for name, (low, high) in LENGTHS.items():
        texts = sentences(low, high, 1)
        for threads in (1, 2):
            ours = Embedder(lib, args.model, threads)
            torch.set_num_threads(threads)
            runs = (lambda: ours.encode(texts),
                    lambda: peer.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False))
            off = np.abs(runs[0]() - runs[1]()).max()
            ms = [[], []]
            for _ in range(args.reps):
                for run, times in zip(runs, ms):
                    begin = clock()
                    run()
                    times.append(1e3 * (clock() - begin))
            ratio = statistics.median(a / b for a, b in zip(*ms))
            print("%-10s %d threads: attend %7.2f ms, sentence-transformers %7.2f ms, ratio %.3f, largest difference %.1e"
                  % (name, threads, statistics.median(ms[0]), statistics.median(ms[1]), ratio, off), flush=True)


if __name__ == "__main__":
    main()
