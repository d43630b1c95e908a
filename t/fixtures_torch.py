# SPDX-License-Identifier: MIT
"""Runs the reference cases of $ATTEND_FIXTURES/torch through `attend sdpa` and compares with the
check_case.py that lies beside them.  One TAP result for a case, a device and a type; a case of a
feature that does not exist yet is skipped, with the reason."""
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter

FIXTURES = os.environ["ATTEND_FIXTURES"]
ATTEND = os.environ.get("ATTEND_ATTEND", "attend")
sys.dont_write_bytecode = True
sys.path.insert(0, FIXTURES)
import check_case  # noqa: E402
import numpy  # noqa: E402

LATER = {}  # op: what this version lacks
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


def run(command):
    r = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return "" if r.returncode == 0 else "exit %d: %s" % (r.returncode, r.stderr.strip())


def check(case, folder, flags, device, dtype):
    """What went wrong, or nothing."""
    with tempfile.TemporaryDirectory() as out:
        command = [ATTEND, "sdpa", "--device", device, *flags]
        backward = case["op"].endswith("backward")
        if backward:
            command += ["--grads", os.path.join(out, "g")]
        command += ["-o", os.path.join(out, "O.npy"), "--lse", os.path.join(out, "LSE.npy")]
        if dtype in SHORT:
            command += ["--dtype", SHORT[dtype]]
        wrong = run(command)
        if wrong:
            return [wrong]
        for o in case["outputs"] if backward else []:
            file = os.path.join(out, "g.%s.npy" % GRADS.get(o["name"]))
            if os.path.exists(file):
                os.rename(file, os.path.join(out, o["name"] + ".npy"))
        results = check_case.check(folder, out, dtype)[1]
        return ["%s: %s" % (r["name"], r["why"]) for r in results if not r["ok"]]


def devices():
    lines = subprocess.run([ATTEND, "devices", "--json"], check=True, stdout=subprocess.PIPE,
                           text=True).stdout.splitlines()
    return [d["name"] for d in map(json.loads, lines) if d["present"]]


class Tap:
    count = failed = 0

    def result(self, good, name, notes=()):
        self.count += 1
        self.failed += not good
        for note in notes:
            print("#", note.replace("\n", " "))
        print("%sok %d - %s" % ("" if good else "not ", self.count, name))

    def skip(self, name, reason):
        self.count += 1
        print("ok %d - %s # SKIP %s" % (self.count, name, reason), flush=True)


def main(scratch):
    tap, reasons, ran, passed = Tap(), Counter(), 0, 0
    names = devices()
    root = os.path.join(FIXTURES, "torch")
    for name in sorted(os.listdir(root)):
        folder = os.path.join(root, name)
        with open(os.path.join(folder, "case.json")) as f:
            case = json.load(f)
        if case["op"] in LATER:
            reason = "this version has no " + LATER[case["op"]]
            reasons[reason] += 1
            tap.skip(name, reason)
            continue
        flags, before = flags_of(case, folder, scratch), tap.failed
        for device in names:
            for dtype in types_of(case):
                wrong = check(case, folder, flags, device, dtype)
                tap.result(not wrong, "%s %s %s" % (name, device, dtype), wrong)
        ran += 1
        passed += tap.failed == before
    print("1..%d" % tap.count)
    print("# %d cases: %d ran on %s, %d of them passed" %
          (ran + sum(reasons.values()), ran, ", ".join(names), passed))
    for reason, n in sorted(reasons.items()):
        print("# %d skipped: %s" % (n, reason))
    return tap.failed > 0


with tempfile.TemporaryDirectory() as scratch_folder:
    sys.exit(main(scratch_folder))
