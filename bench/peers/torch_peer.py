# SPDX-License-Identifier: MIT
"""PyTorch: scaled_dot_product_attention, and flex_attention compiled."""
import numpy as np

from problem import Unsupported

KINDS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def tensors(p, threads):
    import torch

    if p.kind not in KINDS:
        raise Unsupported("no " + p.kind)
    torch.set_num_threads(threads)
    kind = getattr(torch, KINDS[p.kind])
    return torch, [torch.from_numpy(x).to(kind) for x in (p.q, p.k, p.v)]


def result(torch, run):
    return lambda: run().float().numpy()


def sdpa(p, threads):
    torch, (q, k, v) = tensors(p, threads)
    mask = None
    if p.window:
        mask = torch.from_numpy(p.visible(0, p.sq))

    @torch.inference_mode()
    def run():
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=p.causal and mask is None, enable_gqa=p.ratio > 1)

    return run, result(torch, run)


def flex(p, threads):
    if p.name == "I" or p.kind != "f32":
        raise Unsupported("not compiled for this")
    torch, (q, k, v) = tensors(p, threads)
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch._dynamo.reset()
    compiled, mask = torch.compile(flex_attention, dynamic=False), None
    if p.causal:
        reach = p.window or p.skv
        mask = create_block_mask(lambda b, h, i, j: (j <= i) & (i - j < reach), None, None, p.sq, p.skv,
                                 device="cpu")

    @torch.inference_mode()
    def run():
        return compiled(q, k, v, block_mask=mask, enable_gqa=p.ratio > 1)

    return run, result(torch, run)


PEERS = {"torch sdpa": sdpa, "torch flex": flex}
