# SPDX-License-Identifier: MIT
"""The GPT of examples/train in PyTorch, beside it: the same data, sizes, rates and optimiser, other random
numbers.  Prints the loss of both at the end and tokens per second of both, and draws both curves.

    python train_gpt.py PATH/TO/examples/train/gpt [STEPS [TEXT...]]
"""
import glob
import math
import os
import subprocess
import sys
import tempfile
import time

import torch
from torch import nn
from torch.nn import functional as F

LAYERS, WIDTH, HEADS, LENGTH, BATCH = 4, 128, 4, 128, 16


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.wqkv, self.wo = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.wqkv(self.norm1(x)).chunk(3, -1))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.wo(o.transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, WIDTH), nn.Parameter(torch.empty(LENGTH, WIDTH))
        self.layers, self.norm = nn.ModuleList(Layer() for _ in range(LAYERS)), nn.LayerNorm(WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, 256, bias=False)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                out = name.endswith(("wo.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if out else 0.02)

    def forward(self, tokens):
        x = self.bytes(tokens) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def rate_of(step, steps):
    return 1e-3 * step / 100 if step < 100 else 1e-3 * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def train(text, steps):
    torch.manual_seed(1)
    model, losses = Model(), []
    parts = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
             {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0}]
    optimiser = torch.optim.AdamW(parts, betas=(0.9, 0.99))
    begin = time.process_time()
    for step in range(1, steps + 1):
        at = torch.randint(len(text) - LENGTH - 1, (BATCH,)).tolist()
        batch = torch.stack([text[i:i + LENGTH + 1] for i in at]).long()
        for group in optimiser.param_groups:
            group["lr"] = rate_of(step, steps)
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimiser.step()
        losses.append(loss.item())
    return losses, BATCH * LENGTH * steps / (time.process_time() - begin)


def train_attend(program, files, steps):
    with tempfile.TemporaryDirectory() as folder:
        before = os.times()
        subprocess.run([program, folder, "--steps", str(steps), *files], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        with open(os.path.join(folder, "loss.txt")) as f:
            losses = [float(line.split()[1]) for line in f]
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return losses, BATCH * LENGTH * steps / used


def draw(ours, theirs):
    try:
        import matplotlib
    except ImportError:
        print("no matplotlib here: no picture")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot
    for losses, name in ((ours, "attend"), (theirs, "PyTorch")):
        smooth = [sum(losses[max(0, i - 20):i + 1]) / len(losses[max(0, i - 20):i + 1]) for i in range(len(losses))]
        pyplot.plot(range(1, len(losses) + 1), smooth, label=name)
    pyplot.xlabel("step")
    pyplot.ylabel("cross entropy of a byte")
    pyplot.legend()
    pyplot.savefig("train_gpt.png", dpi=120)


def main():
    program, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 600
    files = sys.argv[3:] or sorted(glob.glob("/usr/share/common-licenses/*"))
    threads = int(os.environ.setdefault("ATTEND_THREADS", "1"))
    torch.set_num_threads(threads)
    text = torch.tensor(list(b"".join(open(f, "rb").read() for f in files)), dtype=torch.uint8)
    ours, speed = train_attend(program, files, steps)
    theirs, their_speed = train(text, steps)
    last = max(1, min(50, steps // 4))
    a, b = (sum(x[-last:]) / last for x in (ours, theirs))
    print("%d steps, %d threads, last %d steps: loss %.4f, PyTorch %s %.4f (ratio %.3f); tokens per second of "
          "processor time %.0f, PyTorch %.0f (ratio %.2f)" %
          (steps, threads, last, a, torch.__version__, b, a / b, speed, their_speed, speed / their_speed))
    draw(ours, theirs)


main()
