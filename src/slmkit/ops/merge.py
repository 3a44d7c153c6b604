"""`merge`: the shards of a GGUF become one file; what `split` has taken apart comes back byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slmkit.core.artifact import File
from slmkit.core.progress import SILENT, Progress
from slmkit.errors import CannotWriteError, UsageError
from slmkit.formats.gguf.header import SHARD
from slmkit.formats.gguf.model import copy, open_model
from slmkit.formats.gguf.writer import file_size
from slmkit.registry import atomic


@dataclass(frozen=True)
class MergeReport:
    """What was written."""

    path: Path
    file: File
    n_shards: int
    n_tensors: int


def merge(shard: Path, target: Path, *, force: bool = False, progress: Progress = SILENT) -> MergeReport:
    """Write the model that `shard` is a part of to `target`, which appears when it is complete.

    The three `split` keys go, all else of the metadata is copied as it stands. Raises `UsageError` for a file that is
    whole already and for a target with a shard's name, `CannotWriteError` when it is there already and not `force`,
    `GgufError` for shards that are missing, damaged or of several models, `DiskFullError`.
    """
    model = open_model(shard)
    target = target.absolute()
    if len(model.headers) == 1:
        raise UsageError(f"{shard} is one file already: there is nothing to merge", hint="give a shard of a split GGUF")
    if SHARD.fullmatch(target.name) or target.suffix.lower() != ".gguf":
        raise UsageError(f"{target.name} is no name for a whole GGUF", hint="such as `model.gguf`")
    if target.exists() and not force:
        raise CannotWriteError(f"{target} is there already", hint="another name, or `--force` to replace it")
    metadata = model.copied_metadata()
    atomic.clear_left(target.parent)
    atomic.require_space(target, file_size(metadata, [tensor.entry for tensor in model.tensors], model.layout))
    with atomic.partial(target) as temporary, progress.task("merge", model.tensor_bytes, "bytes") as task:
        done = copy(temporary, metadata, model.tensors, model.layout, task.advance)
    return MergeReport(target, File(target.name, done.size_bytes, done.sha256), len(model.headers), len(model.tensors))
