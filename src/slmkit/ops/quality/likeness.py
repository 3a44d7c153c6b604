"""Whether a file has the weights of its base: some rows of each tensor, held against the base's.

A row of a quant is nearer to the same row of the base than to any other, in every type: even ternary ones keep most of
its direction. In a tensor whose rows or weights are out of order it is no nearer than others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slmkit.errors import GgufError
from slmkit.formats.gguf.floats import Floats, floats, is_readable
from slmkit.formats.gguf.model import GgufModel, StoredTensor, open_model

N_ROWS = 16
"""Of each tensor, spread over it: 0.3 s for SmolLM2-135M. By chance half of them are their own with p = 1e-6."""
LEAST_SHARE = 0.5
"""Of the rows that have to be nearest to their own."""
FLAT_ERROR = 0.05
"""The relative RMS error of a vector (norms, biases), which no type quantizes; BF16 alone costs 0.002. The norms of the
tiny models of the tests, within a tenth of 1, come to 0.14 when they are shuffled.
"""


def foreign_tensor(base: Path, path: Path) -> str | None:
    """Why a file cannot be a quant of `base`, by the first tensor that speaks against it; `None` where none does.

    Only tensors are compared that both have, in one shape. Layers of a file with another number of them are not:
    pruning gives them new numbers. A file that cannot be read is not judged here.
    """
    try:
        return next(_foreign(open_model(base), open_model(path)), None)
    except GgufError:
        return None


def _foreign(base: GgufModel, model: GgufModel) -> Iterator[str]:
    theirs = {tensor.name: tensor for tensor in base.tensors}
    is_pruned = _n_layers(base) != _n_layers(model)
    for tensor in model.tensors:
        other = theirs.get(tensor.name)
        if other is None or tensor.shape != other.shape or (is_pruned and tensor.name.startswith("blk.")):
            continue
        if is_readable(tensor.info.type) and is_readable(other.info.type) and (found := _unlike(tensor, other)):
            yield f"{tensor.name} is damaged, or another model's: {found}"


def _n_layers(model: GgufModel) -> object:
    return model.metadata.get(f"{model.architecture}.block_count")


def _unlike(tensor: StoredTensor, base: StoredTensor) -> str | None:
    mine, wanted = _rows(tensor), _rows(base)
    if len(wanted) == 1:
        error = _relative_error(mine, wanted)
        return None if error <= FLAT_ERROR else f"its relative error is {error:.2f}"
    told = np.square(wanted).sum(axis=1) > 0  # rows of zeros have no direction
    n_own, n_told = _n_own(mine[told], wanted[told]), int(told.sum())
    if n_own >= LEAST_SHARE * n_told:
        return None
    return f"of {n_told} rows that were looked at, {n_own} resemble the base's"


def _rows(tensor: StoredTensor) -> Floats:
    """`N_ROWS` of them at most, at the same places in every file."""
    kind, length = tensor.info.type, tensor.info.shape[0]
    n_rows = tensor.info.n_elements // length if length else 0
    row_bytes = kind.size_bytes(length)
    places = np.unique(np.linspace(0, n_rows - 1, min(n_rows, N_ROWS)).astype(int)) if n_rows else ()
    data = b"".join(tensor.read(int(place) * row_bytes, row_bytes) for place in places)
    return floats(data, kind).reshape(len(places), length)


def _n_own(mine: Floats, wanted: Floats) -> int:
    """How many rows are as near as any to the same one of the base, by the angle. What is no number is near to none."""
    with np.errstate(all="ignore"):
        near = _directions(mine) @ _directions(wanted).T
        return int((np.diagonal(near) >= near.max(axis=1, initial=-1.0) - 1e-5).sum())


def _directions(rows: Floats) -> Floats:
    found: Floats = rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return found


def _relative_error(mine: Floats, wanted: Floats) -> float:
    """Infinite where it is no number; nothing is said of a vector of zeros."""
    with np.errstate(all="ignore"):
        squares = float(np.square(wanted).sum())
        error = float(np.sqrt(np.square(mine - wanted).sum() / squares)) if squares else 0.0
    return error if np.isfinite(error) else float("inf")
