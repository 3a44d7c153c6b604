"""Weights of two GGUFs: type, shape, size and the relative RMS error of each tensor.

They are turned into float32 by the gguf package (90 to 700 million weights a second and core, by type), a slab of
either file at a time, in several threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from slmkit.core.diff import Side, TensorDiff
from slmkit.core.progress import Progress, Task
from slmkit.formats.gguf.floats import Floats, floats, is_readable
from slmkit.formats.gguf.model import GgufModel, StoredTensor

SLAB_BLOCKS = 512
"""Blocks of 256 weights, the largest there are, in a slab: 512 KiB as float32."""
MAX_THREADS = 4


def compare_weights(a: GgufModel, b: GgufModel, progress: Progress) -> tuple[TensorDiff, ...]:
    """Tensors of A in its order, then those that only B has."""
    in_a, in_b = ({tensor.name: tensor for tensor in model.tensors} for model in (a, b))
    names = list({**in_a, **in_b})
    n_params = sum(in_a[name].info.n_elements for name in names if name in in_a and name in in_b)
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    with progress.task("compare", n_params, "steps") as task:
        pool = ThreadPoolExecutor(threads, thread_name_prefix="compare")
        try:
            done = pool.map(lambda name: _compare(name, in_a.get(name), in_b.get(name)), names)
            return tuple(_counted(done, in_a, task))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _counted(done: Iterator[TensorDiff], in_a: dict[str, StoredTensor], task: Task) -> Iterator[TensorDiff]:
    for found in done:
        if found.a and found.b:
            task.advance(in_a[found.name].info.n_elements)
        yield found


def _compare(name: str, a: StoredTensor | None, b: StoredTensor | None) -> TensorDiff:
    if a is None or b is None:
        return TensorDiff(name, _side(a), _side(b))
    sides = _side(a), _side(b)
    if a.info.shape != b.info.shape:
        return TensorDiff(name, *sides, note="other shape")
    if a.info.type == b.info.type and all(x == y for x, y in zip(a.pieces(), b.pieces(), strict=True)):
        squares = sum(_square(x) for x in _slabs(a)) if is_readable(a.info.type) else None
        return TensorDiff(name, *sides, is_same=True, squares=squares, error_squares=0.0)
    unknown = [t.info.type.name for t in (a, b) if not is_readable(t.info.type)]
    if unknown:
        return TensorDiff(name, *sides, note=f"{unknown[0]} cannot be read as numbers here")
    squares = error_squares = 0.0
    for x, y in zip(_slabs(a), _slabs(b), strict=True):
        squares += _square(x)
        error_squares += _square(x - y)
    finite = np.isfinite(squares) and np.isfinite(error_squares)
    note = "" if finite else "weights that are no numbers"
    if finite and error_squares and not squares:
        note = "only zeros in A"
    return TensorDiff(name, *sides, squares=squares, error_squares=error_squares, note=note)


def _square(values: Floats) -> float:
    """The sum of all squares, of a slab: good for 5 digits. Not `dot`, which starts threads of its own."""
    return float(np.einsum("i,i->", values, values))


def _slabs(tensor: StoredTensor) -> Iterator[Floats]:
    """All weights; slabs begin at the same weight whatever the type."""
    kind = tensor.info.type
    for data in tensor.pieces(SLAB_BLOCKS * 256 // kind.block * kind.block_bytes):
        yield floats(data, kind)


def _side(tensor: StoredTensor | None) -> Side | None:
    return Side(tensor.info.type.name, tensor.info.shape, tensor.info.size_bytes) if tensor else None
