"""Importance matrices: how strongly each column of each weight matrix is used.

Reads llama.cpp's GGUF form and its older `.dat`, writes the GGUF form, byte for byte as llama-imatrix does
(`save_imatrix` of https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/imatrix/imatrix.cpp, reader:
common/imatrix-loader.cpp). For each matrix NAME there are `NAME.in_sum2`, sums of the squares of the activations that
its columns were multiplied with, and `NAME.counts`, over how many rows of activations; experts have one of each.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmkit.core.quantize import MOST_OVERRIDE_BYTES
from slmkit.errors import GgufError, ImatrixError
from slmkit.formats.gguf.header import MAGIC, GgufHeader, TensorInfo, check_structure
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Entry, string, strings, u32, write_gguf

Floats = NDArray[np.float32]
Counts = NDArray[np.int64]

_SUMS, _COUNTS = ".in_sum2", ".counts"
_DATASETS, _CHUNK_COUNT, _CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
_STATE = "slmkit.state"
_MOST_COUNTED = 2.0**62
"""Above, a float is no number of tokens."""
_AGAIN = "make it again: `slmkit imatrix REF --force`"


@dataclass(frozen=True)
class Importance:
    """Of one matrix, or of a layer's experts: `sums` of squares (n_matrices, n_columns), `counts` (n_matrices,)."""

    sums: Floats
    counts: Counts

    @property
    def means(self) -> Floats:
        """Mean squares, as the quantizer takes them: an expert that was never asked has 1 everywhere."""
        counts = self.counts.astype(np.float32)[:, None]
        asked = counts > 0
        return np.where(asked, self.sums / np.where(asked, counts, np.float32(1)), np.float32(1))


@dataclass(frozen=True)
class Imatrix:
    """`n_chunks` pieces of text of `chunk_size` tokens (0: unknown) were run; `datasets` names the text.

    `state` is what slmkit notes in an unfinished one; llama.cpp ignores it.
    """

    entries: Mapping[str, Importance]
    datasets: tuple[str, ...]
    n_chunks: int
    chunk_size: int
    state: Mapping[str, Any] = field(default_factory=dict)


def origin(path: str | Path, imatrix: Imatrix) -> dict[str, int | str]:
    """What llama-quantize writes about the one of that file into what it makes with it; of the path only the name."""
    return origin_of(Path(path).name, imatrix.datasets, len(imatrix.entries), imatrix.n_chunks)


def origin_of(name: str, datasets: Sequence[str], n_entries: int, n_chunks: int) -> dict[str, int | str]:
    """The same of a file of that `name`, which need not be there; numbers take the same room whatever they are."""
    said: dict[str, int | str] = {"quantize.imatrix.file": _fitting(name)}
    if datasets:
        said["quantize.imatrix.dataset"] = _fitting(datasets[0])
    said["quantize.imatrix.entries_count"] = n_entries
    if n_chunks > 0:
        said["quantize.imatrix.chunks_count"] = n_chunks
    return said


def _fitting(text: str) -> str:
    """As much of it as the engine takes; no half characters."""
    return text.encode()[:MOST_OVERRIDE_BYTES].decode("utf-8", "ignore")


def write(path: Path, imatrix: Imatrix) -> None:
    """Write and flush the GGUF; the caller renames it. Raises `ImatrixError` when it is empty, and `OSError`."""
    names = sorted(imatrix.entries, key=str.encode)
    if not names:
        raise ImatrixError("the importance matrix has no entries", hint="has the model any weight matrix?")
    metadata = {
        "general.type": string("imatrix"),
        _DATASETS: strings(imatrix.datasets),
        _CHUNK_COUNT: u32(imatrix.n_chunks),
        _CHUNK_SIZE: u32(imatrix.chunk_size),
    }
    if imatrix.state:
        metadata[_STATE] = string(json.dumps(imatrix.state))
    single = GGML_TYPES_BY_NAME["F32"]
    tensors: list[Entry] = []
    chunks: list[bytes] = []
    for name in names:
        entry = imatrix.entries[name]
        n_matrices, n_columns = entry.sums.shape
        several = n_matrices > 1  # ggml does not write a last dimension of 1
        tensors.append(Entry(name + _SUMS, (n_matrices, n_columns) if several else (n_columns,), single))
        tensors.append(Entry(name + _COUNTS, (n_matrices, 1) if several else (1,), single))
        chunks += [entry.sums.astype("<f4").tobytes(), entry.counts.astype("<f4").tobytes()]
    write_gguf(path, metadata, tensors, chunks)


def read(path: Path) -> Imatrix:
    """Read either form; raises `ImatrixError` for a file that is neither, damaged, or holds what cannot be."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
        found = _read_gguf(path) if start == MAGIC else _read_legacy(path)
    except OSError as error:
        raise ImatrixError(f"cannot read {path}: {error.strerror}") from error
    for name, entry in found.entries.items():
        if not np.isfinite(entry.sums).all() or (entry.sums < 0).any() or (entry.counts < 0).any():
            raise ImatrixError(f"{path} is damaged: the entry {name} is negative or not finite", hint=_AGAIN)
    return found


# ------------------------------------------------------------------ GGUF


def _read_gguf(path: Path) -> Imatrix:
    try:
        header = check_structure(path)
    except GgufError as error:
        raise ImatrixError(error.message, hint=_AGAIN) from error
    tensors = {t.name: t for t in header.tensors}
    names = sorted({name.removesuffix(end) for name in tensors for end in (_SUMS, _COUNTS) if name.endswith(end)})
    lacking = [key for key in (_DATASETS, _CHUNK_COUNT, _CHUNK_SIZE) if key not in header.metadata]
    if not names or lacking:
        what = f"it lacks {', '.join(lacking)}" if lacking else "it has no entries"
        raise ImatrixError(f"{path} is a GGUF but no importance matrix: {what}", hint="give the file of llama-imatrix")
    entries = {}
    for name in names:
        pair = tensors.get(name + _SUMS), tensors.get(name + _COUNTS)
        if pair[0] is None or pair[1] is None or {t.type.name for t in pair if t} != {"F32"}:
            raise ImatrixError(f"{path} is damaged: {name} has no sums or no counts in F32", hint=_AGAIN)
        sums, counts = _data(header, pair[0]), _data(header, pair[1])
        if not len(counts) or not len(sums) or len(sums) % len(counts):
            raise ImatrixError(f"{path} is damaged: {name} has {len(sums)} sums, {len(counts)} counts", hint=_AGAIN)
        if not (np.abs(counts) < _MOST_COUNTED).all():  # nor what is no number
            raise ImatrixError(f"{path} is damaged: the counts of {name} are not finite", hint=_AGAIN)
        entries[name] = Importance(sums.reshape(len(counts), -1), np.rint(counts).astype(np.int64))
    datasets, n_chunks, chunk_size = (header.metadata[k] for k in (_DATASETS, _CHUNK_COUNT, _CHUNK_SIZE))
    if not isinstance(datasets, list) or type(n_chunks) is not int or type(chunk_size) is not int:
        raise ImatrixError(f"{path} is damaged: its metadata has other types than it should have", hint=_AGAIN)
    try:
        state = dict(json.loads(header.metadata.get(_STATE, "{}")))
    except (ValueError, TypeError) as error:
        raise ImatrixError(f"{path} is damaged: {_STATE} is not JSON", hint=_AGAIN) from error
    return Imatrix(entries, tuple(map(str, datasets)), n_chunks, chunk_size, state)


def _data(header: GgufHeader, tensor: TensorInfo) -> Floats:
    return np.fromfile(header.path, "<f4", tensor.n_elements, offset=header.data_offset + tensor.offset)


# ------------------------------------------------------------------ .dat


def _read_legacy(path: Path) -> Imatrix:
    """int32 n; n times: name, n_calls, n_values, values (means times n_calls); then n_chunks and the text's name."""
    try:
        with path.open("rb") as file:
            view = memoryview(file.read())
        cursor = _Cursor(view)
        entries = dict(_legacy_entries(cursor))
        n_chunks = 0 if cursor.at_end else cursor.number()
        datasets = () if cursor.at_end else (cursor.text(),)
    except (struct.error, ValueError) as error:
        raise ImatrixError(
            f"{path} is no importance matrix, or a damaged one", hint="give the file of llama-imatrix"
        ) from error
    return Imatrix(entries, datasets, n_chunks, 0)


def _legacy_entries(cursor: _Cursor) -> Iterator[tuple[str, Importance]]:
    n_entries = cursor.number()
    if n_entries < 1:
        raise ValueError(n_entries)
    for _ in range(n_entries):
        name = cursor.text()
        n_calls = cursor.number()
        values = np.frombuffer(cursor.take(4 * cursor.number()), "<f4")
        if not len(values):
            raise ValueError(name)
        yield name, Importance(values.reshape(1, -1), np.array([n_calls if n_calls > 0 else 1], np.int64))


class _Cursor:
    """Walks through the bytes of a `.dat`."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._view)

    def take(self, size_bytes: int) -> memoryview:
        if not 0 <= size_bytes <= len(self._view) - self._at:
            raise ValueError(size_bytes)
        self._at += size_bytes
        return self._view[self._at - size_bytes : self._at]

    def number(self) -> int:
        return int(struct.unpack("<i", self.take(4))[0])

    def text(self) -> str:
        return bytes(self.take(self.number())).decode("utf-8")
