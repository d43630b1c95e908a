# SPDX-License-Identifier: MIT
"""Runs the cases of onnx through `attend run`: with inputs from .npy files, and as the test folders
that they also are.  One TAP result for a case and a device; a case of tier extra, which is not asked
for, is skipped."""
import os
import tempfile

from fixtures import Tap, attend, cases, compare, devices


def check(folder, case, device):
    inputs = []
    for i in case["inputs"]:
        if i is not None:
            inputs += ["--input", "%s=%s" % (i["name"], os.path.join(folder, i["file"]))]
    with tempfile.TemporaryDirectory() as out:
        attend("run", os.path.join(folder, "model.onnx"), "--device", device, *inputs, "-o", out)
        wrong = compare(folder, out)
    attend("run", "--device", device, "--onnx-test", folder)
    return wrong


def main():
    tap, names, extra, ran, passed = Tap(), devices(), 0, 0, 0
    for name, folder, case in cases("onnx"):
        if case["tier"] != "main":
            extra += 1
            tap.skip(name, "%s is of tier %s" % (case["op"], case["tier"]))
            continue
        before = tap.failed
        for device in names:
            tap.result("%s %s" % (name, device), check, folder, case, device)
        ran += 1
        passed += tap.failed == before
    print("# %d cases of tier main ran on %s, %d of them passed; %d of tier extra skipped" %
          (ran, ", ".join(names), passed, extra))
    tap.end()


main()
