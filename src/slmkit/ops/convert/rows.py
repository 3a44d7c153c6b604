"""Tensors as streams of rows: where the converter gets its data from, without holding any of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Rows(Protocol):
    """A tensor. `shape` is in numpy order; `dtype` is a safetensors dtype; BF16 data comes as its bits in uint16.

    `formats.safetensors.Tensor` is one. An architecture composes others out of it: permuted, generated, later fused
    and split ones.
    """

    @property
    def dtype(self) -> str:
        """A key of `formats.safetensors.DTYPES`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """In numpy order."""

    def chunks(self, rows: int) -> Iterator[Array]:
        """The data in order, about `rows` of the first dimension at a time."""


@dataclass(frozen=True)
class Generated:
    """Values that no file holds, such as rope factors."""

    values: npt.NDArray[np.float32]
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return self.values.shape

    def chunks(self, rows: int) -> Iterator[Array]:
        """All at once: generated tensors are small."""
        yield self.values


@dataclass(frozen=True)
class Permuted:
    """Rotary pairs of q and k: Hugging Face keeps them as two halves of a head, llama.cpp side by side.

    `source` has `head_dim` rows for each head (weights or biases).
    """

    source: Rows
    head_dim: int

    @property
    def dtype(self) -> str:
        """Of the source."""
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the source."""
        return self.source.shape

    def chunks(self, rows: int) -> Iterator[Array]:
        """Whole heads at a time."""
        for part in self.source.chunks(max(1, rows // self.head_dim) * self.head_dim):
            yield interleave(part, self.head_dim)


def interleave(part: Array, head_dim: int) -> Array:
    """Rows 0, 1, ... of each head become 0, d/2, 1, d/2 + 1, ..."""
    heads = part.reshape(-1, 2, head_dim // 2, *part.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(part.shape)
