# SPDX-License-Identifier: MIT
"""ggml's flash_attn_ext, from the libraries that llama-cpp-python built."""
import ctypes as c
import glob
import importlib.util
import os

import numpy as np

from problem import Unsupported

TYPE = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q4_0": 2}


class InitParams(c.Structure):
    _fields_ = [("size", c.c_size_t), ("buffer", c.c_void_p), ("no_alloc", c.c_bool)]


def load():
    folder = os.path.join(os.path.dirname(importlib.util.find_spec("llama_cpp").origin), "lib")
    named = lambda name: c.CDLL(sorted(glob.glob(os.path.join(folder, name + ".so*")))[0], mode=c.RTLD_GLOBAL)
    base, cpu = named("libggml-base"), named("libggml-cpu")
    for lib, name in ((base, "ggml_init"), (base, "ggml_new_tensor_4d"), (base, "ggml_get_data"),
                      (base, "ggml_flash_attn_ext"), (base, "ggml_new_graph"), (cpu, "ggml_backend_cpu_init")):
        getattr(lib, name).restype = c.c_void_p
    return base, cpu


def features():
    """What the CPU code was compiled with."""
    cpu = load()[1]
    names = ("avx", "avx2", "avx_vnni", "avx512", "avx512_vbmi", "avx512_vnni", "avx512_bf16", "amx_int8", "fma",
             "f16c", "neon", "arm_fma", "dotprod", "sve")
    return [n for n in names if getattr(cpu, "ggml_cpu_has_" + n, lambda: 0)()]


def tensor(base, ctx, kind, shape, stored):
    t = c.c_void_p(base.ggml_new_tensor_4d(ctx, TYPE[kind], *(c.c_int64(n) for n in reversed(shape))))
    if stored is not None:
        c.memmove(base.ggml_get_data(t), stored.ctypes.data, stored.nbytes)
    return t


def hidden(p):
    """0 where visible, else -inf, as f16 bits."""
    return np.where(p.visible(0, p.sq), np.uint16(0), np.uint16(0xFC00))


def flash(p, threads):
    base, cpu = load()
    mask = hidden(p) if p.causal else None
    size = p.q.nbytes * 2 + p.k_stored.nbytes * 2 + (mask.nbytes if p.causal else 0) + (16 << 20)
    ctx = c.c_void_p(base.ggml_init(InitParams(size, None, False)))
    if not ctx:
        raise Unsupported("no memory")
    q = tensor(base, ctx, "f32", p.q.shape, np.ascontiguousarray(p.q))
    k = tensor(base, ctx, p.kind, p.k.shape, p.k_stored)
    v = tensor(base, ctx, p.kind, p.v.shape, p.v_stored)
    m = tensor(base, ctx, "f16", (1, 1) + mask.shape, mask) if p.causal else None
    o = c.c_void_p(base.ggml_flash_attn_ext(ctx, q, k, v, m, c.c_float(p.d ** -0.5), c.c_float(0), c.c_float(0)))
    base.ggml_flash_attn_ext_set_prec(o, 10)  # f32
    graph = c.c_void_p(base.ggml_new_graph(ctx))
    base.ggml_build_forward_expand(graph, o)
    backend = c.c_void_p(cpu.ggml_backend_cpu_init())
    cpu.ggml_backend_cpu_set_n_threads(backend, threads)
    compute = base.ggml_backend_graph_compute

    def out():
        x = (c.c_float * p.q.size).from_address(base.ggml_get_data(o))
        return np.frombuffer(x, np.float32).reshape(p.b, p.sq, p.h, p.d).transpose(0, 2, 1, 3)

    def end():
        base.ggml_backend_free(backend)
        base.ggml_free(ctx)

    run = lambda: compute(backend, graph)
    out.end = end
    return run, out


PEERS = {"ggml": flash}
