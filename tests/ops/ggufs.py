"""GGUF files as other programs may write them: any version, alignment, order and type of value; made byte by byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, GgmlType, ValueType

_NUMBERS = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "B",  # any byte: a bool of 2 must stay one
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


def text(value: str) -> bytes:
    """With its length."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


@dataclass(frozen=True)
class Gguf:
    """`keys` are encoded values with their types; `tensors` are name, shape in ggml order and type."""

    keys: dict[str, bytes]
    tensors: list[tuple[str, tuple[int, ...], GgmlType]]
    version: int = 3
    alignment: int = 32
    padded_end: bool = True
    filler: int = 0
    seed: int = 0
    data: dict[str, bytes] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """The file."""
        keys = dict(self.keys)
        if self.alignment != 32:
            keys["general.alignment"] = struct.pack("<II", ValueType.UINT32, self.alignment)
        out = bytearray(b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(keys)))
        for key, value in keys.items():
            out += text(key) + value
        offset, body = 0, bytearray()
        rng = np.random.default_rng(self.seed)
        for i, (name, shape, kind) in enumerate(self.tensors):
            out += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind.id, offset)
            size_bytes = kind.size_bytes(int(np.prod(shape)))
            body += self.data.get(name) or rng.integers(0, 255, size_bytes, np.uint8).tobytes()
            if i < len(self.tensors) - 1 or self.padded_end:
                body += bytes([self.filler]) * (-len(body) % self.alignment)
            offset = len(body)
        out += bytes(-len(out) % self.alignment)
        path.write_bytes(out + body)
        return path


@st.composite
def values(draw: st.DrawFn) -> bytes:
    """Any value, encoded: NaNs with any payload, bools of any byte, arrays of arrays."""
    kind = draw(st.sampled_from([*_NUMBERS, ValueType.STRING, ValueType.ARRAY]))
    return struct.pack("<I", kind) + draw(bodies(kind))


@st.composite
def bodies(draw: st.DrawFn, kind: ValueType, deep: bool = True) -> bytes:
    """A value without its type."""
    if kind == ValueType.STRING:
        return text(draw(st.text(max_size=20)))
    if kind == ValueType.ARRAY:
        inner = draw(st.sampled_from([*_NUMBERS, ValueType.STRING, *([ValueType.ARRAY] if deep else [])]))
        items = draw(st.lists(bodies(inner, deep=False), max_size=4))
        return struct.pack("<IQ", inner, len(items)) + b"".join(items)
    return draw(st.binary(min_size=(n := struct.calcsize(_NUMBERS[kind])), max_size=n))


@st.composite
def ggufs(draw: st.DrawFn) -> Gguf:
    """Any sound one, as llama.cpp takes it: tensors one after the other, padded with zeros."""
    types = [GGML_TYPES_BY_NAME[name] for name in ("F32", "F16", "Q4_0", "Q6_K", "I8", "TQ2_0")]
    tensors = []
    for i in range(draw(st.integers(2, 9))):
        kind = draw(st.sampled_from(types))
        shape = (kind.block * draw(st.integers(1, 3)), *draw(st.lists(st.integers(1, 3), max_size=2)))
        tensors.append((f"t{i}", shape, kind))
    names = draw(st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=6))
    keys = {name: draw(values()) for name in names if not name.startswith(("split.", "general."))}
    return Gguf(
        keys,
        tensors,
        version=draw(st.sampled_from([2, 3])),
        alignment=draw(st.sampled_from([8, 32, 64, 256])),
        seed=draw(st.integers(0, 5)),
    )
