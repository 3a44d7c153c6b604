"""Reads and writes safetensors checkpoints as streams: memory holds one chunk, never a whole model.

A file is `u64 header size | JSON header | data`; the header maps each tensor to dtype, shape and its bytes in the
data. https://github.com/huggingface/safetensors/blob/v0.5.3/README.md#format
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.errors import SafetensorsError

Array = npt.NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
}
"""How each dtype is held in numpy, which has no bfloat16 and no 8-bit floats: those are raw bits."""

HEAD_BYTES = 8
"""The length of the header, a little-endian number, which comes before it."""

MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation."""

MAX_DIMS = 8
"""More dimensions than any weight has; a product of millions of them would take hours."""
_MAX_SIZE = (1 << 63) - 1

INDEX_NAME = "model.safetensors.index.json"
_AGAIN = "the file is incomplete or damaged: download it again"


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies. `shape` is in numpy order (rows first); `offset` counts from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int

    @property
    def n_elements(self) -> int:
        """Weights in the tensor."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Of its data."""
        return self.n_elements * DTYPES[self.dtype].itemsize

    def read(self, start: int, stop: int) -> Array:
        """Elements `start` to `stop`, rows one after the other, as a flat array of `DTYPES[dtype]`.

        The file is read, not mapped: that is as fast, and one that is cut off meanwhile is an error instead of a
        SIGBUS. Raises `SafetensorsError` when it ends early or cannot be read.
        """
        part = np.empty(stop - start, DTYPES[self.dtype])
        view = part.view(np.uint8).data
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.offset + start * part.itemsize)
                while view:
                    n = file.readinto(view)
                    if not n:
                        raise SafetensorsError(f"{self.path} ends inside tensor `{self.name}`", hint=_AGAIN)
                    view = view[n:]
        except OSError as error:
            raise SafetensorsError(f"cannot read tensor `{self.name}` of {self.path}: {error.strerror}") from error
        return part

    def chunks(self, n: int = 4 << 20) -> Iterator[Array]:
        """All its data, about `n` elements at a time."""
        for start in range(0, self.n_elements, n):
            yield self.read(start, min(start + n, self.n_elements))


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, ordered by name (as the reference implementation hands them out).

    Raises `SafetensorsError` for a header that is cut, absurdly large, no JSON, or whose tensors overlap, leave gaps,
    run past the end or have a size that contradicts dtype and shape.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            text = file.read(header_bytes(path, file.read(HEAD_BYTES), size_bytes))
    except OSError as error:
        raise SafetensorsError(f"cannot read {path}: {error.strerror}") from error
    return parse_header(path, text, size_bytes)


def header_bytes(path: Path, head: bytes, size_bytes: int) -> int:
    """How long the header is, off the file's first `HEAD_BYTES`; `size_bytes` is of the whole file.

    Raises `SafetensorsError`, as does `parse_header`; `path` is what they name.
    """
    if len(head) < HEAD_BYTES:
        raise SafetensorsError(f"{path} has {size_bytes} bytes: not a safetensors file", hint=_AGAIN)
    length = int.from_bytes(head, "little")
    if length > MAX_HEADER_BYTES:
        raise SafetensorsError(f"{path} is not a safetensors file: its header would have {length:,} bytes")
    if length > size_bytes - HEAD_BYTES:
        raise SafetensorsError(f"{path} ends inside its header", hint=_AGAIN)
    return length


def parse_header(path: Path, text: bytes, size_bytes: int) -> dict[str, Tensor]:
    """The tensors that the header `text` (what follows the first `HEAD_BYTES`) describes; see `read_file`."""
    try:
        header = json.loads(text, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"{path} is damaged: its header is not JSON ({error})", hint=_AGAIN) from error
    if not isinstance(header, dict):
        raise SafetensorsError(f"{path} is damaged: its header is not an object", hint=_AGAIN)
    header.pop("__metadata__", None)
    base = HEAD_BYTES + len(text)
    tensors = {name: _tensor(path, name, header[name], base) for name in sorted(header)}
    _check_layout(path, tensors.values(), base, size_bytes)
    return tensors


def read_checkpoint(folder: Path, remote: Mapping[str, Mapping[str, Tensor]] | None = None) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder, file by file, in the order llama.cpp's converter takes them.

    One `model.safetensors`, or shards; an index, where there is one, must agree with the shards. `remote` has the
    tensors of files that count as being in the folder although they are elsewhere. Raises `SafetensorsError` naming
    what is missing.
    """
    elsewhere = remote or {}
    index = folder / INDEX_NAME
    where: dict[str, str] = {}
    if index.is_file():
        where = _read_index(index)
        names = sorted(set(where.values()))
        absent = [name for name in names if name not in elsewhere and not (folder / name).is_file()]
        if absent:
            message = f"{folder} lacks {len(absent)} of {len(names)} shards: {', '.join(absent[:3])}"
            raise SafetensorsError(message, hint="download the checkpoint again")
    else:
        names = sorted({p.name for p in folder.glob("model*.safetensors")} | set(elsewhere))
    tensors: dict[str, Tensor] = {}
    for name in names:
        for tensor in (elsewhere[name] if name in elsewhere else read_file(folder / name)).values():
            if tensor.name in tensors:
                raise SafetensorsError(
                    f"tensor `{tensor.name}` is in both {tensors[tensor.name].path.name} and {name}",
                    hint=f"remove the files that {INDEX_NAME} does not need",
                )
            tensors[tensor.name] = tensor
    if where and where.keys() != tensors.keys():
        wrong = sorted(where.keys() ^ tensors.keys())
        raise SafetensorsError(
            f"{index} and the shards disagree on {len(wrong)} tensors: {', '.join(wrong[:5])}",
            hint="download the checkpoint again",
        )
    return tensors


def _read_index(path: Path) -> dict[str, str]:
    try:
        where = json.loads(path.read_text("utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise SafetensorsError(f"{path} is not an index of shards", hint=_AGAIN) from error
    if not isinstance(where, dict) or not all(_is_plain(name) for name in where.values()):
        raise SafetensorsError(f"{path}: `weight_map` must map tensors to files beside it", hint=_AGAIN)
    return where


def _is_plain(name: Any) -> bool:
    """Whether it is the name of a file, without a path."""
    return isinstance(name, str) and name.isprintable() and name == Path(name).name


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r} occurs twice")
    return out


def _tensor(path: Path, name: str, entry: Any, base: int) -> Tensor:
    if not name.isprintable():
        raise SafetensorsError(f"{path} is damaged: the name of tensor {name!r} is no text", hint=_AGAIN)
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            sizes = [*shape, abs(begin), abs(end)]
            good = len(shape) <= MAX_DIMS and all(type(n) is int and 0 <= n <= _MAX_SIZE for n in sizes)
        case _:
            good = False
    if not good:
        raise SafetensorsError(f"{path} is damaged: the entry of tensor `{name}` makes no sense", hint=_AGAIN)
    if dtype not in DTYPES:
        raise SafetensorsError(f"{path}: tensor `{name}` has the unknown dtype {dtype!r}")
    tensor = Tensor(name, dtype, tuple(shape), path, base + begin)
    if begin < 0 or end - begin != tensor.size_bytes:
        raise SafetensorsError(
            f"{path} is damaged: tensor `{name}`, {dtype} {list(shape)}, needs {tensor.size_bytes} bytes and "
            f"has {end - begin}",
            hint=_AGAIN,
        )
    return tensor


def _check_layout(path: Path, tensors: Iterable[Tensor], base: int, size_bytes: int) -> None:
    at = base
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.size_bytes)):
        if tensor.offset != at:
            fault = "overlaps another" if tensor.offset < at else "is preceded by bytes that belong to no tensor"
            raise SafetensorsError(f"{path} is damaged: tensor `{tensor.name}` {fault}", hint=_AGAIN)
        at += tensor.size_bytes
        if at > size_bytes:
            raise SafetensorsError(f"{path} ends inside tensor `{tensor.name}`", hint=_AGAIN)
    if at != size_bytes:
        raise SafetensorsError(f"{path} is damaged: {size_bytes - at:,} bytes belong to no tensor", hint=_AGAIN)


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: `chunks` yields its data in order, already in the bytes of `dtype`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Iterable[Array]


def write_file(path: Path, entries: Sequence[Entry]) -> int:
    """Write the tensors in the given order, one chunk in memory at a time; returns the bytes of data.

    Raises `SafetensorsError` when a tensor's chunks are not as long as its shape says.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in entries:
        size = math.prod(entry.shape) * DTYPES[entry.dtype].itemsize
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for entry in entries:
            begin, end = header[entry.name]["data_offsets"]
            written = sum(file.write(np.ascontiguousarray(chunk).data) for chunk in entry.chunks)
            if written != end - begin:
                raise SafetensorsError(f"tensor `{entry.name}` has {written} bytes instead of {end - begin}")
        file.flush()
        os.fsync(file.fileno())
    return at
