"""Writes GGUF version 3 in one pass: header and tensor table first, then the weights as they come.

The bytes are those that gguf-py's `GGUFWriter` makes of the same keys and tensors in the same order
(https://github.com/ggml-org/llama.cpp/blob/0c1e57098/gguf-py/gguf/gguf_writer.py), so whole files can be compared.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from slmkit.errors import GgufError
from slmkit.formats.gguf.output import Chunk, Output
from slmkit.formats.gguf.types import GgmlType, ValueType

MAGIC = b"GGUF"
_COUNTS_BYTES = 24
"""Magic, version, and how many tensors and values there are."""

_FORMATS = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


class Encoded(Protocol):
    """A metadata value that knows its bytes."""

    @property
    def type(self) -> ValueType:
        """Of the value."""

    @property
    def encoded(self) -> bytes:
        """Type and value as they stand in the file."""


@dataclass(frozen=True)
class Copied:
    """A value as it stands in another file."""

    type: ValueType
    encoded: bytes


@dataclass(frozen=True)
class Value:
    """One metadata value with its type on disk; `element` is the type inside an array."""

    type: ValueType
    value: Any
    element: ValueType | None = None

    @cached_property
    def encoded(self) -> bytes:
        """Type and value as they stand in the file; kept, because the file's size is asked for more than once."""
        head = struct.pack("<I", self.type)
        if self.type is ValueType.STRING:
            return head + _text(self.value)
        if self.type is not ValueType.ARRAY:
            return head + struct.pack("<" + _FORMATS[self.type], self.value)
        assert self.element is not None
        head += struct.pack("<IQ", self.element, len(self.value))
        if self.element is ValueType.STRING:
            return head + _texts(self.value)
        return head + struct.pack(f"<{len(self.value)}{_FORMATS[self.element]}", *self.value)


def u32(value: int) -> Value:
    """An unsigned 32-bit integer: counts, sizes and ids."""
    return Value(ValueType.UINT32, value)


def f32(value: float) -> Value:
    """A float; Python's double is rounded to single."""
    return Value(ValueType.FLOAT32, value)


def boolean(value: bool) -> Value:
    """A bool."""
    return Value(ValueType.BOOL, value)


def string(value: str) -> Value:
    """UTF-8 text."""
    return Value(ValueType.STRING, value)


def strings(values: Sequence[str]) -> Value:
    """An array of texts."""
    return Value(ValueType.ARRAY, values, ValueType.STRING)


def i32s(values: Sequence[int]) -> Value:
    """An array of signed 32-bit integers."""
    return Value(ValueType.ARRAY, values, ValueType.INT32)


def bools(values: Sequence[bool]) -> Value:
    """An array of bools."""
    return Value(ValueType.ARRAY, values, ValueType.BOOL)


def f32s(values: Sequence[float]) -> Value:
    """An array of floats."""
    return Value(ValueType.ARRAY, values, ValueType.FLOAT32)


@dataclass(frozen=True)
class Entry:
    """A row of the tensor table. `shape` is in numpy order: the row of contiguous elements is the last dimension."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType

    @property
    def size_bytes(self) -> int:
        """Of its data, without padding."""
        return self.type.size_bytes(math.prod(self.shape))


@dataclass(frozen=True)
class Layout:
    """How a file is laid out: where tensors begin is a multiple of `alignment`, which `general.alignment` must say."""

    version: int = 3
    alignment: int = 32

    def padded(self, n_bytes: int) -> int:
        """Up to the next multiple."""
        return -(-n_bytes // self.alignment) * self.alignment

    def padding(self, n_bytes: int) -> bytes:
        """What is missing to it."""
        return bytes(self.padded(n_bytes) - n_bytes)


LAYOUT = Layout()
"""What everybody writes today."""


@dataclass(frozen=True)
class Written:
    """The finished file, hashed while it was written."""

    size_bytes: int
    sha256: str


def write_gguf(
    path: Path,
    metadata: Mapping[str, Encoded],
    entries: Sequence[Entry],
    chunks: Iterable[Chunk],
    layout: Layout = LAYOUT,
) -> Written:
    """Write the file and flush it to the disk; the caller renames it when it is satisfied.

    `chunks` are the tensors' data in order, already in the bytes of their types; no chunk holds parts of two tensors.
    Raises `GgufError` for a value that its type cannot hold and for chunks that do not add up to the tensors' sizes.
    `OSError` (disk full) passes through.
    """
    before = encode_header(metadata, entries, layout)
    source = iter(chunks)
    with path.open("wb", buffering=0) as file, Output(file) as out:
        out.write(before)
        for entry in entries:
            end = out.size_bytes + entry.size_bytes
            while out.size_bytes < end:
                chunk = next(source, b"")
                if not 0 < memoryview(chunk).nbytes <= end - out.size_bytes:
                    raise GgufError(f"the data of tensor `{entry.name}` is not {entry.size_bytes} bytes long")
                out.write(chunk)
            out.write(layout.padding(out.size_bytes))
        if next(source, None) is not None:
            raise GgufError("there is more data than tensors")
        return Written(out.size_bytes, out.finish())


def file_size(metadata: Mapping[str, Encoded], entries: Sequence[Entry], layout: Layout = LAYOUT) -> int:
    """Bytes that `write_gguf` will write, known before it starts."""
    table_bytes = sum(len(_text(entry.name)) + 8 * len(entry.shape) + 16 for entry in entries)  # `_table`
    return layout.padded(_COUNTS_BYTES + sum(map(len, _values(metadata))) + table_bytes) + data_size(entries, layout)


def data_size(entries: Iterable[Entry], layout: Layout = LAYOUT) -> int:
    """Bytes of all data with its padding."""
    return sum(layout.padded(entry.size_bytes) for entry in entries)


def encode_header(metadata: Mapping[str, Encoded], entries: Sequence[Entry], layout: Layout = LAYOUT) -> bytes:
    """All that stands before the data, padded; raises `GgufError` for a value that its type cannot hold."""
    out = b"".join(_header(metadata, entries, layout))
    return out + layout.padding(len(out))


def _header(metadata: Mapping[str, Encoded], entries: Sequence[Entry], layout: Layout) -> Iterator[bytes]:
    yield MAGIC + struct.pack("<IQQ", layout.version, len(entries), len(metadata))
    yield from _values(metadata)
    yield from _table(entries, layout)


def _values(metadata: Mapping[str, Encoded]) -> Iterator[bytes]:
    for key, value in metadata.items():
        yield _text(key)
        try:
            yield value.encoded
        except (struct.error, TypeError, AttributeError, UnicodeEncodeError, OverflowError) as error:
            raise GgufError(f"`{key}` cannot be stored as {value.type.name.lower()}: {error}") from error


def _table(entries: Sequence[Entry], layout: Layout) -> Iterator[bytes]:
    offset = 0
    for entry in entries:
        n = len(entry.shape)
        yield _text(entry.name) + struct.pack(f"<I{n}QIQ", n, *reversed(entry.shape), entry.type.id, offset)
        offset += layout.padded(entry.size_bytes)


def _texts(texts: Sequence[str]) -> bytes:
    """Like `_text` one after the other, but for a vocabulary in a fifth of the time."""
    out = [b""] * (2 * len(texts))
    out[1::2] = data = [text.encode("utf-8") for text in texts]
    out[::2] = [_SIZES[len(item)] if len(item) < len(_SIZES) else struct.pack("<Q", len(item)) for item in data]
    return b"".join(out)


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


_SIZES = [struct.pack("<Q", n) for n in range(256)]
