"""Looks into ggml's tensors while the engine computes. Imported in child processes only.

The C API has no accessors for all of this, so `Tensor` repeats `struct ggml_tensor` of ggml/include/ggml.h at llama.cpp
0c1e57098. The layout may change with any version: `check_layout` compares it with what the library itself says.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmkit.backends.llamacpp.bindings import NativeError
from slmkit.backends.llamacpp.native import ll

F32, I32 = 0, 26  # enum ggml_type
_MOST_OPS = 64


class Tensor(ctypes.Structure):
    """What the engine knows of one tensor: `ne` are elements and `nb` bytes between them, the fastest first."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    ]

    @classmethod
    def at(cls, address: int) -> Tensor:
        """The tensor at an address that the engine gave."""
        return cls.from_address(address)

    def values(self) -> NDArray[Any]:
        """Its numbers, shape (ne3, ne2, ne1, ne0), F32 or I32: the engine's own memory, or a copy of the GPU's.

        Good until the engine goes on. Raises `NativeError` for another type.
        """
        kinds = {F32: np.float32, I32: np.int32}
        if self.type not in kinds:
            raise NativeError(f"the tensor {self.name.decode()} has type {self.type}, not F32 or I32")
        size_bytes = library().ggml_nbytes(ctypes.addressof(self))
        if self.buffer and library().ggml_backend_buffer_is_host(self.buffer):
            raw = (ctypes.c_char * size_bytes).from_address(self.data)
        else:
            raw = (ctypes.c_char * size_bytes)()
            library().ggml_backend_tensor_get(ctypes.addressof(self), raw, 0, size_bytes)
        shape, strides = tuple(self.ne)[::-1], tuple(self.nb)[::-1]
        return np.ndarray(shape, kinds[self.type], raw, strides=strides)


def op_number(name: str) -> int:
    """The number of an operation in this engine, by its name: MUL_MAT. Raises `NativeError`."""
    for number in range(_MOST_OPS):
        if library().ggml_op_name(number) == name.encode():
            return number
    raise NativeError(f"this engine has no operation {name}")


def check_layout() -> None:
    """Make tensors by the library and look at them as `Tensor`; raises `NativeError` where the two disagree."""
    lib = library()
    context = lib.ggml_init(_InitParams(1 << 16, None, True))
    buffer = None
    try:
        weights = lib.ggml_new_tensor_3d(context, F32, 4, 3, 2)
        rows = lib.ggml_new_tensor_3d(context, F32, 4, 5, 7)
        ids = lib.ggml_new_tensor_2d(context, I32, 2, 7)
        few = lib.ggml_view_3d(context, rows, 4, 1, 7, 16, 80, 16)
        product = lib.ggml_mul_mat_id(context, weights, few, ids)
        flat = lib.ggml_mul_mat(context, few, few)
        lib.ggml_set_name(weights, b"blk.0.ffn_up_exps.weight")
        buffer = lib.ggml_backend_alloc_ctx_tensors_from_buft(context, lib.ggml_backend_cpu_buffer_type())
        known = np.arange(140, dtype=np.float32).reshape(1, 7, 5, 4)
        lib.ggml_backend_tensor_set(rows, known.ctypes.data, 0, known.nbytes)
        w, r, v, p, f = map(Tensor.at, (weights, rows, few, product, flat))
        holds = (
            (w.type, r.buffer, w.name) == (F32, buffer, b"blk.0.ffn_up_exps.weight")
            and (tuple(w.ne), tuple(w.nb)) == ((4, 3, 2, 1), (4, 16, 48, 96))
            and (p.op, tuple(p.src[:4])) == (op_number("MUL_MAT_ID"), (weights, few, ids, None))
            and (f.op, tuple(f.src[:3])) == (op_number("MUL_MAT"), (few, few, None))
            and (v.view_src, v.view_offs, v.data) == (rows, 16, lib.ggml_get_data(few))
            and np.array_equal(r.values(), known)
            and np.array_equal(v.values(), known[:, :, 1:2])
            and lib.ggml_tensor_overhead() == ctypes.sizeof(Tensor) + 32  # and the list entry before each tensor
        )
    finally:
        if buffer:
            lib.ggml_backend_buffer_free(buffer)
        lib.ggml_free(context)
    if not holds:
        raise NativeError(
            "this engine lays its tensors out in another way than slmkit knows: it cannot look at activations"
        )


class _InitParams(ctypes.Structure):
    # struct ggml_init_params
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


_P, _I64, _SIZE, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_init": (_P, [_InitParams]),
    "ggml_free": (None, [_P]),
    "ggml_new_tensor_2d": (_P, [_P, _INT, _I64, _I64]),
    "ggml_new_tensor_3d": (_P, [_P, _INT, _I64, _I64, _I64]),
    "ggml_view_3d": (_P, [_P, _P, _I64, _I64, _I64, _SIZE, _SIZE, _SIZE]),
    "ggml_mul_mat": (_P, [_P, _P, _P]),
    "ggml_mul_mat_id": (_P, [_P, _P, _P, _P]),
    "ggml_set_name": (_P, [_P, ctypes.c_char_p]),
    "ggml_get_data": (_P, [_P]),
    "ggml_nbytes": (_SIZE, [_P]),
    "ggml_op_name": (ctypes.c_char_p, [_INT]),
    "ggml_tensor_overhead": (_SIZE, []),
    "ggml_backend_cpu_buffer_type": (_P, []),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_P, [_P, _P]),
    "ggml_backend_buffer_free": (None, [_P]),
    "ggml_backend_buffer_is_host": (ctypes.c_bool, [_P]),
    "ggml_backend_tensor_set": (None, [_P, _P, _SIZE, _SIZE]),
    "ggml_backend_tensor_get": (None, [_P, _P, _SIZE, _SIZE]),
}


@cache
def library() -> Any:
    """The engine's own, with the signatures of what is called here; raises `NativeError` for what it lacks."""
    lib = ll._lib  # never CDLL: see `bindings._threadpool`
    for name, (result, arguments) in _SIGNATURES.items():
        try:
            function = getattr(lib, name)
        except AttributeError as error:
            raise NativeError(f"this engine has no {name}: it cannot look at activations") from error
        function.restype, function.argtypes = result, arguments
    return lib
