"""Finds weights that are no numbers, or that the type they are written as is too small for, while they stream by.

Looked at is what will be written: two maxima over its bits, a fraction of what hashing costs. Only where that finds
something the weights themselves are looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.ops.convert.encode import to_f32
from slmkit.ops.convert.origin import described
from slmkit.ops.convert.weights import Array, Weights

_INFINITY = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000}
"""The bits of plus infinity: numbers are below, NaNs above; below zero the highest bit is set as well."""

_SCALES = {"Q8_0": (34, 0), "TQ1_0": (54, 52), "TQ2_0": (66, 64)}
"""Bytes of a block, and where in it its scale is, a half: it is no number when one of the block's weights is none."""


class Watch:
    """Keeps what was found in one conversion; several threads may look at the same time.

    Too large is counted by what is infinite in the file: weights, or scales of blocks.
    """

    def __init__(self) -> None:
        self._found: Counter[tuple[str, str]] = Counter()
        self._lock = Lock()

    def look(self, name: str, weights: Weights, part: Array, data: Array, target: str) -> None:
        """`data` is what `part`, a chunk of the tensor that GGUF calls `name`, became as ggml type `target`."""
        bits, infinity = _bits(data, target)
        if _all_finite(bits, infinity):
            return
        values = to_f32(part, "BF16") if weights.dtype == "BF16" else part
        counts = {"NaN": int(np.isnan(values).sum()), "infinite": int(np.isinf(values).sum())}
        if not any(counts.values()):
            sign = 1 << (8 * bits.itemsize - 1)
            what = f"too large for {target.lower()} and infinite in the GGUF"
            what += "" if target in ("BF16", "F32") else ": --type bf16 holds them"
            counts[what] = int((bits & (sign - 1) >= infinity).sum())
        tensor = described(weights, f"tensor `{name}`")
        with self._lock:
            self._found.update({(tensor, what): n for what, n in counts.items() if n})

    def warnings(self) -> Iterator[str]:
        """One for each tensor and what is wrong with it."""
        for (tensor, what), n in sorted(self._found.items()):
            yield f"{tensor}: {n:,} {what}"


def is_finite(data: Array, target: str) -> bool:
    """Whether everything in a chunk of ggml type `target`, as `encode` returns it, is a number."""
    return _all_finite(*_bits(data, target))


def _bits(data: Array, target: str) -> tuple[npt.NDArray[Any], int]:
    """The floats in a chunk as unsigned integers, and infinity as such."""
    octets = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    if target in _SCALES:
        size, at = _SCALES[target]
        octets, target = np.ascontiguousarray(octets.reshape(-1, size)[:, at : at + 2]).reshape(-1), "F16"
    return octets.view(np.uint32 if target == "F32" else np.uint16), _INFINITY[target]


def _all_finite(bits: npt.NDArray[Any], infinity: int) -> bool:
    signed = bits.view(np.int32 if bits.itemsize == 4 else np.int16)
    minus_infinity = infinity | 1 << (8 * bits.itemsize - 1)
    return not bits.size or bool(signed.max() < infinity and bits.max() < minus_infinity)
