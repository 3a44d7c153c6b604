"""`split`: one GGUF becomes several, laid out as by llama-gguf-split.

The first has all metadata, every one its number, their count and the number of all tensors; tensors stay in order, and
what a tensor takes with its padding counts against the limit
(https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/gguf-split/gguf-split.cpp). `general.alignment` other than
32 stands in every shard, and the version of the source is kept, so that merging gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from slmkit.core.artifact import File
from slmkit.core.progress import SILENT, Progress
from slmkit.errors import CannotWriteError, UsageError
from slmkit.formats.gguf.header import DEFAULT_ALIGNMENT, SHARD
from slmkit.formats.gguf.model import GgufModel, StoredTensor, copy, open_model
from slmkit.formats.gguf.split import MOST_SHARDS, numbers, shard_paths, starts
from slmkit.formats.gguf.writer import Encoded, encode_header, file_size
from slmkit.registry import atomic

_ALIGNMENT = "general.alignment"


@dataclass(frozen=True)
class SplitReport:
    """What was written. `changes` says why merging the shards gives the same tensors, but not the same bytes; it is
    empty when it does.
    """

    folder: Path
    files: tuple[File, ...]
    n_tensors: int
    changes: tuple[str, ...]

    @property
    def first(self) -> Path:
        """What programs are given to load."""
        return self.folder / self.files[0].name

    @property
    def size_bytes(self) -> int:
        """Of all shards."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class _Part:
    path: Path
    metadata: Mapping[str, Encoded]
    tensors: tuple[StoredTensor, ...]


def split(
    source: Path,
    prefix: Path,
    *,
    max_bytes: int | None = None,
    max_tensors: int | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> SplitReport:
    """Write `PREFIX-00001-of-00003.gguf` and so on, all or none; a source in shards is divided anew.

    Of `max_bytes` (weights in one shard) and `max_tensors` one is given. Raises `UsageError` when it all fits into one
    shard or needs more than can be numbered, `CannotWriteError` when a file is there already and not `force`,
    `GgufError`, `DiskFullError`.
    """
    if (max_bytes is None) == (max_tensors is None):
        raise UsageError("a split has one limit", hint="`--max-size 2G` or `--max-tensors 128`, not both")
    model = open_model(source)
    parts = _parts(model, prefix.absolute(), max_bytes, max_tensors)
    there = [part.path for part in parts if part.path.exists()]
    if there and not force:
        raise CannotWriteError(f"{there[0]} is there already", hint="another prefix, or `--force` to replace it")
    size_bytes = [file_size(p.metadata, [t.entry for t in p.tensors], model.layout) for p in parts]
    atomic.clear_left(parts[0].path.parent)
    atomic.require_space(parts[0].path, sum(size_bytes))
    changes = _changes(model)
    with atomic.staged(parts[0].path) as folder, progress.task("split", model.tensor_bytes, "bytes") as task:
        files = []
        for part in parts:
            done = copy(folder / part.path.name, part.metadata, part.tensors, model.layout, task.advance)
            files.append(File(part.path.name, done.size_bytes, done.sha256))
    return SplitReport(parts[0].path.parent, tuple(files), len(model.tensors), changes)


def _parts(model: GgufModel, prefix: Path, max_bytes: int | None, max_tensors: int | None) -> list[_Part]:
    if not prefix.name or SHARD.fullmatch(f"{prefix.name}.gguf") or prefix.suffix.lower() == ".gguf":
        raise UsageError(
            f"{prefix.name or prefix} is no beginning of a file name", hint="such as `./model`, without `.gguf`"
        )
    n_tensors = len(model.tensors)
    sizes = [model.layout.padded(tensor.info.size_bytes) for tensor in model.tensors]
    first = starts(sizes, max_bytes=max_bytes, max_tensors=max_tensors)
    if len(first) == 1:
        raise UsageError(
            f"{model.path.name} fits into one shard: there is nothing to split", hint="give a smaller limit"
        )
    if len(first) > MOST_SHARDS:
        raise UsageError(f"{len(first):,} shards are more than {MOST_SHARDS:,}", hint="give a larger limit")
    metadata = model.copied_metadata()
    every = {_ALIGNMENT: metadata[_ALIGNMENT]} if model.first.alignment != DEFAULT_ALIGNMENT else {}
    ends = pairwise([*first, n_tensors])
    return [
        _Part(path, {**(every if i else metadata), **numbers(i, len(first), n_tensors)}, model.tensors[start:stop])
        for i, (path, (start, stop)) in enumerate(zip(shard_paths(prefix, len(first)), ends, strict=True))
    ]


def _changes(model: GgufModel) -> tuple[str, ...]:
    """What a split file does not keep of a source that nobody would write like that today."""
    if len(model.headers) > 1:
        return ()  # it is merged for the first time
    header, layout = model.first, model.layout
    metadata, entries = model.copied_metadata(), [tensor.entry for tensor in model.tensors]
    if len(metadata) < len(header.metadata):
        return ("it has `split` keys of an earlier merge",)
    head = encode_header(metadata, entries, layout)
    with header.path.open("rb") as file:
        if file.read(len(head)) != head:
            return ("its header has gaps, padding that is not zero, or tensors in another order than their data",)
        at = len(head)
        for entry in entries:
            at += entry.size_bytes
            file.seek(at)
            padding = layout.padding(at)
            if file.read(len(padding)) != padding:
                return ("its tensors are not all padded with zeros",)
            at += len(padding)
        return ("it has more bytes after its last tensor",) if file.read(1) else ()
