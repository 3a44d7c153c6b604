"""Quantized matrices as sources of float32: codes of few bits, their zero points and their scales.

Everything here is linear: a weight is `(code - zero) * scale`, where zero and scale hold for a block of weights. The
products are those of `dequant_simple`, `dequant_packed` and `dequant_gptq` in conversion/base.py at llama.cpp
0c1e57098, https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/base.py, in float32 and in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from slmkit.errors import ConvertError
from slmkit.ops.convert.encode import to_f32
from slmkit.ops.convert.origin import described
from slmkit.ops.convert.weights import Array, Floats, Weights, floats

BAND_ELEMENTS = 1 << 20
"""Elements read at a time where only some columns of them are wanted."""

_INTEGERS = {"I8": np.int8, "U8": np.uint8}


@cache
def float8_values(dtype: str) -> Floats:
    """What each of the 256 bytes means.

    F8_E4M3 is the finite one of https://arxiv.org/abs/2209.05433 (bias 7, no infinity, NaN is S1111111), F8_E5M2 the
    upper half of a float16.
    """
    codes = np.arange(256, dtype=np.uint16)
    if dtype == "F8_E5M2":
        return (codes << np.uint16(8)).view(np.float16).astype(np.float32)
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent, mantissa = (codes >> 3 & 15).astype(np.int64), (codes & 7) / 8.0
    values = sign * np.where(exponent == 0, mantissa * 2.0**-6, (1 + mantissa) * 2.0 ** (exponent - 7))
    return np.where(codes & 0x7F == 0x7F, np.nan, values).astype(np.float32)


@dataclass(frozen=True)
class Decoded:
    """Codes of 8 bits as the numbers they stand for: F8_E4M3, F8_E5M2, I8 and U8."""

    source: Weights
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the source."""
        return self.source.shape

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        part = self.source.read(start, stop)
        if self.source.dtype in _INTEGERS:
            return part.view(_INTEGERS[self.source.dtype]).astype(np.float32)
        return float8_values(self.source.dtype)[part]


@dataclass(frozen=True)
class Packed:
    """Codes of 1, 2, 4 or 8 bits side by side in the integers of a matrix, the lowest bits first.

    They follow each other along `axis`: in one column with 0, in one row with 1. `shape` is that of the codes, without
    what fills up the last integer. Code `j` of an integer is the one in place `order[j]`.
    """

    words: Weights
    bits: int
    axis: int
    shape: tuple[int, int]
    order: tuple[int, ...] | None = None
    dtype: str = "U8"

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`; reads whole rows."""
        columns = self.shape[1]
        first, last = start // columns, -(-stop // columns)
        return self.tile(first, last, 0, columns).reshape(-1)[start - first * columns : stop - first * columns]

    def tile(self, top: int, bottom: int, left: int, right: int) -> npt.NDArray[np.uint8]:
        """The codes in a part of the matrix."""
        n = self.per_word
        if self.axis == 0:
            first = top // n
            words = tile(self.words, first, -(-bottom // n), left, right)
            codes = self._codes(words).swapaxes(1, 2).reshape(-1, right - left)
            return codes[top - first * n : bottom - first * n]
        first = left // n
        words = tile(self.words, top, bottom, first, -(-right // n))
        return self._codes(words).reshape(bottom - top, -1)[:, left - first * n : right - first * n]

    @property
    def per_word(self) -> int:
        """Codes in one integer."""
        return {"I32": 32, "U8": 8}[self.words.dtype] // self.bits

    def _codes(self, words: Array) -> npt.NDArray[np.uint8]:
        """One dimension more: the codes of each integer."""
        # Integers are little endian: taken as bytes, their codes follow each other as well.
        octets = np.ascontiguousarray(words)[..., None].view(np.uint8)[..., None]
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        codes: npt.NDArray[np.uint8] = (octets >> shifts & np.uint8((1 << self.bits) - 1)).reshape(*words.shape, -1)
        return codes if self.order is None else codes[..., list(self.order)]


def tile(source: Weights, top: int, bottom: int, left: int, right: int) -> Array:
    """A part of a matrix, read in bands so that memory does not depend on how wide the matrix is."""
    columns = source.shape[1]
    if (left, right) == (0, columns):
        return source.read(top * columns, bottom * columns).reshape(-1, columns)
    step = max(1, BAND_ELEMENTS // columns)
    bands = []
    for first in range(top, bottom, step):
        last = min(first + step, bottom)
        bands.append(source.read(first * columns, last * columns).reshape(-1, columns)[:, left:right].copy())
    return np.concatenate(bands)


@dataclass(frozen=True)
class Scaled:
    """Codes times the scale of their block, after their block's zero point is taken off.

    `block` is the size of a block in each dimension; `scale` and `zero` have one entry for each block.
    """

    source: Weights
    scale: Weights
    block: tuple[int, ...]
    zero: Weights | float | None = None
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the codes."""
        return self.source.shape

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`; reads whole rows."""
        columns = self.shape[-1]
        first, last = start // columns, -(-stop // columns)
        part = floats(self.source, first * columns, last * columns).reshape(-1, columns)
        if isinstance(self.zero, float):
            part = part - np.float32(self.zero)
        elif self.zero is not None:
            part = part - self._blocks(self.zero, first, last)
        part = part * self._blocks(self.scale, first, last)
        return part.reshape(-1)[start - first * columns : stop - first * columns]

    def _blocks(self, table: Weights, first: int, last: int) -> Floats:
        """What holds for the weights in rows `first` to `last`: a value for each, or one for each row."""
        counts = [-(-n // size) for n, size in zip(self.shape, self.block, strict=True)]
        at = np.unravel_index(np.arange(first, last), self.shape[:-1])
        rows = np.ravel_multi_index([i // size for i, size in zip(at, self.block[:-1], strict=True)], counts[:-1])
        begin, end = int(rows[0]), int(rows[-1]) + 1
        values = floats(table, begin * counts[-1], end * counts[-1]).reshape(-1, counts[-1])[rows - begin]
        return values if counts[-1] == 1 else np.repeat(values, self.block[-1], axis=1)[:, : self.shape[-1]]


@dataclass(frozen=True)
class InputMajor:
    """The transpose of a packed matrix whose rows are inputs, as GPTQ and AWQ keep it.

    `codes` is (inputs, outputs), `scales` and `zeros` (groups, outputs). Input `i` belongs to group `groups[i]`, or
    where there is no such table, to `i // group_size`.
    """

    codes: Packed
    zeros: Packed
    scales: Weights
    group_size: int
    groups: Weights | None
    zero_shift: int = 0
    """What is added to each zero point: GPTQ's first format stored them less one."""
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        return self.codes.shape[::-1]

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`; reads whole rows, which are columns of the file."""
        n_inputs, n_groups = self.codes.shape[0], self.zeros.shape[0]
        first, last = start // n_inputs, -(-stop // n_inputs)
        codes = np.ascontiguousarray(self.codes.tile(0, n_inputs, first, last).T)
        zeros = self.zeros.tile(0, n_groups, first, last).T.astype(np.int16) + np.int16(self.zero_shift)
        scales = to_f32(tile(self.scales, 0, n_groups, first, last), self.scales.dtype).T
        groups = self._groups(n_inputs, n_groups)
        part = (codes - np.take(zeros, groups, axis=1)).astype(np.float32)
        part *= np.take(scales, groups, axis=1)
        return part.reshape(-1)[start - first * n_inputs : stop - first * n_inputs]

    def _groups(self, n_inputs: int, n_groups: int) -> npt.NDArray[np.int64]:
        if self.groups is None:
            return np.arange(n_inputs) // self.group_size
        found = self.groups.read(0, n_inputs).astype(np.int64)
        if found.min() < 0 or found.max() >= n_groups:
            raise ConvertError(f"{described(self.groups, 'g_idx')} points outside of the {n_groups} groups there are")
        return found
