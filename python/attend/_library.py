# SPDX-License-Identifier: MIT
"""The part of attend.h that is used here, for ctypes.  Option structures begin with their size and are only
ever added to at their end, so their beginnings are enough; the library's init function fills the rest."""
import ctypes
import ctypes.util
import os
from ctypes import POINTER, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_uint8, c_uint16, \
    c_uint64, c_void_p

MAX_RANK = 6
F32, F16, BF16, F64, I8, I32, I64, U8, BOOL = range(9)
ALIGN = {"top-left": 1, "bottom-right": 2}


class Error(ValueError):
    """What the library refused, in its words."""


def _load():
    here = os.path.dirname(os.path.abspath(__file__))
    beside = [os.path.join(here, f) for f in sorted(os.listdir(here)) if f.startswith("libattend")]
    for path in [os.environ.get("ATTEND_LIBRARY")] + beside + [ctypes.util.find_library("attend")]:
        if path:
            return ctypes.CDLL(path)
    raise ImportError("libattend was not found: install it, or set ATTEND_LIBRARY to its path")


class Shape(ctypes.Structure):
    _fields_ = [("rank", c_int), ("dim", c_int64 * MAX_RANK)]


def shape(extents):
    return Shape(len(extents), (c_int64 * MAX_RANK)(*extents))


class Tensor(ctypes.Structure):
    _fields_ = [("graph", c_void_p), ("id", c_int32)]


class DeviceInfo(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("detail", c_char_p), ("present", c_int), ("chosen", c_int)]


class CtxOpts(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("threads", c_int), ("rest", c_uint8 * 1024)]


class MaskOpts(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("causal", c_int), ("align", c_int), ("left", c_int64),
                ("right", c_int64), ("mask", Tensor), ("kv_used", Tensor), ("q_offset", Tensor)]


class AttentionOpts(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("mask", MaskOpts), ("scale", c_float), ("softcap", c_float),
                ("alibi", Tensor), ("sinks", Tensor), ("q_lens", Tensor), ("kv_lens", Tensor),
                ("rest", c_uint8 * 2048)]


class CompileOpts(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("device", c_char_p), ("rest", c_uint8 * 1024)]


class Binding(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("data", c_void_p), ("bytes", c_int64),
                ("stride", POINTER(c_int64)), ("value", c_int64), ("on_device", c_int)]

    def set(self, name, view):
        self.name, self.data, self.bytes = name, view.data, view.bytes
        self.stride = (c_int64 * len(view.stride))(*view.stride)


class DLTensor(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32),
                ("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16), ("shape", POINTER(c_int64)),
                ("strides", POINTER(c_int64)), ("byte_offset", c_uint64)]


class DLManaged(ctypes.Structure):
    _fields_ = [("tensor", DLTensor), ("manager", c_void_p), ("deleter", ctypes.CFUNCTYPE(None, c_void_p))]


class View(ctypes.Structure):
    _fields_ = [("type", c_int), ("shape", Shape), ("stride", c_int64 * MAX_RANK), ("data", c_void_p),
                ("bytes", c_int64)]


def check(status, sentence):
    if status < 0:
        raise Error(sentence.decode() if isinstance(sentence, bytes) else sentence)


_library = _load()


def _declare(name, result, *arguments):
    function = getattr(_library, name)
    function.restype, function.argtypes = result, arguments
    globals()[name] = function


_declare("attend_version", c_char_p)
_declare("attend_ctx_opts_init", None, c_void_p)
_declare("attend_ctx_new", c_int, c_void_p, c_void_p)
_declare("attend_ctx_free", None, c_void_p)
_declare("attend_device_get", c_int, c_void_p, c_int, c_void_p)
_declare("attend_graph_new", c_void_p, c_void_p)
_declare("attend_graph_free", None, c_void_p)
_declare("attend_graph_error", c_char_p, c_void_p)
_declare("attend_graph_input", Tensor, c_void_p, c_char_p, c_int, Shape)
_declare("attend_graph_output", None, c_void_p, c_char_p, Tensor)
_declare("attend_graph_cast", Tensor, c_void_p, Tensor, c_int)
_declare("attend_attention_opts_init", None, c_void_p)
_declare("attend_graph_attention", Tensor, c_void_p, Tensor, Tensor, Tensor, c_void_p, c_void_p)
_declare("attend_graph_additive_attention", Tensor, c_void_p, *[Tensor] * 6, c_void_p, c_void_p)
_declare("attend_compile_opts_init", None, c_void_p)
_declare("attend_compile", c_int, c_void_p, c_void_p, c_void_p)
_declare("attend_plan_free", None, c_void_p)
_declare("attend_exec_new", c_int, c_void_p, c_void_p)
_declare("attend_exec_free", None, c_void_p)
_declare("attend_exec_error", c_char_p, c_void_p)
_declare("attend_bind", c_int, c_void_p, c_void_p, c_int)
_declare("attend_run", c_int, c_void_p)
_declare("attend_dlpack_view", c_int, POINTER(DLTensor), c_void_p, c_char_p, c_size_t)
_declare("attend_dlpack_new", c_int, c_int, Shape, c_void_p)
