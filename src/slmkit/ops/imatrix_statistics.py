"""What an importance matrix says about each weight matrix: the columns of `llama-imatrix --show-statistics`.

Formulas: compute_statistics and compute_cossim of
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/imatrix/imatrix.cpp, here in float64.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slmkit.core.imatrix import TensorStatistics
from slmkit.formats.imatrix import Imatrix, Importance, read

_INACTIVE = 1e-5
_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class ImatrixStatistics:
    """What is in an importance matrix. `text` and `n_chunks` say what it was collected on, `source` is the GGUF that it
    was collected with; each is `None` where nobody knows.
    """

    path: Path
    text: str | None
    n_chunks: int | None
    source: str | None
    tensors: tuple[TensorStatistics, ...]


def read_statistics(path: Path, source: str | None = None) -> ImatrixStatistics:
    """Of a file; raises `ImatrixError`."""
    found = read(path)
    text = ", ".join(found.datasets) or None
    return ImatrixStatistics(path, text, found.n_chunks or None, source, tuple(statistics(found)))


def statistics(imatrix: Imatrix) -> list[TensorStatistics]:
    """For each entry that has data, sorted by the tensor's name and then the total, the largest first."""
    rows = [_of(name, entry, imatrix.entries) for name, entry in imatrix.entries.items() if entry.counts.any()]
    return sorted(rows, key=lambda row: (row.tensor, -row.total))


def _of(name: str, entry: Importance, every: Mapping[str, Importance]) -> TensorStatistics:
    values = (entry.sums / np.maximum(entry.counts, 1)[:, None])[entry.counts > 0].ravel().astype(np.float64)
    total, mean, deviation = values.sum(), values.mean(), values.std()
    shares = values[values > 0] / total
    entropy = -(shares * np.log2(shares)).sum()
    block = _BLOCK.search(name)
    parts = name.split(".")
    return TensorStatistics(
        name=name,
        layer=int(block[1]) if block else None,
        tensor=parts[parts.index("weight") - 1] if "weight" in parts[1:] else name,
        total=float(total),
        minimum=float(values.min()),
        maximum=float(values.max()),
        mean=float(mean),
        deviation=float(deviation),
        active=float((values > _INACTIVE).mean()),
        n_columns=len(values),
        entropy=float(entropy),
        entropy_share=float(entropy / np.log2(len(values))) if len(values) > 1 else 0.0,
        z_share=float((values > mean + deviation).mean()) if deviation > 0 else 0.0,
        cosine=_cosine(name, entry, every),
    )


def _cosine(name: str, entry: Importance, every: Mapping[str, Importance]) -> float | None:
    block = _BLOCK.search(name)
    before = every.get(f"{name[: block.start(1)]}{int(block[1]) - 1}{name[block.end(1) :]}") if block else None
    if before is None or before.sums.size != entry.sums.size:
        return None
    a, b = _flat(entry), _flat(before)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths > 0 else None


def _flat(entry: Importance) -> NDArray[np.float64]:
    return entry.sums.ravel().astype(np.float64)
