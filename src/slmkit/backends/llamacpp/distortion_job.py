"""The child's side of measuring what quantizing does to each tensor. Imported in child processes only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmkit.backends.llamacpp import bindings, kernels
from slmkit.backends.llamacpp.bindings import Floats, NativeError
from slmkit.backends.llamacpp.channel import Channel
from slmkit.formats import imatrix as imatrix_format
from slmkit.formats.gguf.types import GGML_TYPES, GgmlType

MOST_IMPORTANT = 4096
"""The largest column is some 300 times the median one, but 600,000 times in layer 11 of SmolLM2-135M: the massive
activation of the first token (Sun et al., https://arxiv.org/abs/2402.17762), in which all the others would drown.
"""


def distortion(
    channel: Channel,
    tensors: Sequence[Mapping[str, Any]],
    imatrix: str | None,
    n_sample: int,
    seed: int,
    n_threads: int,
) -> dict[str, Any]:
    """Quantize rows of each tensor to each of its `types` and read them back; one event `tensor` for each.

    A tensor has `name`, `path`, `offset` in bytes, `type` (F32, F16 or BF16), `shape` in ggml order and `types`,
    numbers of `enum ggml_type`. About `n_sample` of its weights are looked at: whole rows, drawn by `seed`. An error is
    the sum of importance * (x - quantized x)^2 as a share of that of importance * x^2; the importance of a column is
    the mean square of what it is multiplied with, as `imatrix` has it, else the same for all.
    """
    entries = imatrix_format.read(Path(imatrix)).entries if imatrix else {}
    with ThreadPoolExecutor(n_threads) as pool:
        for tensor in tensors:
            rows, matrices = _rows(tensor, n_sample, seed)
            entry = entries.get(tensor["name"])
            importance = None if entry is None else _importance(entry, tensor)
            measured = pool.map(partial(_error, rows, matrices, importance), tensor["types"])
            channel.send("tensor", name=tensor["name"], n_rows=len(rows), errors=list(measured))
    return {"build": bindings.build()}


def _importance(entry: imatrix_format.Importance, tensor: Mapping[str, Any]) -> Floats:
    """One row for each matrix of the tensor."""
    n_columns, _, *experts = tensor["shape"]
    means = np.ascontiguousarray(entry.means, np.float32)
    if means.shape != (math.prod(experts), n_columns):
        raise NativeError(f"the imatrix is of another model: {means.shape} for {tensor['name']}")
    return means


def _rows(tensor: Mapping[str, Any], n_sample: int, seed: int) -> tuple[Floats, NDArray[np.intp]]:
    """Some rows of a tensor in their order, and of each the number of its matrix (an expert's)."""
    n_columns, n_rows, *experts = map(int, tensor["shape"])
    n_all = n_rows * math.prod(experts)
    kept = max(1, min(n_all, n_sample // n_columns))
    picked = np.sort(np.random.default_rng(seed).choice(n_all, kept, replace=False))
    stored = np.dtype({"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[tensor["type"]])
    file = np.memmap(tensor["path"], stored, "r", tensor["offset"], (n_all, n_columns))
    rows = np.asarray(file[picked])
    if tensor["type"] == "BF16":
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(rows, np.float32), picked // n_rows


def _error(rows: Floats, matrices: NDArray[np.intp], importance: Floats | None, kind: int) -> float:
    lost = rows - _quantized(rows, matrices, importance, GGML_TYPES[kind])
    weights = np.float32(1) if importance is None else _capped(importance)[matrices]
    energy = float((weights * np.square(rows)).sum(dtype=np.float64))
    return float((weights * np.square(lost)).sum(dtype=np.float64)) / (energy or 1.0)  # of zeros nothing is lost


def _capped(importance: Floats) -> Floats:
    """No column counts for more than `MOST_IMPORTANT` median ones of its matrix."""
    seen = np.where(importance > 0, importance, np.nan)
    capped: Floats = np.fmin(importance, MOST_IMPORTANT * np.nanmedian(seen, axis=1, keepdims=True))
    return capped


def _quantized(rows: Floats, matrices: NDArray[np.intp], importance: Floats | None, kind: GgmlType) -> Floats:
    """The rows in the type `kind` and back."""
    n_columns = rows.shape[1]
    if n_columns % kind.block:
        raise NativeError(f"rows of {n_columns} do not divide into blocks of {kind.block}")
    blocks = np.empty((len(rows), kind.size_bytes(n_columns)), np.uint8)
    back = np.empty_like(rows)
    for matrix in np.unique(matrices):
        own = slice(*np.searchsorted(matrices, [matrix, matrix + 1]).tolist())
        kernels.quantize(rows[own], kind, None if importance is None else importance[matrix], blocks[own])
    kernels.dequantize(blocks, kind, back)
    return back
