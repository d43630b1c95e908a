# SPDX-License-Identifier: MIT
"""Memory of arrays, seen without a copy, and new memory for results."""
import ctypes
import importlib

from . import _library as lib

# Types by the names that array libraries give them.
_TYPES = {"float32": lib.F32, "float16": lib.F16, "bfloat16": lib.BF16, "float64": lib.F64,
          "int8": lib.I8, "int32": lib.I32, "int64": lib.I64, "uint8": lib.U8, "bool": lib.BOOL}
_BYTES = {lib.F32: 4, lib.F16: 2, lib.BF16: 2, lib.F64: 8, lib.I8: 1, lib.I32: 4, lib.I64: 8, lib.U8: 1,
          lib.BOOL: 1}


class Memory:
    """An address with a type, a shape and strides in elements.  owner keeps it alive."""

    def __init__(self, name, type, shape, stride, data, owner):
        self.name, self.type, self.shape, self.data, self.owner = name, type, shape, data, owner
        tight = contiguous(shape)
        free = [n <= 1 or 0 in shape for n in shape]  # axes whose stride is never taken
        self.stride = tuple(t if f else s for f, s, t in zip(free, stride, tight))
        last = sum((n - 1) * s for n, s in zip(shape, self.stride))
        self.bytes = 0 if 0 in shape else (last + 1) * _BYTES[type]

    def lead(self, rank):
        """The same with just so many axes: ones before those there are, or the first ones joined."""
        more, shape, stride = rank - len(self.shape), self.shape, self.stride
        if more >= 0:
            shape = (1,) * more + shape
            return Memory(self.name, self.type, shape, (0,) * more + stride, self.data, self.owner)
        for i in range(-more):
            if shape[i] > 1 and stride[i] != shape[i + 1] * stride[i + 1]:
                raise ValueError("the first axes of %s cannot be joined without a copy" % self.name)
        joined = 1
        for n in shape[:1 - more]:
            joined *= n
        return Memory(self.name, self.type, (joined,) + shape[1 - more:], stride[-more:], self.data,
                      self.owner)


def contiguous(shape):
    stride = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        stride[i] = stride[i + 1] * max(shape[i + 1], 1)
    return tuple(stride)


def _is_numpy(x):
    return hasattr(x, "__array_interface__")


def view(x, name):
    """The Memory of an array."""
    if _is_numpy(x):
        return _view_numpy(x, name)
    if hasattr(x, "__dlpack__"):
        return _view_dlpack(x, name)
    raise TypeError("%s is a %s, and should be a NumPy array or have __dlpack__" %
                    (name, type(x).__name__))


def _view_numpy(x, name):
    if x.dtype.name not in _TYPES or not x.dtype.isnative:
        raise TypeError("%s is of type %s, which is not supported" % (name, x.dtype))
    size = x.itemsize
    if x.ndim and (any(s < 0 or s % size for s in x.strides) or x.shape[-1] > 1 and
                   x.strides[-1] != size):
        x = x.copy(order="C")
    return Memory(name, _TYPES[x.dtype.name], x.shape, tuple(s // size for s in x.strides),
                  x.__array_interface__["data"][0], x)


def _view_dlpack(x, name, copied=False):
    capsule, found, err = x.__dlpack__(), lib.View(), ctypes.create_string_buffer(300)
    managed = ctypes.cast(_capsule_pointer(capsule, b"dltensor"), ctypes.POINTER(lib.DLManaged))
    lib.check(lib.attend_dlpack_view(managed.contents.tensor, ctypes.byref(found), err, len(err)),
              name + ": " + err.value.decode())
    rank = found.shape.rank
    if rank and found.shape.dim[rank - 1] > 1 and found.stride[rank - 1] != 1 and not copied:
        return _view_dlpack(x.contiguous() if hasattr(x, "contiguous") else x.copy(), name, True)
    return Memory(name, found.type, tuple(found.shape.dim[:rank]), tuple(found.stride[:rank]),
                  found.data or 0, capsule)


# ---- results ----


def empty_like(x, shape, type):
    """A function that gives a new array of x's library, and the Memory that it will have."""
    if _is_numpy(x):
        numpy = importlib.import_module("numpy")
        a = numpy.empty(shape, x.dtype if _TYPES[x.dtype.name] == type else numpy.float32)
        return (lambda: a), Memory("out", type, shape, contiguous(shape),
                                   a.__array_interface__["data"][0], a)
    made = _Made(shape, type)
    m = Memory("out", type, shape, contiguous(shape), made.managed.contents.tensor.data, made)
    module = importlib.import_module(x.__class__.__module__.split(".")[0])
    return (lambda: module.from_dlpack(made)), m


class _Made:
    """New memory of the library's, to be taken over once by from_dlpack."""

    def __init__(self, shape, type):
        self.managed = ctypes.POINTER(lib.DLManaged)()
        lib.check(lib.attend_dlpack_new(type, lib.shape(shape), ctypes.byref(self.managed)),
                  "no memory for a result")
        self.owned = True

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **_):
        self.owned = False
        return _capsule_new(self.managed, b"dltensor", _delete_untaken)

    def __del__(self):
        if self.owned:
            self.managed.contents.deleter(self.managed)


_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi))
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_capsule_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(
    ("PyCapsule_New", ctypes.pythonapi))
# Of a capsule that is going, which must not be held again: by its address.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi))
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi))


@_Destructor
def _delete_untaken(capsule):
    if _is_valid(capsule, b"dltensor"):
        pointer = _raw_pointer(capsule, b"dltensor")
        ctypes.cast(pointer, ctypes.POINTER(lib.DLManaged)).contents.deleter(pointer)
