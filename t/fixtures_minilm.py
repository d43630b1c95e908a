# SPDX-License-Identifier: MIT
"""Runs the reference cases of $ATTEND_FIXTURES/minilm on the sentence model $ATTEND_EMBEDDER: tokens,
embeddings and attention maps, compared by the check_case.py that lies beside them."""
import json
import os
import subprocess
import sys
import tempfile

FIXTURES = os.environ["ATTEND_FIXTURES"]
ATTEND = os.environ.get("ATTEND_ATTEND", "attend")
MODEL = os.environ["ATTEND_EMBEDDER"]
ROOT = os.path.join(FIXTURES, "minilm")
DEVICES = ["ref", "simd"]
sys.dont_write_bytecode = True
sys.path.insert(0, FIXTURES)
import check_case  # noqa: E402


def attend(*args, text=""):
    """Standard output of the program; a failure is a RuntimeError with what it said."""
    r = subprocess.run([ATTEND, *args], input=text.encode(), capture_output=True)
    if r.returncode != 0:
        raise RuntimeError("exit %d: %s" % (r.returncode, r.stderr.decode().strip()))
    return r.stdout.decode()


def compare(folder, out):
    return "; ".join(r["why"] for r in check_case.check(folder, out)[1] if not r["ok"])


def check_embeddings(folder, case, device, flags):
    text = "".join(s + "\n" for s in case["attrs"]["sentences"])
    with tempfile.TemporaryDirectory() as out:
        attend("embed", "-m", MODEL, "-o", os.path.join(out, "embeddings.npy"), "--device", device,
               "--quiet", *flags, text=text)
        return compare(folder, out)


def check_maps(folder, case, device):
    with tempfile.TemporaryDirectory() as out:
        attend("map", "-m", MODEL, case["attrs"]["sentence"], "-o",
               os.path.join(out, "attentions.npy"), "--device", device, "--quiet")
        return compare(folder, out)


def check_tokens(case):
    text = case["text"]
    got = json.loads(attend("embed", "-m", MODEL, text=text + "\n"))["ids"]
    return "" if got == case["ids"] else "%s, not %s" % (got, case["ids"])


class Tap:
    count = failed = 0

    def result(self, name, check, *args):
        try:
            wrong = check(*args)
        except RuntimeError as e:
            wrong = str(e)
        self.count += 1
        self.failed += bool(wrong)
        if wrong:
            print("#", wrong.replace("\n", " "))
        print("%sok %d - %s" % ("not " if wrong else "", self.count, name), flush=True)


def run_case(tap, name, folder):
    with open(os.path.join(folder, "case.json")) as f:
        case = json.load(f)
    for device in DEVICES:
        if case["op"] == "embed":
            tap.result("%s %s" % (name, device), check_embeddings, folder, case, device, [])
        else:
            tap.result("%s %s" % (name, device), check_maps, folder, case, device)
    if case["op"] == "embed":
        tap.result(name + " small batches", check_embeddings, folder, case, "simd",
                   ["--batch", "256"])


def main():
    tap = Tap()
    with open(os.path.join(ROOT, "tokenizer.json")) as f:
        cases = json.load(f)["cases"]
    for i, case in enumerate(cases):  # a line break inside would be two sentences
        if "\n" not in case["text"]:
            tap.result("tokens of text %d" % i, check_tokens, case)
    for name in sorted(os.listdir(ROOT)):
        folder = os.path.join(ROOT, name)
        if os.path.exists(os.path.join(folder, "case.json")):
            run_case(tap, name, folder)
    print("1..%d" % tap.count)
    return tap.failed > 0


sys.exit(main())
