"""The weights of a GGUF as float32, a few rows at a time, whatever their type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.errors import GgufError
from slmkit.formats.gguf.model import StoredTensor
from slmkit.formats.gguf.types import GgmlType

Floats = npt.NDArray[np.float32]

_PLAIN = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "F64": np.float64}


def is_readable(kind: GgmlType) -> bool:
    """Whether `floats` knows the type: gguf-py lacks some of the newest."""
    from gguf import GGMLQuantizationType as Type
    from gguf.quants import _type_traits

    return kind.name in _PLAIN or kind.name in ("F32", "F16") or Type.__members__.get(kind.name) in _type_traits


def floats(data: bytes, kind: GgmlType) -> Floats:
    """Whole blocks of a type as float32; raises `GgufError` for a type that is not `is_readable`."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    if kind.name in _PLAIN:
        with np.errstate(over="ignore"):  # a double that no float32 holds is infinite
            return np.frombuffer(data, _PLAIN[kind.name]).astype(np.float32)
    if not is_readable(kind):
        raise GgufError(f"{kind.name} cannot be turned into floats here: the gguf package lacks it")
    one_row = np.frombuffer(data, np.uint8).reshape(1, -1)  # gguf-py works on 16 rows at a time, however short they are
    with np.errstate(all="ignore"):  # what is infinite or no number stays so
        out: npt.NDArray[Any] = dequantize(one_row, GGMLQuantizationType(kind.id))
    return out.reshape(-1).astype(np.float32, copy=False)


def rows(tensor: StoredTensor, most_elements: int, group: int = 1) -> Iterator[Floats]:
    """All rows in order, a multiple of `group` at a time (but for the last), of about `most_elements` weights.

    The shape is that of the tensor with less in its first dimension when it has two, else (rows, row).
    """
    kind, row = tensor.info.type, tensor.info.shape[0]
    n_rows = tensor.info.n_elements // row if row else 0
    step = max(1, most_elements // row // group) * group if row else 1
    row_bytes = kind.size_bytes(row)
    for first in range(0, n_rows, step):
        n = min(step, n_rows - first)
        yield floats(tensor.read(first * row_bytes, n * row_bytes), kind).reshape(n, row)
