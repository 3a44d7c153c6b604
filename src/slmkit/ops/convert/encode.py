"""Conversion of chunks between element types, bit for bit as llama.cpp's converter does it (over float32).

All functions go through a chunk in steps whose intermediate results stay in the cache, and release the interpreter's
lock for most of their time: two threads encode twice as fast as one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.errors import ConvertError
from slmkit.ops.convert import q8_0

Array = npt.NDArray[Any]

FLOATS = ("F64", "F32", "F16", "BF16")
_STEP = 1 << 16
"""Elements at a time in bit arithmetic: up to 8 times faster than a whole chunk at once."""


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
    if (dtype, target) == ("BF16", "Q8_0"):
        return _rows(part, q8_0.quantize(part, dtype))
    values = to_f32(part, dtype)
    match target:
        case "F32":
            return values
        case "F16":
            with np.errstate(over="ignore"):  # too large for a half: infinity, as upstream
                return values.astype("<f2")
        case "BF16":
            return _rows(part, f32_to_bf16(values).view(np.uint8))
        case "Q8_0":
            return _rows(part, q8_0.quantize(values, "F32"))
        case "TQ1_0" | "TQ2_0":
            from gguf import GGMLQuantizationType
            from gguf.quants import quantize

            out: Array = quantize(values, GGMLQuantizationType[target])
            return out
    raise ConvertError(f"the converter does not write {target}", hint="convert to f16, then quantize")


def _rows(part: Array, data: npt.NDArray[np.uint8]) -> Array:
    """The bytes as a matrix, one row of it for each row of `part`."""
    return data.reshape(*part.shape[:-1], -1)


def to_f32(part: Array, dtype: str) -> npt.NDArray[np.float32]:
    """A chunk as float32; BF16 is the upper half of a float32."""
    if dtype == "BF16":
        out = part.astype(np.uint32)
        out <<= np.uint32(16)
        return out.view(np.float32)
    return part.astype(np.float32, copy=False)


def bf16_to_f16(part: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Bits of bfloat16 to bits of half precision, rounded to nearest even.

    Each of the 65,536 values is looked up: as fast as arithmetic where both types have the exponent, and as fast for
    the others.
    """
    flat = np.ascontiguousarray(part).reshape(-1)
    out = np.empty_like(flat)
    for i in range(0, flat.size, _STEP):
        np.take(_halves(), flat[i : i + _STEP], out=out[i : i + _STEP], mode="wrap")  # the mode without a check
    return out.reshape(part.shape)


@cache
def _halves() -> npt.NDArray[np.uint16]:
    """The half for each of the 65,536 bfloat16 values."""
    values = (np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float16).view(np.uint16)


def f32_to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Bits of bfloat16, rounded to nearest even; NaNs stay NaNs, quiet ones."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
    out = np.empty(flat.size, np.uint16)
    work = np.empty(min(_STEP, flat.size), np.uint32)
    for i in range(0, flat.size, _STEP):
        bits, block = flat[i : i + _STEP], out[i : i + _STEP]
        rounded = work[: bits.size]
        np.right_shift(bits, 16, out=rounded)
        rounded &= np.uint32(1)
        rounded += np.uint32(0x7FFF)
        rounded += bits  # wraps around for NaNs alone
        rounded >>= np.uint32(16)
        np.copyto(block, rounded, casting="unsafe")
        nan = np.flatnonzero(np.isnan(bits.view(np.float32)))
        block[nan] = (bits[nan] >> np.uint32(16)) | np.uint32(64)
    return out.reshape(values.shape)


def _quiet(part: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """The same bits; NaNs get their quiet bit, as ggml's conversion gives it to them."""
    flat = part.reshape(-1)
    steps = (flat[i : i + _STEP] for i in range(0, flat.size, _STEP))
    if not any((step.view(np.int16) & np.int16(0x7FFF)).max() > 0x7F80 for step in steps):
        return part
    nan = (part & np.uint16(0x7FFF)) > np.uint16(0x7F80)
    return np.where(nan, part | np.uint16(64), part)
