from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmkit.formats.gguf.difference import first_difference
from slmkit.formats.gguf.header import read_header
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Entry, Value, string, write_gguf

F32, F16 = GGML_TYPES_BY_NAME["F32"], GGML_TYPES_BY_NAME["F16"]
BASE = {"general.architecture": string("llama"), "general.name": string("one")}


def written(
    path: Path, metadata: dict[str, Value] | None = None, tensors: dict[str, tuple[Entry, bytes]] | None = None
) -> Path:
    chosen = TENSORS if tensors is None else tensors
    write_gguf(path, metadata or BASE, [entry for entry, _ in chosen.values()], [data for _, data in chosen.values()])
    return path


def tensor(name: str, n: int, *, half: bool = False) -> tuple[Entry, bytes]:
    kind = F16 if half else F32
    return Entry(name, (n,), kind), bytes(kind.size_bytes(n))


TENSORS = {"a": tensor("a", 8), "b": tensor("b", 33), "c": tensor("c", 300_000)}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"metadata": {**BASE, "general.name": string("two")}}, "metadata general.name"),
        ({"metadata": {**BASE, "general.url": string("x")}}, "metadata general.url"),
        ({"metadata": dict(reversed(BASE.items()))}, "the order of the metadata"),
        ({"tensors": {"a": TENSORS["a"], "b": TENSORS["b"]}}, "tensor c is in one only"),
        ({"tensors": {**TENSORS, "b": tensor("b", 33, half=True)}}, "tensor b: F32 [33], F16 [33]"),
        ({}, None),
    ],
)
def test_it_is_said_in_words(tmp_path: Path, other: dict[str, dict[str, object]], expected: str | None) -> None:
    left = written(tmp_path / "left.gguf")
    right = written(tmp_path / "right.gguf", **other)  # type: ignore[arg-type]
    assert first_difference(left, right) == expected
    assert (first_difference(right, left) is None) is (expected is None)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_one_flipped_byte_is_found_wherever_it_is(tmp_path: Path, data: st.DataObject) -> None:
    left, right = written(tmp_path / "left.gguf"), tmp_path / "right.gguf"
    header = read_header(left)
    content = bytearray(left.read_bytes())
    at = data.draw(st.integers(header.data_offset, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    right.write_bytes(content)
    inside = [
        (t, at - begin)
        for t in header.tensors
        for begin in (header.data_offset + t.offset,)
        if begin <= at < begin + t.size_bytes
    ]
    if inside:
        ((t, position),) = inside
        assert first_difference(left, right) == f"tensor {t.name} (F32), at byte {position:,} of {t.size_bytes:,}"
    else:
        assert first_difference(left, right) == f"byte {at:,} of the file"


def test_bytes_after_the_last_tensor(tmp_path: Path) -> None:
    left = written(tmp_path / "left.gguf")
    right = tmp_path / "right.gguf"
    right.write_bytes(left.read_bytes() + b"x")
    assert first_difference(left, right) == f"byte {left.stat().st_size:,} of the file"
