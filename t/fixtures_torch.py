# SPDX-License-Identifier: MIT
"""Runs the cases of torch through `attend sdpa`.  One TAP result for a case, a device and a type."""
import os
import sys
import tempfile

import numpy

from fixtures import Tap, attend, cases, compare, devices

# Inputs that become a flag with a file.
FILES = {"Q": "--q", "K": "--k", "V": "--v", "attn_mask": "--mask", "alibi_slopes": "--alibi",
         "sinks": "--sinks", "dO": "--dout", "cu_seqlens_q": "--q-lens", "cu_seqlens_k": "--kv-lens"}
GRADS = {"dQ": "dq", "dK": "dk", "dV": "dv", "dsinks": "dsinks", "dWq": "dwq", "dWk": "dwk", "dv": "dva"}
SHORT = {"float16": "f16", "bfloat16": "bf16"}


def additive_flags(case, folder, scratch):
    """Those of additive attention; the mask of keys gets the axes of heads and rows."""
    files = {i["name"]: os.path.join(folder, i["file"]) for i in case["inputs"] if i is not None}
    flags = ["--additive", ",".join(files.pop(name) for name in ("Wq", "Wk", "v"))]
    if "key_mask" in files:
        mask = os.path.join(scratch, case["id"].replace("/", "-") + ".npy")
        numpy.save(mask, numpy.load(files.pop("key_mask"))[:, None, None, :])
        flags += ["--mask", mask]
    for name, file in files.items():
        flags += [FILES[name], file]
    return flags


def flags_of(case, folder, scratch):
    """The flags of `attend sdpa` that say what case.json says; KeyError for an unknown input."""
    attrs, flags = case["attrs"], []
    if case["op"].startswith("additive"):
        return additive_flags(case, folder, scratch)
    for i in case["inputs"]:
        if i is not None:
            flags += [FILES[i["name"]], os.path.join(folder, i["file"])]
    if attrs.get("scale"):
        flags += ["--scale", repr(attrs["scale"])]
    if attrs.get("softcap"):
        flags += ["--softcap", repr(attrs["softcap"])]
    if attrs.get("window"):
        flags += ["--window", "%d,%d" % tuple(attrs["window"])]
    # Windows and ALiBi of these cases stand bottom-right.
    causal = attrs.get("causal") or "none"
    if causal != "none":
        flags += ["--causal", "--align", causal.replace("_", "-")]
    elif attrs.get("window") or attrs.get("alibi"):
        flags += ["--align", "bottom-right"]
    return flags


def types_of(case):
    """float32, and each type in which inputs are exact and tolerances are given."""
    given = [set(o.get("by_dtype", {})) for o in case["outputs"] if o.get("required", True)]
    exact = set(case["inputs_exact_in"])
    return ["float32"] + sorted(exact.intersection(*given) if given else [])


def check(folder, case, flags, device, dtype):
    with tempfile.TemporaryDirectory() as out:
        command = ["sdpa", "--device", device, *flags]
        backward = case["op"].endswith("backward")
        if backward:
            command += ["--grads", os.path.join(out, "g")]
        command += ["-o", os.path.join(out, "O.npy"), "--lse", os.path.join(out, "LSE.npy")]
        if dtype in SHORT:
            command += ["--dtype", SHORT[dtype]]
        attend(*command)
        for o in case["outputs"] if backward else []:
            file = os.path.join(out, "g.%s.npy" % GRADS.get(o["name"]))
            if os.path.exists(file):
                os.rename(file, os.path.join(out, o["name"] + ".npy"))
        return compare(folder, out, dtype=dtype)


def main(scratch):
    tap, names, ran, passed = Tap(), devices(), 0, 0
    for name, folder, case in cases("torch"):
        flags, before = flags_of(case, folder, scratch), tap.failed
        for device in names:
            for dtype in types_of(case):
                tap.result("%s %s %s" % (name, device, dtype), check, folder, case, flags, device,
                           dtype)
        ran += 1
        passed += tap.failed == before
    print("# %d cases ran on %s, %d of them passed" % (ran, ", ".join(names), passed))
    tap.end()


with tempfile.TemporaryDirectory() as scratch_folder:
    main(scratch_folder)
