"""Which tensors go into which file when the GGUF is to be split.

As gguf-py's writer does it (`add_tensor_info` and `add_shard_kv_data` of
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/gguf-py/gguf/gguf_writer.py): padding does not count against the
limit, the first shard has all metadata, and every one ends its metadata with its number, the number of shards and that
of all tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slmkit.formats.gguf.split import COUNT, NUMBER, TENSORS, numbers, shard_paths, starts
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
    first = starts([entry.size_bytes for entry in entries], max_bytes=max_bytes)
    n = len(first)
    if n == 1:
        return [Part(target, metadata, entries, 0)]
    out = []
    for i, path in enumerate(shard_paths(target.with_name(target.stem), n)):
        values = numbers(i, n, len(entries))
        own = {key: values[key] for key in (NUMBER, COUNT, TENSORS)}  # the order of gguf-py
        start, stop = first[i], first[i + 1] if i + 1 < n else len(entries)
        out.append(Part(path, {**metadata, **own} if i == 0 else own, entries[start:stop], start))
    return out
