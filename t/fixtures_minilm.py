# SPDX-License-Identifier: MIT
"""Runs the cases of minilm on the sentence model $ATTEND_EMBEDDER: tokens, embeddings and attention
maps."""
import json
import os
import tempfile

from fixtures import FIXTURES, Tap, attend, cases, compare

MODEL = os.environ["ATTEND_EMBEDDER"]


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


def run_case(tap, name, folder, case):
    for device in ["ref", "simd"]:
        if case["op"] == "embed":
            tap.result("%s %s" % (name, device), check_embeddings, folder, case, device, [])
        else:
            tap.result("%s %s" % (name, device), check_maps, folder, case, device)
    if case["op"] == "embed":
        tap.result(name + " small batches", check_embeddings, folder, case, "simd",
                   ["--batch", "256"])


def main():
    tap = Tap()
    with open(os.path.join(FIXTURES, "minilm", "tokenizer.json")) as f:
        texts = json.load(f)["cases"]
    for i, case in enumerate(texts):  # a line break inside would be two sentences
        if "\n" not in case["text"]:
            tap.result("tokens of text %d" % i, check_tokens, case)
    for name, folder, case in cases("minilm"):
        run_case(tap, name, folder, case)
    tap.end()


main()
