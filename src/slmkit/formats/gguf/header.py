"""Reads what a GGUF says about itself: metadata and tensor table, not the weights.

Standard library only, one pass, bounds checked: a vocabulary of 262,144 tokens takes milliseconds, and a damaged
file is an error that names the file, never a traceback.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from slmkit.errors import GgufError, GgufTypeError
from slmkit.formats.gguf.types import FOREIGN_TYPES, GGML_TYPES, GgmlType, ValueType

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
SHARD = re.compile(r"(?P<prefix>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf")

_SCALARS: dict[int, struct.Struct] = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.BOOL: struct.Struct("<?"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}
_U32, _U64 = _SCALARS[ValueType.UINT32], _SCALARS[ValueType.UINT64]
_MAX_DIMS = 4


@dataclass(frozen=True)
class TensorInfo:
    """One row of the tensor table. `shape` is in ggml order (fastest first); `offset` counts from the data section."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int

    @property
    def n_elements(self) -> int:
        """Weights in the tensor."""
        n = 1
        for dimension in self.shape:
            n *= dimension
        return n

    @property
    def size_bytes(self) -> int:
        """Of its data."""
        return self.type.size_bytes(self.n_elements)


@dataclass(frozen=True)
class GgufHeader:
    """What stands before the weights.

    `element_types` has the type inside each array of `metadata`, `value_spans` where in the file type and value of each
    key stand.
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    value_types: dict[str, ValueType]
    element_types: dict[str, ValueType]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    alignment: int
    value_spans: Mapping[str, slice] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """`general.architecture`: llama, qwen3, ..."""
        return str(self.metadata.get("general.architecture", "unknown"))

    def hyper(self, key: str) -> Any:
        """A hyper-parameter of this architecture: `hyper("context_length")`; `None` when absent."""
        return self.metadata.get(f"{self.architecture}.{key}")

    @cached_property
    def n_params(self) -> int:
        """Weights in all tensors, as llama.cpp counts them."""
        return sum(t.n_elements for t in self.tensors)

    @property
    def tensor_bytes(self) -> int:
        """Of all weights."""
        return sum(t.size_bytes for t in self.tensors)

    @property
    def bpw(self) -> float | None:
        """Bits per weight over all tensors; `None` for a file without tensors."""
        return self.tensor_bytes * 8 / self.n_params if self.n_params else None

    @property
    def params_by_type(self) -> dict[str, int]:
        """How many weights have each type, the most common first."""
        sums: Counter[str] = Counter()
        for tensor in self.tensors:
            sums[tensor.type.name] += tensor.n_elements
        return dict(sums.most_common())


def read_header(path: Path) -> GgufHeader:
    """Read metadata and tensor table of one file; raises `GgufError` for anything but a sound GGUF header."""
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise GgufError(f"{path} is not a GGUF file", hint="a GGUF file begins with the bytes `GGUF`")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _parse(path, view, len(view))
    except OSError as error:
        raise GgufError(f"cannot read {path}: {error.strerror}") from error
    except _NO_HEADER as error:
        raise GgufError(f"{path} is damaged: its header breaks off or makes no sense", hint=_AGAIN) from error


def parse_head(path: Path, head: bytes, size_bytes: int) -> GgufHeader | None:
    """The same from the first bytes of a file of `size_bytes`; `None` when its header needs more of them."""
    if head[:4] != MAGIC:
        raise GgufError(f"{path} is not a GGUF file", hint="a GGUF file begins with the bytes `GGUF`")
    try:
        return _parse(path, head, size_bytes)
    except _NO_HEADER as error:
        if isinstance(error, _BREAKS_OFF) and len(head) < size_bytes:
            return None
        raise GgufError(f"{path} is damaged: its header breaks off or makes no sense", hint=_AGAIN) from error


def check_structure(path: Path) -> GgufHeader:
    """`read_header`, and every tensor's data lies inside the file, in order and without overlap."""
    header = read_header(path)
    size_bytes = path.stat().st_size
    end = 0
    for tensor in sorted(header.tensors, key=lambda t: t.offset):
        if tensor.offset % header.alignment or tensor.offset < end:
            raise GgufError(f"{path} is damaged: tensor {tensor.name} begins inside another", hint=_AGAIN)
        end = tensor.offset + tensor.size_bytes
        if header.data_offset + end > size_bytes:
            missing = header.data_offset + end - size_bytes
            raise GgufError(f"{path} is cut short: tensor {tensor.name} lacks {missing:,} bytes", hint=_AGAIN)
    return header


def shards(path: Path) -> list[Path]:
    """All files of a split GGUF in order, given any of them; `[path]` for a whole one. Raises `GgufError` for gaps."""
    match = SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    found = [path.with_name(f"{match['prefix']}-{n:05d}-of-{count:05d}.gguf") for n in range(1, count + 1)]
    missing = [p.name for p in found if not p.is_file()]
    if missing:
        raise GgufError(f"{path.parent} lacks {len(missing)} of {count} shards: {', '.join(missing[:3])}")
    return found


_BREAKS_OFF = (struct.error, IndexError)
_NO_HEADER = (*_BREAKS_OFF, OverflowError, MemoryError, RecursionError, ValueError)
_AGAIN = "get or make it again: `slmkit verify` shows what is damaged"


def _parse(path: Path, view: mmap.mmap | bytes, size_bytes: int) -> GgufHeader:
    (version,) = _U32.unpack_from(view, 4)
    if version not in (2, 3):
        raise GgufError(f"{path} is GGUF version {version}; versions 2 and 3 are known")
    n_tensors, n_values = struct.unpack_from("<QQ", view, 8)
    cursor = _Cursor(view, 24, size_bytes)
    metadata: dict[str, Any] = {}
    value_types: dict[str, ValueType] = {}
    element_types: dict[str, ValueType] = {}
    spans: dict[str, slice] = {}
    for _ in range(n_values):
        key, start = cursor.text(), cursor.at
        kind = ValueType(cursor.number(_U32))
        if kind == ValueType.ARRAY:
            element_types[key] = cursor.peek()
        metadata[key], value_types[key] = cursor.value(kind), kind
        spans[key] = slice(start, cursor.at)
    tensors = tuple(_tensors(path, cursor, n_tensors))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise GgufError(f"{path} is damaged: its alignment is {alignment!r}", hint=_AGAIN)
    data_offset = -(-cursor.at // alignment) * alignment
    return GgufHeader(path, version, metadata, value_types, element_types, tensors, data_offset, alignment, spans)


def _tensors(path: Path, cursor: _Cursor, n_tensors: int) -> Iterator[TensorInfo]:
    for _ in range(n_tensors):
        name = cursor.text()
        n_dims = cursor.number(_U32)
        if n_dims > _MAX_DIMS:
            raise GgufError(f"{path} is damaged: tensor {name!r} has {n_dims} dimensions", hint=_AGAIN)
        shape = tuple(cursor.number(_U64) for _ in range(n_dims))
        type_id = cursor.number(_U32)
        if type_id not in GGML_TYPES:
            what, hint = FOREIGN_TYPES.get(type_id, ("unknown to llama.cpp", None))
            raise GgufTypeError(f"{path}: tensor {name} has type {type_id} ({what})", hint=hint)
        yield TensorInfo(name, shape, GGML_TYPES[type_id], cursor.number(_U64))


class _Cursor:
    """Walks through the first bytes of a file: `IndexError` where it needs more of them, `ValueError` where even all
    `size_bytes` would not be enough.
    """

    def __init__(self, view: mmap.mmap | bytes, at: int, size_bytes: int) -> None:
        self.view, self.at, self.size_bytes = view, at, size_bytes

    def reach(self, length: int) -> int:
        """The place `length` bytes on."""
        end = self.at + length
        if end > self.size_bytes:
            raise ValueError(end)
        if end > len(self.view):
            raise IndexError(end)
        return end

    def number(self, form: struct.Struct) -> Any:
        (value,) = form.unpack_from(self.view, self.at)
        self.at += form.size
        return value

    def peek(self) -> ValueType:
        """The type of an array's elements, before the array is read."""
        return ValueType(_U32.unpack_from(self.view, self.at)[0])

    def text(self) -> str:
        end = self.reach(self.number(_U64))
        raw = self.view[self.at : end]
        self.at = end
        return raw.decode("utf-8")

    def value(self, kind: ValueType) -> Any:
        if kind == ValueType.STRING:
            return self.text()
        if kind == ValueType.ARRAY:
            return self.array()
        return self.number(_SCALARS[kind])

    def array(self) -> list[Any]:
        kind = ValueType(self.number(_U32))
        length = self.number(_U64)
        if kind == ValueType.STRING or kind == ValueType.ARRAY:
            if length > self.size_bytes:  # each element has at least eight bytes
                raise ValueError(length)
            return [self.value(kind) for _ in range(length)]
        form = _SCALARS[kind]
        end = self.reach(length * form.size)
        values = list(struct.unpack_from(f"<{length}{form.format[-1]}", self.view, self.at))
        self.at = end
        return values
