# SPDX-License-Identifier: MIT
"""Attention by libattend, on NumPy arrays and on whatever speaks DLPack (PyTorch, CuPy's host memory, JAX).

    import attend
    out = attend.scaled_dot_product_attention(query, key, value, is_causal=True)

Memory is not copied on the way in or out; an array whose last axis is not contiguous is the exception.
"""
import collections
import ctypes
import math
import sys
import threading

from . import _library as lib
from ._library import Error
from ._memory import empty_like, view

__all__ = ["Error", "devices", "scaled_dot_product_attention", "set_device", "set_threads", "version"]

_PLANS = 64  # kept for shapes that were seen; the one that was not used for longest goes
_lock = threading.Lock()
_plans = collections.OrderedDict()
_context = None
_threads = 0
_device = b"auto"


def version():
    """The version of the library that runs, such as "0.1.0"."""
    return lib.attend_version().decode()


def set_threads(n):
    """How many threads are used from now on; 0: as many as this process may use processors."""
    global _threads
    with _lock:
        _threads = n
        _forget()


def set_device(name):
    """Where attention is computed from now on: "auto", or a name of devices()."""
    global _device
    with _lock:
        _device = name.encode()
        _forget()


def devices():
    """A list of (name, detail) of the devices that can be used here."""
    with _lock:
        context = _get_context()
    found, info, i = [], lib.DeviceInfo(), 0
    while lib.attend_device_get(context.pointer, i, ctypes.byref(info)) == 0:
        if info.present:
            found.append((info.name.decode(), info.detail.decode()))
        i += 1
    return found


def scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False,
                                 scale=None, enable_gqa=False):
    """softmax(scale * query @ key^T + mask) @ value, with the arguments, shapes and meaning of
    torch.nn.functional.scaled_dot_product_attention: query (..., Hq, L, E), key (..., H, S, E), value
    (..., H, S, Ev), with two axes at least; f32, f16 or bf16.  attn_mask broadcasts to (..., Hq, L, S): bool,
    where True takes part, or a float that is added.  is_causal hides key j from row i where j > i.
    A row that sees nothing is 0.  The result is of the query's library and type.

    Differences: dropout_p must be 0 (there is no training here), and leading axes must be equal.
    """
    if dropout_p != 0:
        raise ValueError("dropout_p is %g, and must be 0" % dropout_p)
    if attn_mask is not None and is_causal:
        raise ValueError("attn_mask and is_causal cannot both be given")
    q, k, v = (_four_axes(view(x, name)) for x, name in
               ((query, "query"), (key, "key"), (value, "value")))
    mask = None if attn_mask is None else _mask_axes(view(attn_mask, "attn_mask"), q)
    if q.shape[1] != k.shape[1] and not enable_gqa:
        raise ValueError("query has %d heads and key has %d; enable_gqa allows that" %
                         (q.shape[1], k.shape[1]))
    shape = tuple(query.shape[:-1]) + (v.shape[3],)
    result, out = empty_like(query, shape, q.type)
    names = ((b"q", q), (b"k", k), (b"v", v)) + (((b"mask", mask),) if mask else ())
    what = tuple((x.type, x.shape) for _, x in names) + (bool(is_causal), scale)
    plan = _get_plan(what, names)
    with plan.lock:
        plan.run(names, out)
    return result()


# ---- axes ----


def _four_axes(v):
    """(..., H, S, E) as (B, H, S, E)."""
    if len(v.shape) < 2:
        raise ValueError("%s has %d axes, and needs two at least" % (v.name, len(v.shape)))
    return v.lead(4)


def _mask_axes(v, q):
    """Aligned on the right, as broadcasting does."""
    if len(v.shape) <= 4:
        return v.lead(4)
    raise ValueError("attn_mask has %d axes, and may have four" % len(v.shape))


# ---- plans ----


class _Context:
    def __init__(self):
        opts = lib.CtxOpts()
        lib.attend_ctx_opts_init(ctypes.byref(opts))
        opts.threads = _threads
        self.pointer = ctypes.c_void_p()
        lib.check(lib.attend_ctx_new(ctypes.byref(opts), ctypes.byref(self.pointer)), "no context")

    def __del__(self, free=lib.attend_ctx_free):
        free(self.pointer)


def _forget():
    global _context
    _plans.clear()
    _context = None  # it lives until the last plan that was made with it does


def _get_context():
    global _context
    if _context is None:
        _context = _Context()
    return _context


def _get_plan(what, names):
    with _lock:
        plan = _plans.pop(what, None) or _Plan(_get_context(), what, names)
        _plans[what] = plan
        if len(_plans) > _PLANS:
            _plans.popitem(last=False)
        return plan


class _Plan:
    """One compiled attention and what it needs to run; one thread at a time."""

    def __init__(self, context, what, names):
        self.lock = threading.Lock()
        self.context = context
        self.plan, self.exec = ctypes.c_void_p(), ctypes.c_void_p()
        graph = lib.attend_graph_new(context.pointer)
        if not graph:
            raise MemoryError("no memory for a graph")
        try:
            self._compile(graph, names, *what[-2:])
        finally:
            lib.attend_graph_free(graph)
        lib.check(lib.attend_exec_new(self.plan, ctypes.byref(self.exec)), "no memory to run")

    def _compile(self, graph, names, causal, scale):
        tensors = [lib.attend_graph_input(graph, n, v.type, lib.shape(v.shape)) for n, v in names]
        opts = lib.AttentionOpts()
        lib.attend_attention_opts_init(ctypes.byref(opts))
        opts.mask.causal = causal
        opts.mask.align = lib.TOP_LEFT
        if len(tensors) > 3:
            opts.mask.mask = tensors[3]
        if scale is not None:
            opts.scale = scale
        o = lib.attend_graph_attention(graph, *tensors[:3], ctypes.byref(opts), None)
        if names[0][1].type != lib.F32:
            o = lib.attend_graph_cast(graph, o, names[0][1].type)
        lib.attend_graph_output(graph, b"o", o)
        how = lib.CompileOpts()
        lib.attend_compile_opts_init(ctypes.byref(how))
        how.device = _device
        lib.check(lib.attend_compile(graph, ctypes.byref(how), ctypes.byref(self.plan)),
                  lib.attend_graph_error(graph))

    def run(self, names, out):
        bind = (lib.Binding * (len(names) + 1))()
        for b, (name, v) in zip(bind, names):
            b.set(name, v)
        bind[len(names)].set(b"o", out)
        if lib.attend_bind(self.exec, bind, len(bind)) < 0 or lib.attend_run(self.exec) < 0:
            raise Error(lib.attend_exec_error(self.exec).decode())

    def __del__(self, free_exec=lib.attend_exec_free, free_plan=lib.attend_plan_free):
        free_exec(self.exec)
        free_plan(self.plan)
