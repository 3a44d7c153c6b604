"""Q8_0, bit for bit as gguf-py computes it, in passes over blocks that stay in the cache.

A block is 32 weights: `d = max|x| / 127` as half precision, then `round(x / d)` as 32 signed bytes; halves are rounded
away from zero. `Q8_0.quantize_blocks` of gguf-py/gguf/quants.py at llama.cpp 0c1e57098,
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/gguf-py/gguf/quants.py.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

BLOCK = np.dtype([("d", "<f2"), ("qs", "V32")])
_STEP = 1 << 16
"""Weights at a time."""
_ALONE = Lock()
"""A step is 20 short operations, and each lets go of the interpreter's lock. Two threads that do so at once wait for
each other all the time: together they took three times as long as one after the other."""
_SMALLEST = np.float32(2.0**-120)
"""Scales below it (and infinity, and NaN) go the slow way: twice their inverse may be no float."""


def quantize(part: Array, dtype: str) -> npt.NDArray[np.uint8]:
    """A whole number of blocks of `dtype` BF16 (bits in uint16) or F32 as the bytes of Q8_0, flat."""
    flat = np.ascontiguousarray(part).reshape(-1)
    out = np.empty(flat.size // 32, BLOCK)
    work = _Work(min(_STEP, flat.size), flat.dtype)
    with _ALONE, np.errstate(all="ignore"):  # infinities and NaNs come out as the reference has them
        for start in range(0, flat.size, _STEP):
            step = flat[start : start + _STEP]
            _quantize(step, dtype, out[start // 32 : (start + step.size) // 32], work)
    return out.view(np.uint8)


class _Work:
    """The intermediate results of one step."""

    def __init__(self, n: int, dtype: np.dtype[Any]) -> None:
        self.floats = np.empty(n, np.float32)
        self.magnitudes = np.empty(n, f"i{dtype.itemsize}")
        self.turned = np.empty((8, n // 32), f"V{4 * dtype.itemsize}")
        self.halves = np.empty(n, np.int16)
        self.carry = np.empty(n, np.int16)
        self.bytes = np.empty(n, np.int8)


def _quantize(part: Array, dtype: str, out: Array, work: _Work) -> None:
    n = part.size
    if dtype == "BF16":
        bits = work.floats[:n].view(np.uint32)
        np.copyto(bits, part)
        np.left_shift(bits, np.uint32(16), out=bits)
        values = bits.view(np.float32)
        largest = (_largest(part, work).astype(np.uint32) << np.uint32(16)).view(np.float32)
    else:
        values = part
        largest = _largest(part, work).view(np.float32)
    d = largest / np.float32(127)
    odd = np.flatnonzero(~((d >= _SMALLEST) & (d < np.inf)) & (d != 0))
    twice = np.where(d == 0, np.float32(0), np.float32(2) / d)
    out["d"] = d
    slow = values.reshape(-1, 32)[odd]
    scaled = work.floats[:n]
    np.multiply(values.reshape(-1, 32), twice[:, None], out=scaled.reshape(-1, 32))
    # h = 2x towards zero is exact, and x rounded half away from zero is (h + 1) / 2 downwards for h >= 0, h / 2
    # downwards for h < 0.
    halves, carry, whole = work.halves[:n], work.carry[:n], work.bytes[:n]
    np.copyto(halves, scaled, casting="unsafe")
    np.right_shift(halves, 15, out=carry)
    np.add(halves, carry, out=halves)
    np.add(halves, 1, out=halves)
    np.right_shift(halves, 1, out=halves)
    np.copyto(whole, halves, casting="unsafe")
    out["qs"] = whole.view("V32")
    if odd.size:
        out[odd] = _as_written(slow)


def _largest(part: Array, work: _Work) -> Array:
    """The largest magnitude of each block, as bits: without their sign, floats are ordered like integers.

    Maxima go along columns, because a reduction of rows as short as a block costs four times as much: four neighbours
    are one item of a matrix that is turned, and what remains are four columns.
    """
    signed = part.view(work.magnitudes.dtype)
    magnitudes = work.magnitudes[: part.size]
    np.bitwise_and(signed, np.iinfo(signed.dtype).max, out=magnitudes)
    turned = work.turned[:, : part.size // 32]
    np.copyto(turned, magnitudes.view(turned.dtype).reshape(-1, 8).T)
    four = np.maximum.reduce(turned.view(signed.dtype).reshape(8, -1, 4), axis=0)
    two = np.maximum(four[:, 0::2], four[:, 1::2])
    one: Array = np.maximum(two[:, 0], two[:, 1])
    return one


def _as_written(blocks: Floats) -> Array:
    """The reference's formulas as they stand, for scales that are subnormal, infinite or NaN."""
    d = abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    x = blocks * np.where(d == 0, np.float32(0), 1 / d)
    magnitude = abs(x)
    down = np.floor(magnitude)
    rounded = np.sign(x) * (down + np.floor(2 * (magnitude - down)))
    out = np.empty(len(blocks), BLOCK)
    out["d"] = d[:, 0]
    out["qs"] = rounded.astype(np.int8).view("V32")[:, 0]
    return out
