"""From a Hugging Face checkpoint to a GGUF file, one chunk of one tensor at a time."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit.core.artifact import File
from slmkit.core.progress import SILENT, Progress, Task
from slmkit.core.units import size
from slmkit.errors import ConvertError, DiskFullError, is_disk_full
from slmkit.formats.gguf.writer import Entry, write_gguf
from slmkit.ops.convert.finite import Watch
from slmkit.ops.convert.plan import Plan, make_plan
from slmkit.ops.convert.split import Part, parts
from slmkit.ops.convert.stream import encoded
from slmkit.ops.describe import facts


@dataclass(frozen=True)
class ConvertReport:
    """What was written.

    `type_counts` is the number of tensors of each ggml type, the most common first; `facts` is what `gguf_facts` would
    read off the file.
    """

    architecture: str
    outtype: str
    n_params: int
    n_tensors: int
    type_counts: Mapping[str, int]
    files: tuple[File, ...]
    name: str
    facts: Mapping[str, Any]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """Of the file, or of the first shard."""
        return self.files[0].sha256


def convert(
    checkpoint: Path,
    target: Path,
    *,
    outtype: str = "auto",
    name: str | None = None,
    model_id: str | None = None,
    commit: str | None = None,
    pre: str | None = None,
    split_max_bytes: int | None = None,
    progress: Progress = SILENT,
) -> ConvertReport:
    """Convert the checkpoint folder to one GGUF file, written exactly to `target`, or to shards beside it.

    `outtype` is one of `ConvertType`; see `resolve_type` for `auto`. `model_id` (`org/name`) is used where llama.cpp's
    converter uses the folder's name, `commit` says that it is of the Hub, and which; `name` overrides `general.name`;
    `pre` is llama.cpp's name for the way the tokenizer splits text, when it is not to be recognized. With more than
    `split_max_bytes` of weights the files are `<target's stem>-00001-of-00003.gguf` and so on. When it fails, none is
    left; the caller gives a temporary place and renames. Weights that are no numbers, or none any more in the type, are
    warned of.

    Raises `ConvertError` and its kin, `SafetensorsError`, `TokenizerError`, `DiskFullError`.
    """
    plan = make_plan(
        checkpoint, outtype=outtype, name=name, model_id=model_id, commit=commit, pre=pre, progress=progress
    )
    for remark in plan.remarks:
        progress.warn(remark)
    entries, watch = plan.entries(), Watch()
    written = _write(parts(target, plan.metadata, entries, split_max_bytes), plan, progress, watch)
    for warning in watch.warnings():
        progress.warn(warning)
    counts = Counter(entry.type.name for entry in entries)
    return ConvertReport(
        architecture=plan.architecture.name,
        outtype=plan.outtype,
        n_params=plan.n_params,
        n_tensors=len(entries),
        type_counts=dict(counts.most_common()),
        files=tuple(written),
        name=str(plan.metadata["general.name"].value),
        facts=_facts(plan, entries),
    )


def _facts(plan: Plan, entries: Sequence[Entry]) -> dict[str, Any]:
    architecture = str(plan.metadata["general.architecture"].value)
    context = plan.metadata.get(f"{architecture}.context_length")
    tensors = ((entry.type, math.prod(entry.shape)) for entry in entries)
    return facts(architecture, context.value if context else None, tensors)


def _write(files: Sequence[Part], plan: Plan, progress: Progress, watch: Watch) -> list[File]:
    folder = files[0].path.parent
    size_bytes = sum(part.size_bytes for part in files)
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise DiskFullError(
            f"the GGUF needs {size(size_bytes)}, {folder} has {size(free)} free",
            hint="free some space, or remove models you don't need",
        )
    try:
        with progress.task("convert", size_bytes, "bytes") as task:
            return [_written(part, plan, task, watch) for part in files]
    except OSError as error:
        _remove(files)
        if is_disk_full(error):
            raise DiskFullError(f"no space left on the disk of {folder}", hint="free some space") from error
        raise ConvertError(f"cannot write to {folder}: {error.strerror}") from error
    except BaseException:
        _remove(files)
        raise


def _written(part: Part, plan: Plan, task: Task, watch: Watch) -> File:
    sources = [tensor.weights for tensor in plan.tensors[part.first : part.first + len(part.entries)]]
    with closing(encoded(part.entries, sources, watch)) as chunks:
        done = write_gguf(part.path, part.metadata, part.entries, _counted(chunks, task))
    return File(part.path.name, done.size_bytes, done.sha256)


def _counted(chunks: Iterable[memoryview], task: Task) -> Iterator[memoryview]:
    for chunk in chunks:
        yield chunk
        task.advance(chunk.nbytes)


def _remove(files: Sequence[Part]) -> None:
    for part in files:
        part.path.unlink(missing_ok=True)
