"""What two GGUFs have in common, and what not."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

_LAYER = re.compile(r"\bblk\.\d+\.")


def relative(error_squares: float | None, squares: float | None) -> float | None:
    """||a - b|| / ||a|| of two sums of squares; `None` when one is unknown or no number, or only a is all zeros."""
    if error_squares == 0:
        return 0.0
    if error_squares is None or squares is None:
        return None
    value = math.sqrt(error_squares / squares) if squares else math.inf
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Side:
    """A tensor in one of the two files; `shape` is in ggml order."""

    type: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class TensorDiff:
    """A tensor of A, of B, or of both.

    `squares` is the sum of all squared weights of A, `error_squares` that of all differences; `None` where they cannot
    be computed, and `note` says why. `is_same` is of type, shape and bytes.
    """

    name: str
    a: Side | None
    b: Side | None
    is_same: bool = False
    squares: float | None = None
    error_squares: float | None = None
    note: str = ""

    @property
    def kind(self) -> str:
        """The tensor's class: `blk.3.attn_q.weight` is an `attn_q`."""
        return _LAYER.sub("", self.name).removesuffix(".weight")

    @property
    def error(self) -> float | None:
        """Relative RMS error of B: ||a - b|| / ||a||."""
        return relative(self.error_squares, self.squares)


@dataclass(frozen=True)
class KindDiff:
    """All tensors of a class together."""

    kind: str
    tensors: tuple[TensorDiff, ...]

    @property
    def n_same(self) -> int:
        """Tensors without any difference."""
        return sum(tensor.is_same for tensor in self.tensors)

    @property
    def error(self) -> float | None:
        """Of all their weights as one vector; of those whose error is known."""
        known = [
            (t.error_squares, t.squares) for t in self.tensors if t.error_squares is not None and t.squares is not None
        ]
        return relative(sum(e for e, _ in known), sum(s for _, s in known)) if known else None

    @property
    def worst(self) -> TensorDiff | None:
        """The tensor with the largest error."""
        return max((t for t in self.tensors if t.error is not None), key=lambda t: t.error or 0, default=None)

    def types(self, of: str) -> tuple[str, ...]:
        """The types that its tensors have in `a` or `b`."""
        sides: Iterable[Side | None] = (getattr(tensor, of) for tensor in self.tensors)
        return tuple(sorted({side.type for side in sides if side}))

    def size_bytes(self, of: str) -> int:
        """Of its tensors in `a` or `b`."""
        sides: Iterable[Side | None] = (getattr(tensor, of) for tensor in self.tensors)
        return sum(side.size_bytes for side in sides if side)


@dataclass(frozen=True)
class ValueDiff:
    """A metadata key whose value is another one, or stands in one file only (`None` for the other).

    Long arrays are a summary, and `first` has their first different items: index, A's and B's.
    """

    key: str
    a: Any
    b: Any
    first: tuple[tuple[int, Any, Any], ...] = ()


@dataclass(frozen=True)
class FileSide:
    """One of the two files, with all its shards. `vocabulary` is the number of its tokens."""

    path: str
    architecture: str
    size_bytes: int
    n_params: int
    bpw: float | None
    vocabulary: int | None
    has_template: bool


@dataclass(frozen=True)
class Diff:
    """Everything: of A and B, their tensors in A's order, then those only in B.

    `template` has the lines of a unified diff of the chat templates, each under its key.
    """

    a: FileSide
    b: FileSide
    tensors: tuple[TensorDiff, ...]
    metadata: tuple[ValueDiff, ...]
    tokenizer: tuple[ValueDiff, ...]
    template: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """No difference at all, how they are cut into files aside."""
        return not (self.metadata or self.tokenizer or self.template) and all(t.is_same for t in self.tensors)

    @cached_property
    def kinds(self) -> tuple[KindDiff, ...]:
        """Tensors by class, the largest error first; then those of unknown error."""
        ordered = sorted(self.tensors, key=lambda tensor: tensor.kind)
        kinds = [KindDiff(kind, tuple(group)) for kind, group in groupby(ordered, key=lambda tensor: tensor.kind)]
        return tuple(sorted(kinds, key=lambda kind: (kind.error is not None, -(kind.error or 0), kind.kind)))

    @property
    def error(self) -> float | None:
        """Of all weights that both have."""
        return KindDiff("", self.tensors).error

    def only(self, of: str) -> Sequence[str]:
        """Names of the tensors that only `a` or `b` has."""
        other = "b" if of == "a" else "a"
        return [tensor.name for tensor in self.tensors if getattr(tensor, other) is None]
