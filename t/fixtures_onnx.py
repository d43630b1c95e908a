# SPDX-License-Identifier: MIT
"""Runs the reference cases of $ATTEND_FIXTURES/onnx through `attend run`: with inputs from .npy
files, compared with the check_case.py that lies beside them, and as the test folders that they also
are.  One TAP result for a case and a device; a case of tier extra, which is not asked for, is skipped."""
import json
import os
import subprocess
import sys
import tempfile

FIXTURES = os.environ["ATTEND_FIXTURES"]
ATTEND = os.environ.get("ATTEND_ATTEND", "attend")
sys.dont_write_bytecode = True
sys.path.insert(0, FIXTURES)
import check_case  # noqa: E402


def run(*args):
    """What the program said when it failed, or nothing."""
    r = subprocess.run([ATTEND, "run", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return "" if r.returncode == 0 else "exit %d: %s %s" % (r.returncode, r.stdout.strip(), r.stderr.strip())


def check(case, folder, device):
    """What went wrong, or nothing."""
    inputs = []
    for i in case["inputs"]:
        if i is not None:
            inputs += ["--input", "%s=%s" % (i["name"], os.path.join(folder, i["file"]))]
    with tempfile.TemporaryDirectory() as out:
        said = run(os.path.join(folder, "model.onnx"), "--device", device, *inputs, "-o", out)
        if said:
            return [said]
        results = check_case.check(folder, out)[1]
        wrong = ["%s: %s" % (r["name"], r["why"]) for r in results if not r["ok"]]
    said = run("--device", device, "--onnx-test", folder)
    return wrong + [said] if said else wrong


def devices():
    lines = subprocess.run([ATTEND, "devices", "--json"], check=True, stdout=subprocess.PIPE,
                           text=True).stdout.splitlines()
    return [d["name"] for d in map(json.loads, lines) if d["present"]]


def main():
    count = failed = extra = ran = passed = 0
    names = devices()
    root = os.path.join(FIXTURES, "onnx")
    for name in sorted(os.listdir(root)):
        folder = os.path.join(root, name)
        with open(os.path.join(folder, "case.json")) as f:
            case = json.load(f)
        if case["tier"] != "main":
            extra += 1
            count += 1
            print("ok %d - %s # SKIP %s is of tier %s" % (count, name, case["op"], case["tier"]))
            continue
        before = failed
        for device in names:
            wrong = check(case, folder, device)
            count += 1
            failed += bool(wrong)
            for note in wrong:
                print("#", note.replace("\n", " "))
            print("%sok %d - %s %s" % ("not " if wrong else "", count, name, device), flush=True)
        ran += 1
        passed += failed == before
    print("1..%d" % count)
    print("# %d cases of tier main ran on %s, %d of them passed; %d of tier extra skipped" %
          (ran, ", ".join(names), passed, extra))
    return failed > 0


sys.exit(main())
