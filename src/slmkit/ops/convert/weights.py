"""Tensors as sources of numbers: where the converter gets its data from, without holding any of it.

A source is a flat run of `prod(shape)` elements, rows one after the other, of which any part can be read. An
architecture composes the tensor that GGUF wants out of those that the checkpoint has: `Permuted`, `Sliced`, `Stacked`,
`Computed` and so on are sources of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from slmkit.errors import ConvertError
from slmkit.ops.convert.encode import to_f32
from slmkit.ops.convert.origin import described

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


class Weights(Protocol):
    """A tensor. `shape` is in numpy order; `dtype` is a safetensors dtype; BF16 data comes as its bits in uint16.

    `formats.safetensors.Tensor` is one.
    """

    @property
    def dtype(self) -> str:
        """A key of `formats.safetensors.DTYPES`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """In numpy order."""

    def read(self, start: int, stop: int) -> Array:
        """Elements `start` to `stop` as a flat array, which nobody may write to."""


def n_elements(weights: Weights) -> int:
    """Of the whole tensor."""
    return math.prod(weights.shape)


def floats(weights: Weights, start: int = 0, stop: int | None = None) -> Floats:
    """A part (by default all) as flat float32."""
    part = weights.read(start, n_elements(weights) if stop is None else stop)
    return to_f32(part, weights.dtype)


@dataclass(frozen=True)
class Generated:
    """Values that no file holds, such as rope factors."""

    values: Floats
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return self.values.shape

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        return self.values.reshape(-1)[start:stop]


@dataclass(frozen=True)
class Reshaped:
    """The same numbers in another shape."""

    source: Weights
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if math.prod(self.shape) != n_elements(self.source):
            raise contradiction(self.source, f"cannot be {list(self.shape)}")

    @property
    def dtype(self) -> str:
        """Of the source."""
        return self.source.dtype

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        return self.source.read(start, stop)


@dataclass(frozen=True)
class Sliced:
    """Rows `first` to `last` of the first dimension: one part of a fused tensor, or a table without its tail."""

    source: Weights
    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= self.source.shape[0]:
            raise contradiction(self.source, f"has no rows {self.first} to {self.last}")

    @property
    def dtype(self) -> str:
        """Of the source."""
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Fewer rows."""
        return (self.last - self.first, *self.source.shape[1:])

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        offset = self.first * math.prod(self.source.shape[1:])
        return self.source.read(offset + start, offset + stop)


@dataclass(frozen=True)
class Stacked:
    """Tensors of one shape and type on top of each other, in a new first dimension: the experts of a layer."""

    sources: Sequence[Weights]

    def __post_init__(self) -> None:
        _check_alike([(s, s.dtype, s.shape) for s in self.sources])

    @property
    def dtype(self) -> str:
        """Of all sources."""
        return self.sources[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """One dimension more."""
        return (len(self.sources), *self.sources[0].shape)

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        return _joined([n_elements(s) for s in self.sources], self.sources, start, stop)


@dataclass(frozen=True)
class Concatenated:
    """Tensors of one type one after the other in the first dimension."""

    sources: Sequence[Weights]

    def __post_init__(self) -> None:
        _check_alike([(s, s.dtype, s.shape[1:]) for s in self.sources])

    @property
    def dtype(self) -> str:
        """Of all sources."""
        return self.sources[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """More rows."""
        return (sum(s.shape[0] for s in self.sources), *self.sources[0].shape[1:])

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        return _joined([n_elements(s) for s in self.sources], self.sources, start, stop)


def contradiction(weights: Weights, what: str) -> ConvertError:
    """The error for a tensor whose shape does not allow what config.json makes of it."""
    return ConvertError(
        f"{described(weights, 'a tensor')} has shape {list(weights.shape)} and {what}",
        hint="config.json and weights belong to different versions of the model",
    )


def _check_alike(sources: Sequence[tuple[Weights, str, tuple[int, ...]]]) -> None:
    for weights, *kind in sources[1:]:
        if kind != list(sources[0][1:]):
            raise contradiction(weights, f"type {weights.dtype}, unlike {described(sources[0][0], 'the first')}")


def _joined(sizes: Sequence[int], sources: Sequence[Weights], start: int, stop: int) -> Array:
    parts, at = [], 0
    for size, source in zip(sizes, sources, strict=True):
        first, last = max(start - at, 0), min(stop - at, size)
        if first < last:
            parts.append(source.read(first, last))
        at += size
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class Permuted:
    """Rotary pairs of q and k: Hugging Face keeps them as two halves of a head, llama.cpp's `llama` side by side.

    `source` has `head_dim` rows for each head (weights or biases).
    """

    source: Weights
    head_dim: int

    @property
    def dtype(self) -> str:
        """Of the source."""
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the source."""
        return self.source.shape

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`; reads whole heads."""
        columns = math.prod(self.shape[1:])
        head = self.head_dim * columns
        first, last = start // head * head, -(-stop // head) * head
        part = self.source.read(first, last).reshape(-1, columns)
        return interleave(part, self.head_dim).reshape(-1)[start - first : stop - first]


def interleave(part: Array, head_dim: int) -> Array:
    """Rows 0, 1, ... of each head become 0, d/2, 1, d/2 + 1, ..."""
    heads = part.reshape(-1, 2, head_dim // 2, *part.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(part.shape)


@dataclass(frozen=True)
class Transposed:
    """Rows and columns exchanged (Conv1D of GPT-2). Columns are gathered, so each part reads the whole source."""

    source: Weights
    gathered: ClassVar[bool] = True

    @property
    def dtype(self) -> str:
        """Of the source."""
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The other way round."""
        return self.source.shape[::-1]

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        rows, columns = self.source.shape
        first, last = start // rows, -(-stop // rows)
        whole = self.source.read(0, rows * columns).reshape(rows, columns)
        part = np.ascontiguousarray(whole[:, first:last].T).reshape(-1)
        return part[start - first * rows : stop - first * rows]


@dataclass(frozen=True)
class Computed:
    """Each number by itself made another one, in float32: norms plus one, scaled rows.

    `function` takes and returns a flat float32 array and the place of its first element.
    """

    source: Weights
    function: Callable[[Floats, int], Floats]
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the source."""
        return self.source.shape

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        return self.function(floats(self.source, start, stop), start)


def shifted(source: Weights, by: float) -> Computed:
    """Each number plus `by`."""
    return Computed(source, lambda part, _: part + np.float32(by))


def scaled(source: Weights, by: float) -> Computed:
    """Each number times `by`."""
    return Computed(source, lambda part, _: part * np.float32(by))
