# SPDX-License-Identifier: MIT
"""Runs the reference cases of $ATTEND_FIXTURES/smollm2 on the model $ATTEND_MODEL: logits compared by
the check_case.py that lies beside them, in one batch and token by token, with keys and values in f32,
f16 and q8_0, and with activations in 8 bits; and greedy text."""
import json
import os
import subprocess
import sys
import tempfile

FIXTURES = os.environ["ATTEND_FIXTURES"]
ATTEND = os.environ.get("ATTEND_ATTEND", "attend")
MODEL = os.environ["ATTEND_MODEL"]
ROOT = os.path.join(FIXTURES, "smollm2")
sys.dont_write_bytecode = True
sys.path.insert(0, FIXTURES)
import check_case  # noqa: E402

WAYS = [  # flags, and how close that has to be
    ([], "fp32"),
    (["--step"], "fp32"),
    (["--kv", "f16"], "fp16kv"),
    (["--kv", "f16", "--step"], "fp16kv"),
    (["--kv", "q8_0"], "int8"),
    (["--precision", "int8"], "int8"),
]
SHORT = "p1_chat_capital"  # the one that the reference runs in the quick suite


def attend(*args):
    """Standard output of the program; a failure is a RuntimeError with what it said."""
    r = subprocess.run([ATTEND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if r.returncode != 0:
        raise RuntimeError("exit %d: %s" % (r.returncode, r.stderr.strip()))
    return r.stdout


def check_logits(name, case, device, flags, tier):
    """What went wrong, or nothing."""
    folder = os.path.join(ROOT, name)
    with tempfile.TemporaryDirectory() as out:
        attend("logits", "-m", MODEL, "--tokens", os.path.join(folder, "in/tokens.npy"), "--from",
               str(case["attrs"]["prompt_tokens"]), "-o", os.path.join(out, "logits.npy"),
               "--device", device, *flags)
        results = check_case.check(folder, out, tier=tier)[1]
        return "; ".join(r["why"] for r in results if not r["ok"])


def check_text(case):
    """Greedy text of the program, from the text of the prompt on, against that of transformers."""
    prompt, want = case["prompt"], case["greedy"]["transformers fp32"]["ids"]
    text = ["--chat", "-p", prompt["user_text"]] if prompt["chat"] else ["-p", prompt["text"]]
    got = json.loads(attend("generate", "-m", MODEL, *text, "-n", str(len(want)), "--json"))
    if got["prompt_ids"] != prompt["ids"]:
        return "the prompt has other tokens"
    return "" if got["ids"] == want else "%s, not %s" % (got["ids"], want)


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


def devices(slow):
    if not slow:
        return ["simd"]
    lines = attend("devices", "--json").splitlines()
    return [d["name"] for d in map(json.loads, lines) if d["present"]]


def main():
    tap, slow = Tap(), "slow" in sys.argv[1:]
    for name in sorted(os.listdir(ROOT)):
        path = os.path.join(ROOT, name, "case.json")
        if not os.path.exists(path):
            continue
        with open(path) as f:
            case = json.load(f)
        for device in devices(slow):
            for flags, tier in WAYS:
                tap.result(" ".join([name, device, *flags]), check_logits, name, case, device,
                           flags, tier)
        if name == SHORT and not slow:
            tap.result(name + " ref", check_logits, name, case, "ref", [], "fp32")
        tap.result(name + " text", check_text, case)
    print("1..%d" % tap.count)
    return tap.failed > 0


sys.exit(main())
