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

from slmkit.core.progress import SILENT, Progress, Task
from slmkit.core.units import size
from slmkit.errors import ConvertError, DiskFullError, is_disk_full
from slmkit.formats.gguf.writer import Entry, Written, write_gguf
from slmkit.ops.convert.plan import Plan, make_plan
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
    size_bytes: int
    sha256: str
    name: str
    facts: Mapping[str, Any]


def convert(
    checkpoint: Path,
    target: Path,
    *,
    outtype: str = "auto",
    name: str | None = None,
    model_id: str | None = None,
    pre: str | None = None,
    progress: Progress = SILENT,
) -> ConvertReport:
    """Convert the checkpoint folder to one GGUF file, written exactly to `target`.

    `outtype` is one of `ConvertType`; see `resolve_type` for `auto`. `model_id` (`org/name`) is used where
    llama.cpp's converter uses the folder's name; `name` overrides `general.name`; `pre` is llama.cpp's name for the way
    the tokenizer splits text, when it is not to be recognized. When it fails, nothing is left at `target`; the caller
    gives a temporary name and renames.

    Raises `ConvertError` and its kin, `SafetensorsError`, `TokenizerError`, `DiskFullError`.
    """
    plan = make_plan(checkpoint, outtype=outtype, name=name, model_id=model_id, pre=pre, progress=progress)
    for remark in plan.remarks:
        progress.warn(remark)
    entries = plan.entries()
    written = _write(target, plan, entries, progress)
    counts = Counter(entry.type.name for entry in entries)
    return ConvertReport(
        architecture=plan.architecture.name,
        outtype=plan.outtype,
        n_params=plan.n_params,
        n_tensors=len(entries),
        type_counts=dict(counts.most_common()),
        size_bytes=written.size_bytes,
        sha256=written.sha256,
        name=str(plan.metadata["general.name"].value),
        facts=_facts(plan, entries),
    )


def _facts(plan: Plan, entries: Sequence[Entry]) -> dict[str, Any]:
    architecture = str(plan.metadata["general.architecture"].value)
    context = plan.metadata.get(f"{architecture}.context_length")
    tensors = ((entry.type, math.prod(entry.shape)) for entry in entries)
    return facts(architecture, context.value if context else None, tensors)


def _write(target: Path, plan: Plan, entries: Sequence[Entry], progress: Progress) -> Written:
    size_bytes = plan.size_bytes()
    free = shutil.disk_usage(target.parent).free
    if free < size_bytes:
        raise DiskFullError(
            f"the GGUF needs {size(size_bytes)}, {target.parent} has {size(free)} free",
            hint="free some space, or remove models you don't need",
        )
    try:
        with (
            progress.task("convert", size_bytes, "bytes") as task,
            closing(encoded(entries, [t.weights for t in plan.tensors])) as chunks,
        ):
            return write_gguf(target, plan.metadata, entries, _counted(chunks, task))
    except OSError as error:
        target.unlink(missing_ok=True)
        if is_disk_full(error):
            raise DiskFullError(f"no space left on the disk of {target.parent}", hint="free some space") from error
        raise ConvertError(f"cannot write {target}: {error.strerror}") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _counted(chunks: Iterable[memoryview], task: Task) -> Iterator[memoryview]:
    for chunk in chunks:
        yield chunk
        task.advance(chunk.nbytes)
