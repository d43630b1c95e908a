# SPDX-License-Identifier: MIT
"""Runs the cases of smollm2 on the model $ATTEND_MODEL: logits, in one batch and token by token, with
keys and values in f32, f16 and q8_0, and with activations in 8 bits; and greedy text.  Runs on simd,
and the shortest case on the reference, where the command line names no devices."""
import json
import os
import sys
import tempfile

from fixtures import Tap, attend, cases, compare, devices

MODEL = os.environ["ATTEND_MODEL"]

WAYS = [  # flags, and how close that has to be
    ([], "fp32"),
    (["--step"], "fp32"),
    (["--kv", "f16"], "fp16kv"),
    (["--kv", "f16", "--step"], "fp16kv"),
    (["--kv", "q8_0"], "int8"),
    (["--precision", "int8"], "int8"),
]
SHORT = "p1_chat_capital"


def check_logits(folder, case, device, flags, tier):
    with tempfile.TemporaryDirectory() as out:
        attend("logits", "-m", MODEL, "--tokens", os.path.join(folder, "in/tokens.npy"), "--from",
               str(case["attrs"]["prompt_tokens"]), "-o", os.path.join(out, "logits.npy"),
               "--device", device, *flags)
        return compare(folder, out, tier=tier)


def check_text(case):
    """Greedy text of the program, from the text of the prompt on, against that of transformers."""
    prompt, want = case["prompt"], case["greedy"]["transformers fp32"]["ids"]
    text = ["--chat", "-p", prompt["user_text"]] if prompt["chat"] else ["-p", prompt["text"]]
    got = json.loads(attend("generate", "-m", MODEL, *text, "-n", str(len(want)), "--json"))
    if got["prompt_ids"] != prompt["ids"]:
        return "the prompt has other tokens"
    return "" if got["ids"] == want else "%s, not %s" % (got["ids"], want)


def main():
    tap, named = Tap(), len(sys.argv) > 1
    for name, folder, case in cases("smollm2"):
        for device in devices() if named else ["simd"]:
            for flags, tier in WAYS:
                tap.result(" ".join([name, device, *flags]), check_logits, folder, case, device,
                           flags, tier)
        if name == SHORT and not named:
            tap.result(name + " ref", check_logits, folder, case, "ref", [], "fp32")
        tap.result(name + " text", check_text, case)
    tap.end()


main()
