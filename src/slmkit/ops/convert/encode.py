"""Conversion of chunks between element types, bit for bit as llama.cpp's converter does it (over float32)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.errors import ConvertError

Array = npt.NDArray[Any]

FLOATS = ("F64", "F32", "F16", "BF16")
_BLOCK = 1 << 18
"""Elements at a time in bit arithmetic, so that the intermediate results stay in the cache: 8 times faster."""


def encode(part: Array, dtype: str, target: str) -> Array:
    """A chunk of safetensors type `dtype` (a name in `FLOATS`) as the bytes of ggml type `target`.

    `target` is F32, F16, BF16, Q8_0, TQ1_0 or TQ2_0; for the last three the rows must be whole blocks. Raises
    `ConvertError` for other types.
    """
    if dtype not in FLOATS:
        raise ConvertError(f"weights of type {dtype} cannot be converted", hint="use the unquantized checkpoint")
    if (dtype, target) == ("BF16", "F16"):
        return bf16_to_f16(part)
    if (dtype, target) == ("BF16", "BF16"):
        return _quiet(part)
    if dtype == target:
        return part
    values = to_f32(part, dtype)
    match target:
        case "F32":
            return values
        case "F16":
            with np.errstate(over="ignore"):  # too large for a half: infinity, as upstream
                return values.astype("<f2")
        case "BF16" | "Q8_0" | "TQ1_0" | "TQ2_0":
            from gguf import GGMLQuantizationType
            from gguf.quants import quantize

            out: Array = quantize(values, GGMLQuantizationType[target])
            return out
    raise ConvertError(f"the converter does not write {target}", hint="convert to f16, then quantize")


def to_f32(part: Array, dtype: str) -> npt.NDArray[np.float32]:
    """A chunk as float32; BF16 is the upper half of a float32."""
    if dtype == "BF16":
        out = part.astype(np.uint32)
        out <<= np.uint32(16)
        return out.view(np.float32)
    return part.astype(np.float32, copy=False)


def bf16_to_f16(part: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Bits of bfloat16 to bits of half precision, rounded to nearest even.

    For exponents that both types have (2^-14 to 2^15) it is a shift and a new bias; the few others are looked up.
    """
    flat = np.ascontiguousarray(part).reshape(-1)
    out = np.empty_like(flat)
    for i in range(0, flat.size, _BLOCK):
        bits, block = flat[i : i + _BLOCK], out[i : i + _BLOCK]
        np.left_shift(bits, 3, out=block)
        block -= np.uint16((127 - 15) << 10 & 0xFFFF)
        block &= np.uint16(0x7FFF)
        block |= bits & np.uint16(0x8000)
        exponent = bits & np.uint16(0x7FFF)
        exponent -= np.uint16(113 << 7)
        others = np.flatnonzero(exponent >= np.uint16(30 << 7))
        block[others] = _halves()[bits[others]]
    return out.reshape(part.shape)


@cache
def _halves() -> npt.NDArray[np.uint16]:
    """The half for each of the 65,536 bfloat16 values."""
    values = (np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float16).view(np.uint16)


def _quiet(part: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """The same bits; NaNs get their quiet bit, as ggml's conversion gives it to them."""
    nan = (part & np.uint16(0x7FFF)) > np.uint16(0x7F80)
    return np.where(nan, part | np.uint16(64), part) if nan.any() else part
