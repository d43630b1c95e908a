# SPDX-License-Identifier: MIT
"""The Python package: scaled_dot_product_attention against a formula in float64 and the reference cases,
without copies, by several threads, and what it refuses."""
import json
import os
import subprocess
import sys
import threading

import numpy as np

sys.dont_write_bytecode = True
import attend  # noqa: E402
from attend import _memory  # noqa: E402

sdpa = attend.scaled_dot_product_attention
count = failed = 0


def ok(good, name):
    global count, failed
    count += 1
    failed += not good
    print("%sok %d - %s" % ("" if good else "not ", count, name), flush=True)


def formula(q, k, v, mask=None, causal=False, scale=None):
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    group = q.shape[-3] // k.shape[-3] if q.ndim > 2 else 1
    if group > 1:
        k, v = np.repeat(k, group, -3), np.repeat(v, group, -3)
    s = q @ np.swapaxes(k, -1, -2) * (1 / np.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        s = np.where(np.tril(np.ones(s.shape[-2:], bool)), s, -np.inf)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    top = s.max(-1, keepdims=True)
    p = np.exp(s - np.where(np.isinf(top), 0, top))
    total = p.sum(-1, keepdims=True)
    return p / np.where(total == 0, 1, total) @ v


class Foreign:
    """An array that can only be had by DLPack, and whose library is this module."""
    taken = []

    def __init__(self, a):
        self.a, self.shape = a, a.shape

    def __dlpack__(self, **_):
        return self.a.__dlpack__()

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


def from_dlpack(x):
    Foreign.taken.append(x.managed.contents.tensor.data)
    return Foreign(np.from_dlpack(x))


rng = np.random.default_rng(9)


def draw(*shape):
    return rng.standard_normal(shape, dtype=np.float32)


def close(got, want, bound=1e-5):
    return got.shape == want.shape and np.abs(got.astype(np.float64) - want).max(initial=0) <= bound


def test_shapes():
    for q, k, v in [((5, 8), (7, 8), (7, 3)), ((3, 5, 8), (3, 7, 8), (3, 7, 8)),
                    ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 16)),
                    ((2, 2, 3, 5, 8), (2, 2, 3, 7, 8), (2, 2, 3, 7, 8)), ((0, 2, 5, 8), (0, 2, 7, 8), (0, 2, 7, 8))]:
        q, k, v = draw(*q), draw(*k), draw(*v)
        ok(close(sdpa(q, k, v), formula(q, k, v)), "shape %s" % (q.shape,))
    q, k, v = draw(1, 6, 9, 16), draw(1, 2, 9, 16), draw(1, 2, 9, 16)
    ok(close(sdpa(q, k, v, enable_gqa=True), formula(q, k, v)), "grouped heads")
    ok(close(sdpa(q, k, v, is_causal=True, enable_gqa=True), formula(q, k, v, causal=True)), "causal")
    ok(close(sdpa(q, k, v, scale=0.5, enable_gqa=True), formula(q, k, v, scale=0.5)), "scale")
    for shape in [(9, 9), (9,), (1, 6, 9, 9), (6, 1, 9), (1, 1, 9, 1)]:
        mask = rng.random(shape) < 0.6
        ok(close(sdpa(q, k, v, mask, enable_gqa=True), formula(q, k, v, mask)), "bool mask %s" % (shape,))
        mask = draw(*shape)
        ok(close(sdpa(q, k, v, mask, enable_gqa=True), formula(q, k, v, mask)), "float mask %s" % (shape,))
    ok(not sdpa(q, k, v, np.zeros(9, bool), enable_gqa=True).any(), "a row that sees nothing is 0")
    mask = rng.random((9, 9)) < 0.6
    ok(close(sdpa(q, k, v, mask, is_causal=True, enable_gqa=True), formula(q, k, v, mask, causal=True)),
       "mask and causal both hold")


def test_types():
    q, k, v = (draw(1, 2, 9, 16).astype(np.float16) for _ in range(3))
    got = sdpa(q, k, v)
    ok(got.dtype == np.float16 and close(got, formula(q, k, v), 4e-3), "f16 gives f16")


def test_memory():
    q, k, v = (draw(1, 4, 9, 3, 16)[:, :, :, 1] for _ in range(3))
    ok(_memory.view(q, "q").data == q.__array_interface__["data"][0], "strided memory is read in place")
    ok(close(sdpa(q, k, v), formula(q, k, v)), "and gives the same")
    t = np.swapaxes(draw(1, 4, 16, 9), -1, -2)
    ok(close(sdpa(t, k, v), formula(t, k, v)), "a last axis with a stride is copied")
    whole = draw(1, 9, 3, 4, 16)
    q, k, v = (np.swapaxes(whole[:, :, i], 1, 2) for i in range(3))
    ok(close(sdpa(q, k, v), formula(q, k, v)), "heads last, side by side")

    f = [Foreign(x) for x in (q, k, v)]
    ok(_memory.view(f[0], "q").data == q.__array_interface__["data"][0], "DLPack memory is read in place")
    got = sdpa(*f)
    ok(close(got.a, formula(q, k, v)), "and gives the same")
    ok(got.a.__array_interface__["data"][0] == Foreign.taken[-1], "which is handed out in place")
    made, m = _memory.empty_like(f[0], (2, 3), attend._library.F32)
    capsule = m.owner.__dlpack__()
    ok("dltensor" in repr(capsule), "what nobody takes")
    del capsule, made, m
    ok(True, "is given back")


def test_threads():
    q, k, v = draw(2, 4, 65, 32), draw(2, 4, 65, 32), draw(2, 4, 65, 32)
    want, got = formula(q, k, v), [None] * 8

    def work(i):
        got[i] = [close(sdpa(q, k, v), want) for _ in range(10)]
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    attend.set_threads(1)
    [t.join() for t in threads]
    attend.set_threads(0)
    ok(all(all(g) for g in got), "eight threads at once, while the context is changed")
    names = [name for name, _ in attend.devices()]
    ok("ref" in names, "devices: %s" % ", ".join(names))
    attend.set_device("ref")
    ok(close(sdpa(q, k, v), want), "on the reference")
    attend.set_device("auto")
    for i in range(80):
        sdpa(draw(1, 1, i + 1, 8), k[:1, :1, :, :8], v[:1, :1])
    ok(len(attend._plans) == 64, "plans do not grow without end")


def test_refusals():
    q, k = draw(1, 2, 5, 8), draw(1, 2, 7, 8)
    for name, error, call in [
            ("dropout_p is 0.1, and must be 0", ValueError, lambda: sdpa(q, k, k, dropout_p=0.1)),
            ('align is "left", and can be "top-left" or "bottom-right"', ValueError,
             lambda: sdpa(q, k, k, is_causal=True, align="left")),
            ("query has 4 axes, and packed sequences have three", ValueError,
             lambda: sdpa(q, k, k, q_lens=np.zeros(2, np.int32), kv_lens=np.zeros(2, np.int32))),
            ("query has 2 heads and key has 1; enable_gqa allows that", ValueError,
             lambda: sdpa(q, k[:, :1], k[:, :1])),
            ("query is a list, and should be a NumPy array or have __dlpack__", TypeError,
             lambda: sdpa([1], k, k)),
            ("query is of type complex64, which is not supported", TypeError,
             lambda: sdpa(q.astype(np.complex64), k, k)),
            ("query has 1 axes, and needs two at least", ValueError, lambda: sdpa(q[0, 0, 0], k, k)),
            ("head size", attend.Error, lambda: sdpa(q, k[..., :4], k))]:
        try:
            call()
            said = "nothing"
        except error as e:
            said = str(e)
        ok(name in said, "says: " + said)


def check_outputs(case, folder, got, dtype):
    """Are they within the case's tolerances, and infinities where they should be?"""
    for o in case["outputs"]:
        if o["name"] not in got:
            continue
        bound = o if dtype == "float32" else o["by_dtype"][dtype]
        w, g = np.load(os.path.join(folder, o["file"])), np.asarray(got[o["name"]], np.float64)
        with np.errstate(invalid="ignore"):
            near = np.abs(g - w) <= bound["atol"] + bound["rtol"] * np.abs(w)
        if g.shape != w.shape or not (near | (g == w)).all():
            return False
    return True


def test_end():
    """When Python ends, the context may be finalised before the plans made with it."""
    script = """if True:
        import os, attend, numpy as np
        q = np.ones((1, 1, 2, 4), np.float32)
        attend.scaled_dot_product_attention(q, q, q)
        attend._context.__del__()
        attend._plans.popitem()[1].__del__()
        os._exit(7)"""
    try:
        status = subprocess.run([sys.executable, "-c", script], timeout=60).returncode
    except subprocess.TimeoutExpired:
        status = None
    ok(status == 7, "a context may go before its plans")


def run_case(folder, dtype):
    """None where the case is not of that type."""
    with open(os.path.join(folder, "case.json")) as f:
        case = json.load(f)
    attrs, results = case["attrs"], ("O", "LSE") if dtype == "float32" else ("O",)  # others have no LSE
    if case["op"].endswith("backward"):
        return None
    if dtype != "float32" and not (dtype in case["inputs_exact_in"] and all(
            dtype in o.get("by_dtype", {}) for o in case["outputs"] if o["name"] in results)):
        return None
    x = {i["name"]: np.load(os.path.join(folder, i["file"])) for i in case["inputs"] if i}
    q, k, v = (x[n].astype(dtype) for n in "QKV")
    if case["op"] == "additive_attention":
        mask = x["key_mask"][:, None, None, :] if "key_mask" in x else None
        got = attend.additive_attention(q, k, v, x["Wq"], x["Wk"], x["v"], mask), None
    else:
        causal = attrs["causal"]
        got = sdpa(q, k, v, x.get("attn_mask"), is_causal=causal != "none", scale=attrs["scale"], enable_gqa=True,
                   align="top-left" if causal == "top_left" else "bottom-right", window=attrs.get("window"),
                   softcap=attrs["softcap"], alibi_slopes=x.get("alibi_slopes"), sinks=x.get("sinks"),
                   q_lens=x.get("cu_seqlens_q"), kv_lens=x.get("cu_seqlens_k"), return_lse=True)
    return check_outputs(case, folder, {n: g for n, g in zip(results, got) if g is not None}, dtype)


def test_cases():
    root = os.path.join(os.environ.get("ATTEND_FIXTURES", ""), "torch")
    if not os.path.isdir(root):
        return
    for dtype in "float32", "float16":
        for name in sorted(os.listdir(root)):
            good = run_case(os.path.join(root, name), dtype)
            if good is not None:
                ok(good, "%s %s" % (name, dtype))


if __name__ == "__main__":
    for test in (test_shapes, test_types, test_memory, test_threads, test_refusals, test_end, test_cases):
        test()
    print("1..%d" % count)
    sys.exit(failed > 0)
