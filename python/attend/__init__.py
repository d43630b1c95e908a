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

__all__ = ["Error", "additive_attention", "devices", "scaled_dot_product_attention", "set_device",
           "set_threads", "version"]

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
                                 scale=None, enable_gqa=False, *, align="top-left", window=None,
                                 softcap=0.0, alibi_slopes=None, sinks=None, q_lens=None, kv_lens=None,
                                 return_lse=False):
    """softmax(scale * query @ key^T + mask) @ value, with the arguments, shapes and meaning of
    torch.nn.functional.scaled_dot_product_attention: query (..., Hq, L, E), key (..., H, S, E), value
    (..., H, S, Ev), with two axes at least; f32, f16 or bf16.  attn_mask broadcasts to (..., Hq, L, S): bool,
    where True takes part, or a float that is added.  is_causal hides key j from row i where j > i.
    A row that sees nothing is 0.  The result is of the query's library and type.

    Differences: dropout_p must be 0 (there is no training here), leading axes must be equal, and a mask and
    is_causal may both be given: then both hold.

    Arguments that torch has not are named:
    align: "top-left", or "bottom-right", where row i stands at key i + S - L: for is_causal, window and ALiBi.
    window: (left, right), how many keys on each side of its own a row sees; -1: all.
    softcap: scores become softcap * tanh(score / softcap).
    alibi_slopes: f32 (Hq); slope * the distance of row and key is taken off the score.
    sinks: f32 (Hq), a logit for each head that takes part in the sum of weights and has no value.
    q_lens, kv_lens: int32 (N + 1), where each of N packed sequences begins, and the end; query is then
    (T, Hq, E), key and value (T, H, E).
    return_lse: gives (result, log of the sum of exponentials of each row's scores), the latter f32 (..., Hq, L),
    or (Hq, T).
    """
    if dropout_p != 0:
        raise ValueError("dropout_p is %g, and must be 0" % dropout_p)
    if align not in lib.ALIGN:
        raise ValueError('align is "%s", and can be "top-left" or "bottom-right"' % align)
    packed = q_lens is not None or kv_lens is not None
    inputs = {n: _axes(view(x, n), 3 if packed else 4) for n, x in
              (("query", query), ("key", key), ("value", value))}
    heads, groups = inputs["query"].shape[1], inputs["key"].shape[1]
    if heads != groups and not enable_gqa:
        raise ValueError("query has %d heads and key has %d; enable_gqa allows that" % (heads, groups))
    if attn_mask is not None:
        inputs["mask"] = _mask_axes(view(attn_mask, "attn_mask"))
    for n, x in (("alibi", alibi_slopes), ("sinks", sinks), ("q_lens", q_lens), ("kv_lens", kv_lens)):
        if x is not None:
            inputs[n] = view(x, n)
    rows = tuple(query.shape[:-1])
    return _compute(query, inputs, rows + (value.shape[-1],), rows[1::-1] if packed else rows,
                    _Options(bool(is_causal), scale, lib.ALIGN[align], tuple(window or (-1, -1)), softcap,
                             return_lse))


def additive_attention(query, key, value, wq, wk, va, attn_mask=None, *, return_lse=False):
    """Bahdanau's attention: weights are the softmax of va . tanh(wq query + wk key).  query (B, L, Dq), key
    (B, S, Dk), value (B, S, Ev), wq (A, Dq), wk (A, Dk), va (A): result f32 (B, L, Ev), its log of sums (B, 1, L).
    attn_mask broadcasts to (B, 1, L, S), as above."""
    inputs = {n: view(x, n) for n, x in (("query", query), ("key", key), ("value", value), ("wq", wq),
                                         ("wk", wk), ("va", va))}
    if attn_mask is not None:
        inputs["mask"] = _mask_axes(view(attn_mask, "attn_mask"))
    rows = tuple(query.shape[:-1])
    return _compute(query, inputs, rows + (value.shape[-1],), rows[:1] + (1,) + rows[1:],
                    _Options(False, None, lib.ALIGN["top-left"], (-1, -1), 0.0, return_lse))


# What a plan is made for, beside types and shapes.
_Options = collections.namedtuple("_Options", "causal scale align window softcap lse")


def _compute(like, inputs, shape, lse_shape, options):
    """Runs the plan of these inputs; results are arrays of the library of `like`."""
    outputs, results = {}, []
    rank = len(inputs["query"].shape)
    for name, extents, axes in (("o", shape, rank), ("lse", lse_shape, min(rank, 3) if "wq" in inputs else rank - 1)):
        if name == "o" or options.lse:
            result, memory = empty_like(like, extents, lib.F32 if name == "lse" else inputs["query"].type)
            outputs[name] = memory.lead(axes)
            results.append(result)
    what = tuple((n, x.type, x.shape) for n, x in inputs.items()) + (options,)
    plan = _get_plan(what, inputs, options)
    with plan.lock:
        plan.run(inputs, outputs)
    return tuple(r() for r in results) if options.lse else results[0]()


# ---- axes ----


def _axes(v, rank):
    """(..., H, S, E) as (B, H, S, E), or packed (T, H, E) as it is."""
    if len(v.shape) < 2:
        raise ValueError("%s has %d axes, and needs two at least" % (v.name, len(v.shape)))
    if rank == 3 and len(v.shape) != 3:
        raise ValueError("%s has %d axes, and packed sequences have three" % (v.name, len(v.shape)))
    return v.lead(rank)


def _mask_axes(v):
    """Aligned on the right, as broadcasting does."""
    if len(v.shape) <= 4:
        return v.lead(4)
    raise ValueError("attn_mask has %d axes, and may have four" % len(v.shape))


# ---- plans ----


class _Context:
    """A context, which frees what was made with it and is still there: when Python ends, or finds a cycle,
    the order in which objects go is anyone's guess."""

    def __init__(self):
        self.made = set()  # (exec, plan) addresses; whoever takes a pair out frees it
        opts = lib.CtxOpts()
        lib.attend_ctx_opts_init(ctypes.byref(opts))
        opts.threads = _threads
        self.pointer = ctypes.c_void_p()
        lib.check(lib.attend_ctx_new(ctypes.byref(opts), ctypes.byref(self.pointer)), "no context")

    def free_made(self, pair, free_exec=lib.attend_exec_free, free_plan=lib.attend_plan_free):
        try:
            self.made.remove(pair)
        except KeyError:
            return
        free_exec(pair[0])
        free_plan(pair[1])

    def __del__(self, free=lib.attend_ctx_free):
        for pair in list(self.made):
            self.free_made(pair)
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


def _get_plan(what, inputs, options):
    with _lock:
        plan = _plans.pop(what, None) or _Plan(_get_context(), inputs, options)
        _plans[what] = plan
        if len(_plans) > _PLANS:
            _plans.popitem(last=False)
        return plan


class _Plan:
    """One compiled attention and what it needs to run; one thread at a time."""

    def __init__(self, context, inputs, options):
        self.lock = threading.Lock()
        self.context = context
        self.plan, self.exec = ctypes.c_void_p(), ctypes.c_void_p()
        graph = lib.attend_graph_new(context.pointer)
        if not graph:
            raise MemoryError("no memory for a graph")
        try:
            self._compile(graph, inputs, options)
        finally:
            lib.attend_graph_free(graph)
        status = lib.attend_exec_new(self.plan, ctypes.byref(self.exec))
        context.made.add((self.exec.value, self.plan.value))
        lib.check(status, "no memory to run")

    def _compile(self, graph, inputs, options):
        t = {n: lib.attend_graph_input(graph, n.encode(), v.type, lib.shape(v.shape))
             for n, v in inputs.items()}
        opts, lse = lib.AttentionOpts(), lib.Tensor()
        lib.attend_attention_opts_init(ctypes.byref(opts))
        opts.mask.causal, opts.mask.align = options.causal, options.align
        opts.mask.left, opts.mask.right = options.window
        opts.softcap = options.softcap
        if options.scale is not None:
            opts.scale = options.scale
        if "mask" in t:
            opts.mask.mask = t["mask"]
        for n in ("alibi", "sinks", "q_lens", "kv_lens"):
            if n in t:
                setattr(opts, n, t[n])
        call = lib.attend_graph_additive_attention if "wq" in t else lib.attend_graph_attention
        parts = [t[n] for n in ("query", "key", "value", "wq", "wk", "va") if n in t]
        o = call(graph, *parts, ctypes.byref(opts), ctypes.byref(lse) if options.lse else None)
        if inputs["query"].type != lib.F32:
            o = lib.attend_graph_cast(graph, o, inputs["query"].type)
        lib.attend_graph_output(graph, b"o", o)
        if options.lse:
            lib.attend_graph_output(graph, b"lse", lse)
        how = lib.CompileOpts()
        lib.attend_compile_opts_init(ctypes.byref(how))
        how.device = _device
        lib.check(lib.attend_compile(graph, ctypes.byref(how), ctypes.byref(self.plan)),
                  lib.attend_graph_error(graph))

    def run(self, inputs, outputs):
        bind = (lib.Binding * (len(inputs) + len(outputs)))()
        for b, (name, v) in zip(bind, list(inputs.items()) + list(outputs.items())):
            b.set(name.encode(), v)
            if name in outputs:
                b.stride = None  # new memory is contiguous
        if lib.attend_bind(self.exec, bind, len(bind)) < 0 or lib.attend_run(self.exec) < 0:
            raise Error(lib.attend_exec_error(self.exec).decode())

    def __del__(self):
        self.context.free_made((self.exec.value, self.plan.value))
