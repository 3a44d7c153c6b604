"""From a Hugging Face checkpoint to a GGUF file, one chunk of one tensor at a time."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from slmkit.core.progress import SILENT, Progress
from slmkit.core.units import size
from slmkit.errors import ConvertError, DiskFullError, UnknownTypeError, is_disk_full
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, GgmlType
from slmkit.formats.gguf.writer import Entry, Value, Written, file_size, u32, write_gguf
from slmkit.formats.safetensors import INDEX_NAME, read_checkpoint
from slmkit.ops.convert.architecture import NamedRows, open_architecture
from slmkit.ops.convert.config import read_config
from slmkit.ops.convert.encode import FLOATS, encode
from slmkit.ops.convert.metadata import general_metadata
from slmkit.ops.convert.rows import Rows

ConvertType = Literal["auto", "f16", "bf16", "f32", "q8_0"]

FILE_TYPES: Mapping[str, int] = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
"""`general.file_type`, enum llama_ftype of llama.h."""

CHUNK_ELEMENTS = 4 << 20
"""Weights in memory at a time: 16 MiB as float32. A few such chunks are alive at once."""

QUANTIZATION_VERSION = 2
"""GGML_QNT_VERSION of ggml.h."""

T = TypeVar("T")


@dataclass(frozen=True)
class ConvertReport:
    """What was written. `type_counts` is the number of tensors of each ggml type, the most common first."""

    architecture: str
    outtype: str
    n_params: int
    n_tensors: int
    type_counts: Mapping[str, int]
    size_bytes: int
    sha256: str
    name: str


def convert(
    checkpoint: Path,
    target: Path,
    *,
    outtype: str = "auto",
    name: str | None = None,
    model_id: str | None = None,
    progress: Progress = SILENT,
) -> ConvertReport:
    """Convert the checkpoint folder to one GGUF file, written exactly to `target`.

    `outtype` is one of `ConvertType`; see `resolve_type` for `auto`. `model_id` (`org/name`) is used where
    llama.cpp's converter uses the folder's name; `name` overrides `general.name`. When it fails, nothing is left at
    `target`; the caller gives a temporary name and renames.

    Raises `ConvertError` and its kin, `SafetensorsError`, `TokenizerError`, `DiskFullError`.
    """
    config = read_config(checkpoint)
    architecture = open_architecture(config)
    stored = _stored(checkpoint)
    wanted = _wanted(outtype, stored).upper()
    tensors = architecture.tensors(stored)
    _check_vocab(checkpoint, tensors, config.integer("vocab_size"))
    entries = [Entry(t.name, t.rows.shape, choose_type(t.name, t.rows.shape, wanted)) for t in tensors]
    n_params = sum(math.prod(entry.shape) for entry in entries)
    metadata = general_metadata(
        checkpoint, architecture.name, config.raw, n_params, name=name, model_id=model_id, progress=progress
    )
    metadata |= architecture.metadata()
    metadata |= {"general.file_type": u32(FILE_TYPES[wanted])} | architecture.late_metadata()
    metadata["general.quantization_version"] = u32(QUANTIZATION_VERSION)
    metadata |= architecture.vocab(checkpoint)
    for remark in architecture.remarks():
        progress.warn(remark)
    written = _write(target, metadata, entries, [t.rows for t in tensors], progress)
    counts = Counter(entry.type.name for entry in entries)
    return ConvertReport(
        architecture=architecture.name,
        outtype=wanted.lower(),
        n_params=n_params,
        n_tensors=len(entries),
        type_counts=dict(counts.most_common()),
        size_bytes=written.size_bytes,
        sha256=written.sha256,
        name=str(metadata["general.name"].value),
    )


def resolve_type(checkpoint: Path, outtype: str) -> str:
    """What `outtype` comes to for this checkpoint: `auto` is the type of its first 16-bit matrix, or f16.

    Reads headers only. Raises `ConvertError` for a name that is not in `ConvertType`, `SafetensorsError`.
    """
    return _wanted(outtype, _stored(checkpoint) if outtype.lower() == "auto" else {})


def choose_type(name: str, shape: tuple[int, ...], wanted: str) -> GgmlType:
    """The ggml type of one tensor.

    Vectors, norms and all that is no weight stay F32; rows that are no whole number of blocks fall back to F16.
    """
    kind = GGML_TYPES_BY_NAME[wanted]
    if len(shape) <= 1 or name.endswith("_norm.weight") or not name.endswith(".weight"):
        return GGML_TYPES_BY_NAME["F32"]
    return GGML_TYPES_BY_NAME["F16"] if shape[-1] % kind.block else kind


def _stored(checkpoint: Path) -> Mapping[str, Rows]:
    stored = read_checkpoint(checkpoint)
    if not stored:
        pickled = next(checkpoint.glob("*.bin"), None) or next(checkpoint.glob("*.pth"), None)
        if pickled:
            raise ConvertError(
                f"{checkpoint} has only pickled weights ({pickled.name}), and opening those can run any code",
                hint="look for a revision of the model with safetensors",
            )
        raise ConvertError(f"{checkpoint} has no weights", hint=f"expected model.safetensors or {INDEX_NAME}")
    for tensor in stored.values():
        if tensor.dtype not in FLOATS and not tensor.name.endswith(".inv_freq"):
            raise ConvertError(
                f"{tensor.path}: tensor `{tensor.name}` has type {tensor.dtype}, which is no plain floating point",
                hint="convert the original, unquantized checkpoint",
            )
    return stored


def _check_vocab(checkpoint: Path, tensors: Sequence[NamedRows], n_vocab: int) -> None:
    rows = next(t.rows.shape[0] for t in tensors if t.name == "token_embd.weight")
    if rows != n_vocab:
        raise ConvertError(
            f"{checkpoint}: `vocab_size` in config.json is {n_vocab}, but the embedding has {rows} rows",
            hint="config.json and weights belong to different versions of the model",
        )


def _wanted(outtype: str, stored: Mapping[str, Rows]) -> str:
    wanted = outtype.lower()
    if wanted not in get_args(ConvertType):
        types = ", ".join(get_args(ConvertType))
        hint = f"one of {types}; for any other: `slmkit quantize REF -t {outtype.upper()}`"
        raise UnknownTypeError(f"convert makes no {outtype!r}", hint=hint)
    if wanted != "auto":
        return wanted
    matrices = (rows.dtype for rows in stored.values() if len(rows.shape) > 1)
    return next((dtype.lower() for dtype in matrices if dtype in ("F16", "BF16")), "f16")


def _write(
    target: Path, metadata: Mapping[str, Value], entries: Sequence[Entry], rows: Sequence[Rows], progress: Progress
) -> Written:
    size_bytes = file_size(metadata, entries)
    free = shutil.disk_usage(target.parent).free
    if free < size_bytes:
        raise DiskFullError(
            f"the GGUF needs {size(size_bytes)}, {target.parent} has {size(free)} free",
            hint="free some space, or remove models you don't need",
        )
    try:
        with progress.task("convert", size_bytes, "bytes") as task:

            def counted() -> Iterator[memoryview]:
                for chunk in _ahead(_chunks(entries, rows)):
                    yield chunk
                    task.advance(chunk.nbytes)

            return write_gguf(target, metadata, entries, counted())
    except OSError as error:
        target.unlink(missing_ok=True)
        if is_disk_full(error):
            raise DiskFullError(f"no space left on the disk of {target.parent}", hint="free some space") from error
        raise ConvertError(f"cannot write {target}: {error.strerror}") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _chunks(entries: Sequence[Entry], sources: Sequence[Rows]) -> Iterator[memoryview]:
    for entry, source in zip(entries, sources, strict=True):
        row = math.prod(entry.shape[1:])
        for part in source.chunks(max(1, CHUNK_ELEMENTS // max(1, row))):
            yield np.ascontiguousarray(encode(part, source.dtype, entry.type.name)).data


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in a second thread while the one before is written."""
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
