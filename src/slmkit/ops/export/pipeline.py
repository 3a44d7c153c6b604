"""From a GGUF file to a checkpoint folder, one chunk of one tensor at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.core.progress import SILENT, Progress, Task
from slmkit.core.units import size
from slmkit.errors import ConvertError, DiskFullError, GgufError, is_disk_full
from slmkit.formats.gguf.floats import rows
from slmkit.formats.gguf.header import GgufHeader
from slmkit.formats.gguf.model import GgufModel, StoredTensor, open_model
from slmkit.formats.safetensors import DTYPES, Entry, write_file
from slmkit.ops.describe import declared_type
from slmkit.ops.export.config import (
    ROPE_FACTORS,
    check_architecture,
    generation_config,
    hf_name,
    model_config,
    norm_shift,
)
from slmkit.ops.export.tokenizer import write_json, write_tokenizer
from slmkit.registry import atomic

Array = npt.NDArray[Any]
CHUNK_ELEMENTS = 4 << 20
"""Weights in memory at a time: 16 MiB as float32."""

_FREE = "free some space, or export to another disk"


@dataclass(frozen=True)
class ExportReport:
    """What was written. `source_type` is the quant type that the weights went through."""

    path: Path
    architecture: str
    source_type: str
    dtype: str
    n_params: int
    n_tensors: int
    size_bytes: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of the weights' history; nothing when they were never quantized."""
        if self.source_type in ("F32", "F16", "BF16"):
            return ()
        return (f"these weights were dequantized from {self.source_type}: what quantizing lost stays lost",)


def _chunks(tensor: StoredTensor, group: int = 1) -> Iterator[npt.NDArray[np.float32]]:
    """The weights as float32, a multiple of `group` rows at a time."""
    for part in rows(tensor, CHUNK_ELEMENTS, group):
        yield part.reshape(len(part), *tensor.shape[1:]) if len(tensor.shape) > 1 else part.reshape(-1)


def export_hf(gguf: Path, out: Path, *, progress: Progress = SILENT) -> ExportReport:
    """Write the model as a folder that transformers (and `convert`) can read; any shard of a split GGUF will do.

    Weights become bf16 safetensors, or f16 and f32 when the GGUF is of that type. The folder appears under its name
    when it is complete. Raises `ConvertError` when `out` has files in it or the model has parts that a checkpoint
    cannot hold, `UnsupportedArchError`, `GgufError`, `DiskFullError`.
    """
    model = open_model(gguf)
    header = model.first
    check_architecture(header)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConvertError(f"{out} exists and is not empty", hint="name a new folder")
    whole = _merged(model)
    source_type = _source_type(whole)
    dtype = source_type if source_type in ("F16", "F32") else "BF16"
    weights = [t for t in model.tensors if t.info.name != ROPE_FACTORS]
    n_params = sum(t.info.n_elements for t in weights)
    size_bytes = n_params * DTYPES[dtype].itemsize
    out.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(out.parent).free) < size_bytes * 1.02:
        raise DiskFullError(f"the checkpoint needs {size(size_bytes)}, {out.parent} has {size(free)} free", hint=_FREE)
    factors = next((np.concatenate(list(_chunks(t))) for t in model.tensors if t.info.name == ROPE_FACTORS), None)
    temporary = out.with_name(f"{atomic.PARTIAL}{os.getpid()}-{out.name}")
    try:
        temporary.mkdir()
        write_json(temporary / "config.json", model_config(whole, dtype, factors))
        write_json(temporary / "generation_config.json", generation_config(whole))
        write_tokenizer(whole, temporary, progress)
        (temporary / "README.md").write_text(_card(whole, source_type), encoding="utf-8")
        with progress.task(f"writing {out.name}", size_bytes, "bytes") as task:
            write_file(temporary / "model.safetensors", [_entry(t, whole, dtype, task) for t in weights])
        temporary.replace(out)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"no space left on the disk of {out.parent}", hint=_FREE) from error
        raise ConvertError(f"cannot write {out}: {error.strerror}") from error
    finally:
        atomic.remove(temporary)
    total = sum(path.stat().st_size for path in out.iterdir())
    return ExportReport(out, header.architecture, source_type, dtype, n_params, len(weights), total)


def deinterleave(part: Array, head_dim: int) -> Array:
    """Rows 0, d/2, 1, d/2 + 1, ... of each head become 0, 1, ...: the reverse of what `convert` does for llama."""
    heads = part.reshape(-1, head_dim // 2, 2, *part.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(part.shape)


def _entry(tensor: StoredTensor, header: GgufHeader, dtype: str, task: Task) -> Entry:
    """`header` is the whole model's: of a split file only the first shard has the hyper-parameters."""
    shape = tensor.shape
    name = tensor.info.name
    key = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}.get(name.split(".")[-2])
    permuted = key is not None and header.architecture == "llama"
    heads = (header.hyper(key) or header.hyper("attention.head_count")) if key else 1
    head_dim = shape[0] // heads
    if permuted and (shape[0] % heads or head_dim % 2):
        raise GgufError(f"{header.path}: {shape[0]} rows of `{name}` are not {heads} heads")

    shift = np.float32(norm_shift(name, header.architecture))

    def chunks() -> Iterator[Array]:
        for part in _chunks(tensor, head_dim if permuted and len(shape) > 1 else 1):
            data = _as_dtype(deinterleave(part, head_dim) if permuted else part - shift if shift else part, dtype)
            yield data
            task.advance(data.nbytes)

    return Entry(hf_name(name, header.architecture), dtype, shape, _Once(chunks))


@dataclass(frozen=True)
class _Once:
    """An iterable that begins to work when it is asked."""

    start: Any

    def __iter__(self) -> Iterator[Array]:
        return iter(self.start())


def _as_dtype(values: npt.NDArray[np.float32], dtype: str) -> Array:
    if dtype != "BF16":
        return values.astype(DTYPES[dtype], copy=False)
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    out: Array = quantize(np.ascontiguousarray(values, np.float32), GGMLQuantizationType.BF16)
    return out


def _merged(model: GgufModel) -> GgufHeader:
    """The first shard's metadata with the tensors of all; good for names and shapes only."""
    return replace(model.first, tensors=tuple(tensor.info for tensor in model.tensors))


def _source_type(header: GgufHeader) -> str:
    """The quant type by `general.file_type`, or that of most weights."""
    return declared_type(header.metadata) or next(iter(header.params_by_type))


def _card(header: GgufHeader, source_type: str) -> str:
    name = header.metadata.get("general.name") or header.path.stem
    licence = header.metadata.get("general.license") or "unknown"
    if source_type in ("F32", "F16", "BF16"):
        origin = f"The weights were copied from a {source_type} GGUF ({header.path.name})."
    else:
        origin = (
            f"The weights were dequantized from {source_type} ({header.path.name}). They are not the original ones:\n"
            "what the quantization lost is still lost."
        )
    front = f"license: {licence}\nlibrary_name: transformers\npipeline_tag: text-generation\n"
    return f"---\n{front}---\n# {name}\n\n{origin}\n"
