# SPDX-License-Identifier: MIT
"""t/848-trace.t: what `attend --trace` and `attend plan` write, read as others read it."""
import json
import os
import random
import shutil
import struct
import subprocess

ATTEND = os.environ["ATTEND_ATTEND"]
FOLDER = "848-trace.tmp"
HEADS, ROWS, CHANNELS = 4, 400, 64
count = 0


def ok(good, name):
    global count
    count += 1
    print("%s %d - %s" % ("ok" if good else "not ok", count, name), flush=True)


def skip(why):
    global count
    count += 1
    print("ok %d # SKIP %s" % (count, why), flush=True)


def attend(*args):
    return subprocess.run([ATTEND, *args], cwd=FOLDER, capture_output=True, text=True)


def write_npy(name, shape):
    n = 1
    for d in shape:
        n *= d
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }" % ", ".join(map(str, shape))
    head += " " * (63 - (10 + len(head)) % 64) + "\n"
    r = random.Random(1)
    with open(os.path.join(FOLDER, name), "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())
        f.write(struct.pack("<%df" % n, *(r.random() for _ in range(n))))


def trace(device, *args):
    run = attend("sdpa", "--q", "x.npy", "--k", "x.npy", "--v", "x.npy", "-o", "o.npy", "--device", device,
                 "--trace", "t.json", *args)
    if run.returncode != 0:
        return None, run.stderr
    with open(os.path.join(FOLDER, "t.json")) as f:
        events = json.load(f)["traceEvents"]
    return [e for e in events if e["ph"] == "X"], [e for e in events if e["ph"] == "M"]


def inside(e, outer):  # in microseconds with three digits
    return e["ts"] >= outer["ts"] - 0.002 and e["ts"] + e["dur"] <= outer["ts"] + outer["dur"] + 0.002


def of(spans, kind):
    return [s for s in spans or [] if s["cat"] == kind]


def test_threads():
    spans, names = trace("simd", "--threads", "2")
    steps, items = of(spans, "step"), of(spans, "item")
    ok(len(steps) >= 1 and any(s["name"] == "attention" for s in steps), "a step of attention")
    ok(all(s["args"]["row"].startswith("simd") for s in steps), "which says the row that ran it")
    ok(len(items) >= 2 and len({i["args"]["item"] for i in items}) == len(items), "its items, each once")
    ok(all(any(inside(i, s) and i["args"]["step"] == s["args"]["step"] for s in steps) for i in items),
       "lie inside it")
    ok({i["tid"] for i in items} <= {0, 1}, "on two threads at most")
    ok({s["tid"] for s in spans} <= {n["tid"] for n in names if n["name"] == "thread_name"}, "that have names")
    for tid in {i["tid"] for i in items}:
        mine = sorted((i["ts"], i["ts"] + i["dur"]) for i in items if i["tid"] == tid)
        ok(all(a[1] <= b[0] + 0.002 for a, b in zip(mine, mine[1:])), "thread %d does one at a time" % tid)


def test_device(name):
    if attend("sdpa", "--q", "x.npy", "--k", "x.npy", "--v", "x.npy", "-o", "o.npy", "--device", name).returncode:
        return skip("no device %s here" % name)
    spans, _ = trace(name)
    device, steps = of(spans, "device"), of(spans, "step")
    ok(any(s["name"] == "attention" and s["dur"] > 0 for s in device), "%s: the device's own time" % name)
    ok(all(a["ts"] + a["dur"] <= b["ts"] + 0.002 for a, b in zip(device, device[1:])), "%s: in order" % name)
    ok(len(device) == len([s for s in steps if s["args"]["row"].startswith(name)]),
       "%s: of each of its steps" % name)


def test_failure():
    run = attend("sdpa", "--q", "x.npy", "--k", "absent.npy", "--v", "x.npy", "-o", "o.npy", "--trace", "f.json")
    ok(run.returncode == 1 and not os.path.exists(os.path.join(FOLDER, "f.json")), "a failed run leaves no trace")
    run = attend("sdpa", "--q", "x.npy", "--k", "x.npy", "--v", "x.npy", "-o", "o.npy", "--trace", "no/where.json")
    ok(run.returncode == 1 and "no/where.json" in run.stderr, "a trace that cannot be written is an error")


def test_plan():
    word = "attention:f32:b1h4g2q33k65d64:causal-br"
    plan = json.loads(attend("plan", word, "--device", "simd", "--json").stdout)
    text = json.dumps(plan)
    ok("attention" in text and "simd" in text and "flash" in text, "the plan as JSON: operator, device and row")
    ok(all(k in text for k in ("arena", "flop", "byte")), "and what it costs")
    dot = attend("plan", word, "--device", "simd", "--dot").stdout
    ok(dot.startswith("digraph") and dot.rstrip().endswith("}") and "flash" in dot, "as DOT: a graph of it")
    if shutil.which("dot"):
        ok(subprocess.run(["dot", "-Tsvg"], input=dot, capture_output=True, text=True).returncode == 0,
           "that Graphviz draws")
    else:
        skip("no dot of Graphviz to draw the plan")


shutil.rmtree(FOLDER, ignore_errors=True)
os.mkdir(FOLDER)
write_npy("x.npy", (1, HEADS, ROWS, CHANNELS))
test_threads()
test_device("opencl:0")
test_device("cuda:0")
test_failure()
test_plan()
shutil.rmtree(FOLDER)
print("1..%d" % count)
