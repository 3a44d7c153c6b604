"""Where two GGUFs begin to differ, for people: a metadata key, the table of tensors, or a tensor's weights."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from slmkit.formats.gguf.header import GgufHeader, TensorInfo, check_structure

_CHUNK_BYTES = 1 << 20


def first_difference(left: Path, right: Path) -> str | None:
    """In words, or `None` for files with the same bytes; raises `GgufError` for a damaged one."""
    a, b = check_structure(left), check_structure(right)
    return _metadata(a, b) or _table(a, b) or _weights(a, b) or _rest(left, right)


def _metadata(a: GgufHeader, b: GgufHeader) -> str | None:
    for key in dict.fromkeys((*a.metadata, *b.metadata)):
        if key not in a.metadata or key not in b.metadata or a.metadata[key] != b.metadata[key]:
            return f"metadata {key}"
    return None if list(a.metadata) == list(b.metadata) else "the order of the metadata"


def _table(a: GgufHeader, b: GgufHeader) -> str | None:
    for x, y in zip_longest(a.tensors, b.tensors):
        if x is None or y is None:
            return f"tensor {(x or y).name} is in one only"
        if x != y:
            return f"tensor {x.name}: {_described(x)}, {_described(y)}"
    return None


def _described(tensor: TensorInfo) -> str:
    return f"{tensor.type.name} {list(tensor.shape)}"


def _weights(a: GgufHeader, b: GgufHeader) -> str | None:
    with a.path.open("rb") as left, b.path.open("rb") as right:
        for tensor in a.tensors:
            left.seek(a.data_offset + tensor.offset)
            right.seek(b.data_offset + tensor.offset)
            for start in range(0, tensor.size_bytes, _CHUNK_BYTES):
                length = min(_CHUNK_BYTES, tensor.size_bytes - start)
                x, y = left.read(length), right.read(length)
                if x != y:
                    at = next(i for i, (p, q) in enumerate(zip(x, y, strict=True)) if p != q)
                    return f"tensor {tensor.name} ({tensor.type.name}), at byte {start + at:,} of {tensor.size_bytes:,}"
    return None


def _rest(left: Path, right: Path) -> str | None:
    """What belongs to no tensor and no value: how values are stored, what fills the gaps, what comes after."""
    with left.open("rb") as a, right.open("rb") as b:
        position = 0
        while True:
            x, y = a.read(_CHUNK_BYTES), b.read(_CHUNK_BYTES)
            if x != y:
                at = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
                return f"byte {position + at:,} of the file"
            if not x:
                return None
            position += len(x)
