# SPDX-License-Identifier: MIT
"""libattend itself, from Python by ctypes: a prepared plan, bound once."""
import ctypes as c

import numpy as np

TYPE = {"f32": 0, "f16": 1, "bf16": 2, "q8_0": 9, "q4_0": 10}
BLOCK = {"f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}


class Tensor(c.Structure):
    _fields_ = [("graph", c.c_void_p), ("id", c.c_int32)]


class Shape(c.Structure):
    _fields_ = [("rank", c.c_int), ("dim", c.c_int64 * 6)]


class Binding(c.Structure):
    _fields_ = [("name", c.c_char_p), ("data", c.c_void_p), ("bytes", c.c_int64),
                ("stride", c.c_void_p), ("value", c.c_int64), ("on_device", c.c_int)]


class CtxOpts(c.Structure):  # the first fields
    _fields_ = [("size", c.c_size_t), ("threads", c.c_int), ("rest", c.c_char * 1024)]


class AttentionOpts(c.Structure):  # the first fields
    _fields_ = [("size", c.c_size_t), ("mask_size", c.c_size_t), ("causal", c.c_int),
                ("align", c.c_int), ("left", c.c_int64), ("right", c.c_int64),
                ("rest", c.c_char * 4096)]


class Attend:
    def __init__(self, path, threads):
        self.lib = lib = c.CDLL(path)
        for name in ("attend_graph_new", "attend_version", "attend_graph_error", "attend_exec_error"):
            getattr(lib, name).restype = c.c_void_p
        for name in ("attend_graph_input", "attend_graph_attention", "attend_graph_matmul"):
            getattr(lib, name).restype = Tensor
        opts, self.ctx = CtxOpts(), c.c_void_p()
        lib.attend_ctx_opts_init(c.byref(opts))
        opts.threads = threads
        self.must(lib.attend_ctx_new(c.byref(opts), c.byref(self.ctx)))

    def must(self, status, why=None):
        if status < 0:
            raise RuntimeError(c.cast(why, c.c_char_p).value if why else status)

    def version(self):
        return c.cast(self.lib.attend_version(), c.c_char_p).value.decode()

    def convert(self, to, stored, kind, x, n):
        """Rows of n, between types."""
        rows = x.size // n if kind == "f32" else len(x) // (n // BLOCK[kind][0] * BLOCK[kind][1])
        step_to, step_from = (n // BLOCK[t][0] * BLOCK[t][1] for t in (to, kind))
        for r in range(rows if n % 32 else 1):  # whole blocks need no rows
            count = n if n % 32 else n * rows
            self.must(self.lib.attend_convert(
                TYPE[to], c.c_void_p(stored.ctypes.data + r * step_to), TYPE[kind],
                c.c_void_p(x.ctypes.data + r * step_from), c.c_int64(count)))

    def store(self, kind, x):
        """x in type kind as bytes, and what it then holds."""
        if kind == "f32":
            return x.reshape(-1).view(np.uint8), x
        n = x.shape[-1]
        stored = np.empty(x.size // BLOCK[kind][0] * BLOCK[kind][1], np.uint8)
        held = np.empty_like(x)
        self.convert(kind, stored, "f32", x, n)
        self.convert("f32", held, kind, stored, n)
        return stored, held

    def make(self, p):
        lib, g = self.lib, c.c_void_p(self.lib.attend_graph_new(self.ctx))
        opts, none = AttentionOpts(), Tensor(None, -1)
        lib.attend_attention_opts_init(c.byref(opts))
        opts.causal, opts.align = int(p.causal), 2
        if p.window:
            opts.left = p.window - 1
        shape = lambda heads, n: Shape(4, (c.c_int64 * 6)(p.b, heads, n, p.d))
        q = lib.attend_graph_input(g, b"q", TYPE[p.q_kind], shape(p.h, p.sq))
        k = lib.attend_graph_input(g, b"k", TYPE[p.kind], shape(p.g, p.skv))
        v = lib.attend_graph_input(g, b"v", TYPE[p.kind], shape(p.g, p.skv))
        lib.attend_graph_output(g, b"o", lib.attend_graph_attention(g, q, k, v, c.byref(opts), None))
        out = np.empty((p.b, p.h, p.sq, p.d), np.float32)
        run = self.prepare(g, {"q": p.q_stored, "k": p.k_stored, "v": p.v_stored, "o": out})
        return run, lambda: out

    def make_matmul(self, a, b, out):
        """out = a b, of f32 matrices."""
        lib, g = self.lib, c.c_void_p(self.lib.attend_graph_new(self.ctx))
        x, y = (lib.attend_graph_input(g, name, TYPE["f32"], Shape(2, (c.c_int64 * 6)(*m.shape)))
                for name, m in ((b"a", a), (b"b", b)))
        lib.attend_graph_output(g, b"o", lib.attend_graph_matmul(g, x, y))
        return self.prepare(g, {"a": a, "b": b, "o": out})

    def prepare(self, g, arrays):
        """A call that runs the graph, compiled and bound."""
        lib, plan, run = self.lib, c.c_void_p(), c.c_void_p()
        self.must(lib.attend_compile(g, None, c.byref(plan)), lib.attend_graph_error(g))
        self.must(lib.attend_exec_new(plan, c.byref(run)))
        lib.attend_graph_free(g)
        bind = (Binding * len(arrays))(*[Binding(name.encode(), x.ctypes.data, x.nbytes, None, 0, 0)
                                         for name, x in arrays.items()])
        self.must(lib.attend_bind(run, bind, len(arrays)), lib.attend_exec_error(run))
        call = lib.attend_run
        return lambda: call(run)
