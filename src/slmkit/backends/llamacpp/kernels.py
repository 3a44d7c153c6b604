"""The engine's kernels that turn rows of weights into blocks of a type and back. Imported in child processes only.

All of them may be called from several threads at the same time.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmkit.backends.llamacpp.bindings import Floats
from slmkit.backends.llamacpp.native import ll
from slmkit.formats.gguf.types import GgmlType

Bytes = NDArray[np.uint8]


class _TypeTraits(ctypes.Structure):
    # struct ggml_type_traits, ggml/include/ggml.h at 0c1e57098
    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float_ref", ctypes.c_void_p),
    ]


def quantize(rows: Floats, kind: GgmlType, importance: Floats | None, blocks: Bytes) -> None:
    """Turn `rows` (n_rows, n_columns) into `blocks`, which are as long as they become; `importance` is one row."""
    guide = None if importance is None else importance.ctypes.data
    _library().ggml_quantize_chunk(kind.id, rows.ctypes.data, blocks.ctypes.data, 0, *rows.shape, guide)


def dequantize(blocks: Bytes, kind: GgmlType, weights: Floats) -> None:
    """Fill `weights` with what `blocks` stand for: another type than F32, which needs nothing done."""
    _traits(kind.id).to_float(blocks.ctypes.data, weights.ctypes.data, weights.size)


def is_sound(blocks: Bytes, kind: GgmlType) -> bool:
    """Whether all its weights or scales are finite."""
    return bool(_library().ggml_validate_row_data(kind.id, blocks.ctypes.data, blocks.size))


@cache
def _traits(kind: int) -> Any:
    return _library().ggml_get_type_traits(kind).contents


@cache
def _library() -> Any:
    lib = ll._lib
    lib.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, *(ctypes.c_void_p,) * 2, *(ctypes.c_int64,) * 3, ctypes.c_void_p]
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_validate_row_data.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    lib.ggml_validate_row_data.restype = ctypes.c_bool
    return lib
