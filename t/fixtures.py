# SPDX-License-Identifier: MIT
"""What the scripts fixtures_*.py share: the program, its devices, and TAP results of reference cases
in $ATTEND_FIXTURES, compared by the check_case.py that lies beside them."""
import json
import os
import subprocess
import sys

FIXTURES = os.environ["ATTEND_FIXTURES"]
ATTEND = os.environ.get("ATTEND_ATTEND", "attend")
sys.dont_write_bytecode = True
sys.path.insert(0, FIXTURES)
import check_case  # noqa: E402


def attend(*args, text=""):
    """Standard output of the program; a failure is a RuntimeError with what it said."""
    r = subprocess.run([ATTEND, *args], input=text.encode(), capture_output=True)
    if r.returncode != 0:
        raise RuntimeError("exit %d: %s" % (r.returncode, r.stderr.decode().strip()))
    return r.stdout.decode()


def devices():
    """Those that the command line names; all that are here where it names none, or "all"."""
    if sys.argv[1:] not in ([], ["all"]):
        return sys.argv[1:]
    lines = map(json.loads, attend("devices", "--json").splitlines())
    return [d["name"] for d in lines if d["present"]]


def compare(folder, out, **how):
    """What check_case.py finds wrong in folder out, or nothing."""
    results = check_case.check(folder, out, **how)[1]
    return "; ".join("%s: %s" % (r["name"], r["why"]) for r in results if not r["ok"])


def cases(kind):
    """(name, folder, case.json) of each case of a kind, or each $ATTEND_TEST_EVERY-th."""
    root = os.path.join(FIXTURES, kind)
    for name in sorted(os.listdir(root))[:: int(os.environ.get("ATTEND_TEST_EVERY") or 1)]:
        folder = os.path.join(root, name)
        file = os.path.join(folder, "case.json")
        if os.path.exists(file):
            with open(file) as f:
                yield name, folder, json.load(f)


class Tap:
    count = failed = 0

    def result(self, name, check, *args):
        """check says what is wrong, or nothing."""
        try:
            wrong = check(*args)
        except RuntimeError as e:
            wrong = str(e)
        self.count += 1
        self.failed += bool(wrong)
        if wrong:
            print("#", wrong.replace("\n", " "))
        print("%sok %d - %s" % ("not " if wrong else "", self.count, name), flush=True)

    def skip(self, name, reason):
        self.count += 1
        print("ok %d - %s # SKIP %s" % (self.count, name, reason), flush=True)

    def end(self):
        """The plan; then the exit status."""
        print("1..%d" % self.count)
        sys.exit(self.failed > 0)
