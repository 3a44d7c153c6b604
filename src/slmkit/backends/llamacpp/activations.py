"""What goes into each weight matrix while the engine computes. Imported in child processes only.

As llama-imatrix does (collect_imatrix of
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/imatrix/imatrix.cpp): for each matrix of a layer the squares
of what it is multiplied with are summed by column, for experts over the rows that came to each. Unlike there, the sums
of one chunk are added up by themselves before they are added to those of the chunks before, and nothing is computed
that comes after the last of these matrices: the output is the largest matrix of a small model.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from slmkit.backends.llamacpp.bindings import Floats, NativeError
from slmkit.backends.llamacpp.tensors import F32, Tensor, op_number
from slmkit.errors import ImatrixError
from slmkit.formats.imatrix import Counts, Importance, read

_FEWEST_ROWS = 16
"""llama-imatrix leaves multiplications with fewer rows out."""
_LOOK = "look."
"""Before the name of a matrix: as it was at the last look. Those of layers begin with `blk.`."""


class Collected:
    """Sums and counts by the matrix's name, in float32: what a file holds, so that a resumed run ends the same."""

    def __init__(self) -> None:
        self.sums: dict[str, Floats] = {}
        self.counts: dict[str, Counts] = {}
        self.n_chunks = 0

    def resume(self, path: Path, subject: str, n_chunks: int | None) -> tuple[list[float], dict[str, Importance]]:
        """Take over at most `n_chunks` that an earlier run saved about the same; returns what moved at its looks, and
        what it had seen at the last of them.
        """
        try:
            found = read(path)
        except ImatrixError:
            return [], {}
        if found.state.get("subject") != subject or found.n_chunks > (n_chunks or found.n_chunks):
            return [], {}
        look = {n.removeprefix(_LOOK): entry for n, entry in found.entries.items() if n.startswith(_LOOK)}
        sums = {name: entry for name, entry in found.entries.items() if not name.startswith(_LOOK)}
        self.sums = {name: entry.sums for name, entry in sums.items()}
        self.counts = {name: entry.counts for name, entry in sums.items()}
        self.n_chunks = found.n_chunks
        return list(found.state["moved"]), look

    def snapshot(self) -> dict[str, Importance]:
        """As it is now."""
        return {name: Importance(sums.copy(), self.counts[name].copy()) for name, sums in self.sums.items()}

    def with_look(self, look: Mapping[str, Importance]) -> dict[str, Importance]:
        """What is saved: as it is now, and as it was at the last look."""
        return self.snapshot() | {f"{_LOOK}{name}": entry for name, entry in look.items()}

    def add(self, name: str, sums: Floats, counts: Counts) -> None:
        """What one multiplication saw; raises `NativeError` for what is not finite."""
        if not np.isfinite(sums).all():
            raise NativeError(f"the activations that go into {name} are not finite (NaN or infinity)")
        if name in self.sums:
            self.sums[name] += sums
            self.counts[name] += counts
        else:
            self.sums[name], self.counts[name] = sums.astype(np.float32), counts


class Watch:
    """Looks at each matrix multiplication of a chunk. The order is the same in every chunk."""

    def __init__(self, collected: Collected) -> None:
        self._collected = collected
        self._dense, self._experts = op_number("MUL_MAT"), op_number("MUL_MAT_ID")
        self._seen = 0
        self._last: int | None = None  # how many there are in a chunk, known after the first
        self._input: tuple[int, Floats] | None = None  # q, k and v are multiplied with the same
        self._kept = _Kept()

    def __call__(self, address: int, before: bool) -> bool:
        """See `bindings.context`."""
        with self._kept:
            tensor = Tensor.at(address)
            return self._wants(tensor) if before else self._take(tensor)
        return False

    def end_chunk(self) -> None:
        """Raise what went wrong in it, and be ready for the next."""
        if self._kept.error:
            raise self._kept.error
        if not self._seen or self._seen != (self._last or self._seen):
            raise NativeError(f"the model has {self._seen} multiplications to look at, and had {self._last}")
        self._last, self._seen, self._input = self._seen, 0, None
        self._collected.n_chunks += 1

    def _wants(self, tensor: Tensor) -> bool:
        if tensor.op == self._experts:
            return True
        if tensor.op != self._dense:
            return False
        rows = Tensor.at(tensor.src[1])
        if rows.ne[1] < _FEWEST_ROWS or rows.type != F32:
            return False
        return _name(tensor).startswith("blk.")

    def _take(self, tensor: Tensor) -> bool:
        weights, rows = Tensor.at(tensor.src[0]), Tensor.at(tensor.src[1])
        if tensor.op == self._experts:
            sums, counts = _by_expert(rows.values(), Tensor.at(tensor.src[2]).values(), weights.ne[2])
        else:
            x = rows.values()
            n_matrices = weights.ne[2] * weights.ne[3]
            if self._input and self._input[0] == tensor.src[1] and n_matrices == 1:
                sums = self._input[1]
            else:
                sums = _by_matrix(x, weights.ne[2], weights.ne[3])
                self._input = (tensor.src[1], sums) if n_matrices == 1 else None
            counts = np.array([x[..., 0].size // n_matrices], np.int64)
        self._collected.add(_name(tensor), sums, counts)
        self._seen += 1
        return self._seen != self._last


class _Kept:
    """An exception cannot pass through C: it is kept until the engine has come back."""

    error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        self.error = self.error or error
        return True


def _name(tensor: Tensor) -> str:
    """Of its weights; between # where a GPU has a copy (`CUDA0#blk.0.attn_k.weight#0`)."""
    name: str = Tensor.at(tensor.src[0]).name.decode()
    return name.split("#")[1] if "#" in name else name


def _by_matrix(x: Floats, n2: int, n3: int) -> Floats:
    """Sums of squares by column, (1, n2 * n3 * n_columns): `x` is (n3 * a, n2 * b, n_rows, n_columns)."""
    sums = np.zeros((n3, n2, x.shape[-1]), np.float32)
    for i, j in itertools.product(range(x.shape[0]), range(x.shape[1])):
        sums[i % n3, j % n2] += np.einsum("rc,rc->c", x[i, j], x[i, j])
    return sums.reshape(1, -1)


def _by_expert(x: Floats, ids: NDArray[np.int32], n_experts: int) -> tuple[Floats, Counts]:
    """Sums of squares (n_experts, n_columns) and how many rows came to each expert.

    `x` is (1, n_tokens, 1 or n_used, n_columns), `ids` (1, 1, n_tokens, n_used): a token's row may be one for all.
    """
    chosen = ids[0, 0]
    sums = np.zeros((n_experts, x.shape[-1]), np.float32)
    for expert in np.unique(chosen):
        token, use = np.nonzero(chosen == expert)
        rows = x[0, token, use % x.shape[2]]
        sums[expert] = np.einsum("rc,rc->c", rows, rows)
    return sums, np.bincount(chosen.ravel(), minlength=n_experts).astype(np.int64)
