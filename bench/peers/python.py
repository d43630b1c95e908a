# SPDX-License-Identifier: MIT
"""The Python package beside PyTorch, the same call on the same tensors in turn: median of the processor time
and of the wall time, and whether memory was copied.  ATTEND_LIBRARY names the library, PYTHONPATH the package."""
import argparse
import os
import time

SHAPES = {  # batch, heads, KV heads, rows, keys, head size, causal
    "A": (1, 32, 8, 2048, 2048, 128, True),
    "B": (8, 12, 12, 512, 512, 64, False),
    "E": (1, 32, 8, 1, 4096, 128, False),
}


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("shapes", nargs="*", default=list(SHAPES))
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--reps", type=int, default=9)
    args = args.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import attend
    import torch
    from attend import _memory
    torch.set_num_threads(args.threads)
    attend.set_threads(args.threads)
    for name in args.shapes:
        b, h, g, nq, nk, d, causal = SHAPES[name]
        torch.manual_seed(1)
        q, k, v = torch.randn(b, h, nq, d), torch.randn(b, g, nk, d), torch.randn(b, g, nk, d)
        given = {n: x for n, x in (("q", q), ("k", k), ("v", v))}
        in_place = all(_memory.view(x, n).data == x.data_ptr() for n, x in given.items())
        what = {"is_causal": causal, "enable_gqa": h != g}
        calls = {"attend": attend.scaled_dot_product_attention,
                 "torch": torch.nn.functional.scaled_dot_product_attention}
        times = {n: ([], []) for n in calls}
        with torch.no_grad():
            away = max(float((calls["attend"](q, k, v, **what) - calls["torch"](q, k, v, **what)).abs().max())
                       for _ in range(2))
            for _ in range(args.reps):
                for n, call in calls.items():
                    repeat = 20 if nq == 1 else 1
                    cpu, wall = time.process_time(), time.perf_counter()
                    for _ in range(repeat):
                        call(q, k, v, **what)
                    times[n][0].append((time.process_time() - cpu) / repeat)
                    times[n][1].append((time.perf_counter() - wall) / repeat)
        cpu, wall = ({n: sorted(t[i])[args.reps // 2] * 1e3 for n, t in times.items()} for i in (0, 1))
        print("%s, %d thread%s: processor %.3f ms, torch %.3f (%.2f); wall %.3f, torch %.3f (%.2f); apart by %.1e; "
              "inputs %s" % (name, args.threads, "s" * (args.threads > 1), cpu["attend"], cpu["torch"],
                             cpu["attend"] / cpu["torch"], wall["attend"], wall["torch"],
                             wall["attend"] / wall["torch"], away, "in place" if in_place else "copied"), flush=True)


main()
