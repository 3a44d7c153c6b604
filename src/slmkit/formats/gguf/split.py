"""The names and numbers of a split GGUF, as llama.cpp's tools have them.

`SPLIT_PATH_FORMAT` of src/llama-model-loader.cpp and tools/gguf-split/gguf-split.cpp at llama.cpp 0c1e57098,
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/gguf-split/gguf-split.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slmkit.formats.gguf.types import ValueType
from slmkit.formats.gguf.writer import Value

NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
KEYS = (NUMBER, TENSORS, COUNT)
"""In the order in which llama-gguf-split writes them."""
MOST_SHARDS = 65_535
"""What `split.count` can hold."""


def shard_paths(prefix: Path, count: int) -> list[Path]:
    """`PREFIX-00001-of-00003.gguf` and so on."""
    return [prefix.with_name(f"{prefix.name}-{no:05d}-of-{count:05d}.gguf") for no in range(1, count + 1)]


def numbers(no: int, count: int, n_tensors: int) -> dict[str, Value]:
    """The keys of shard `no`, counted from 0; `n_tensors` is that of all shards."""
    return {
        NUMBER: Value(ValueType.UINT16, no),
        TENSORS: Value(ValueType.INT32, n_tensors),
        COUNT: Value(ValueType.UINT16, count),
    }


def starts(sizes: Sequence[int], *, max_bytes: int | None = None, max_tensors: int | None = None) -> list[int]:
    """The first tensor of each shard.

    Tensors stay in order. A shard is full when the next one would be one too many, or would make it larger than the
    limit; one tensor always fits.
    """
    first, filled = [0], 0
    for i, size_bytes in enumerate(sizes):
        too_large = max_bytes is not None and filled and filled + size_bytes > max_bytes
        if i > first[-1] and (too_large or i - first[-1] == max_tensors):
            first.append(i)
            filled = 0
        filled += size_bytes
    return first
