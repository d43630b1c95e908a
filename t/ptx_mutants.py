# SPDX-License-Identifier: MIT
"""Does a test notice when one instruction of a kernel's PTX is another?  Runs words of `attend check` on
the emulated CUDA device with mutants of the PTX that the cache of programs holds.

ptx_mutants.py N SEED KERNEL WORD...: N mutants of the kernel, drawn with the seed.  Prints each survivor
(line, PTX before and after; whether the words reach the line at all: a trap there tells) and the score.
A mutant is killed by a wrong result, by a report of a checker, or by a run that does not end; one that
the emulator refuses to load is not counted.  t/MUTANTS has what survives, and why."""
import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile

ATTEND = os.environ.get("ATTEND_ATTEND", "attend")
HEADER = 88  # of a file of the cache: the checksum is its last 32 bytes (backends/progcache.c)
SWAPS = [("add.", "sub."), ("sub.", "add."), ("max.", "min."), ("min.", "max."), ("shl.", "shr."),
         ("and.", "or."), ("or.", "and."), (".lt.", ".ge."), (".ge.", ".lt."), (".gt.", ".le."),
         (".le.", ".gt."), (".eq.", ".ne."), (".ne.", ".eq."), ("fma.rn.f32", "FMA"), ("mul.", "MUL"),
         ("bar.sync", "//"), ("st.shared", "//"), ("ex2.", "lg2.")]


def mutations(line):
    """The other lines that this one may become."""
    text = line.strip()
    if text.startswith("@!"):
        yield line.replace("@!", "@", 1)
    elif text.startswith("@"):
        yield line.replace("@", "@!", 1)
    op = re.sub(r"^@!?%p\d+\s+", "", text)
    for old, new in SWAPS:
        if old not in op.split(" ", 1)[0].split("\t", 1)[0] + " ":
            continue
        if new == "//":
            yield "//" + line
        elif new == "FMA":  # the sum is forgotten
            yield re.sub(r", [^,]*;", ", 0f00000000;", line)
        elif new == "MUL":
            yield re.sub(r", ([^,]*), [^,]*;", r", \1, \1;", line)
        else:
            yield line.replace(old, new, 1)
        break
    number = re.search(r"(?<=[ +])-?\d+(?=[;\],])", line)
    if number and not op.startswith((".", "ld.param", "bra")):
        yield line[: number.start()] + str(int(number.group()) + 1) + line[number.end():]


def lines_of(text, kernel):
    """Numbers of the lines with instructions of a kernel."""
    inside = False
    for i, line in enumerate(text):
        if ".entry " in line:
            inside = ".entry %s(" % kernel in line
        if inside and re.match(r"\s*(@!?%p\d+\s+)?[a-z]", line) and line.rstrip().endswith(";"):
            yield i


def check(cache, words):
    """Was something noticed?"""
    with tempfile.TemporaryDirectory() as out:
        report = os.path.join(out, "report")
        env = dict(os.environ, ATTEND_CACHE=cache, CUEMU_REPORT=report, CUEMU_QUIET="1",
                   CUEMU_LIMIT="20000000")
        try:
            r = subprocess.run([ATTEND, "check", "--quiet", "--device", "cuda:0", *words], env=env,
                               capture_output=True, timeout=600)
        except subprocess.TimeoutExpired:
            return "endless"
        if os.path.exists(report):
            return "checker"
        return "result" if r.returncode else ""


def main():
    count, seed, kernel, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    with tempfile.TemporaryDirectory() as cache:
        if check(cache, words):
            sys.exit("the words fail without a mutation")
        for name in sorted(os.listdir(cache)):
            path = os.path.join(cache, name)
            with open(path, "rb") as f:
                blob = f.read()
            if b".entry %s(" % kernel.encode() in blob:
                break
        else:
            sys.exit("no program has a kernel " + kernel)
        text = blob[HEADER:].rstrip(b"\0").decode().split("\n")
        every = [(i, m) for i in lines_of(text, kernel) for m in mutations(text[i]) if m != text[i]]
        killed = {"result": 0, "checker": 0, "endless": 0, "refused": 0}
        unreached = survived = 0

        def try_line(i, line):
            changed = "\n".join(text[:i] + [line] + text[i + 1:]).encode() + b"\0"
            whole = blob[: HEADER - 72] + len(changed).to_bytes(8, "little") + \
                blob[HEADER - 64: HEADER - 32] + hashlib.sha256(changed).digest() + changed
            with open(path, "wb") as f:
                f.write(whole)
            how = check(cache, words)
            with open(path, "rb") as f:
                return how if f.read() == whole else "refused"

        for i, mutant in sorted(random.Random(seed).sample(every, min(count, len(every)))):
            how = try_line(i, mutant)
            if how:
                killed[how] += 1
                continue
            reached = try_line(i, "trap;")
            survived += 1
            unreached += not reached
            print("survivor, line %d%s: %s  =>  %s" % (i + 1, "" if reached else ", never reached",
                                                       text[i].strip(), mutant.strip()))
            sys.stdout.flush()
        refused = killed.pop("refused")
        total = sum(killed.values()) + survived
        print("%s: %d of %d mutants killed (%d by results, %d by checkers, %d endless); %d survive where the "
              "words come, %d elsewhere; %d refused; seed %d of %d" %
              (kernel, total - survived, total, killed["result"], killed["checker"], killed["endless"],
               survived - unreached, unreached, refused, seed, len(every)))


main()
