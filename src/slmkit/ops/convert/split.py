"""Which tensors go into which file when the GGUF is to be split.

As gguf-py's writer does it (`add_tensor_info` and `add_shard_kv_data` of
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/gguf-py/gguf/gguf_writer.py): tensors stay in order, a shard is
full when the next one would make it larger than the limit (padding not counted, one tensor always fits), the first has
all metadata, and every one ends its metadata with its number, the number of shards and that of all tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slmkit.formats.gguf.types import ValueType
from slmkit.formats.gguf.writer import Entry, Value, file_size


@dataclass(frozen=True)
class Part:
    """One file: all tensors from `first` on that `entries` describes."""

    path: Path
    metadata: Mapping[str, Value]
    entries: Sequence[Entry]
    first: int

    @property
    def size_bytes(self) -> int:
        """Of the whole file, exactly."""
        return file_size(self.metadata, self.entries)


def parts(
    target: Path, metadata: Mapping[str, Value], entries: Sequence[Entry], max_bytes: int | None = None
) -> list[Part]:
    """The files to write: `target` itself, or `NAME-00001-of-00003.gguf` and so on beside it."""
    starts = _starts(entries, max_bytes)
    n = len(starts)
    if n == 1:
        return [Part(target, metadata, entries, 0)]
    out = []
    for i, (first, last) in enumerate(zip(starts, [*starts[1:], len(entries)], strict=True)):
        numbers = {
            "split.no": Value(ValueType.UINT16, i),
            "split.count": Value(ValueType.UINT16, n),
            "split.tensors.count": Value(ValueType.INT32, len(entries)),
        }
        path = target.with_name(f"{target.stem}-{i + 1:05d}-of-{n:05d}.gguf")
        out.append(Part(path, {**metadata, **numbers} if i == 0 else numbers, entries[first:last], first))
    return out


def _starts(entries: Sequence[Entry], max_bytes: int | None) -> list[int]:
    """The first tensor of each shard."""
    starts, filled = [0], 0
    for i, entry in enumerate(entries):
        if max_bytes is not None and filled and filled + entry.size_bytes > max_bytes:
            starts.append(i)
            filled = 0
        filled += entry.size_bytes
    return starts
