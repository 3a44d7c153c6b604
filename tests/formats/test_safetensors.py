"""The safetensors reader and writer: round trips, and every way a file can be broken."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmkit.errors import SafetensorsError
from slmkit.formats.safetensors import DTYPES, INDEX_NAME, Entry, read_checkpoint, read_file, write_file

SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=3).map(tuple)
NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name.isprintable() and name != "__metadata__")
ON_DISK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(begin: int = 0, end: int = 4, dtype: str = "F32", shape: Any = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@ON_DISK
@given(st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(sorted(DTYPES))), max_size=5), st.integers(1, 4))
def test_what_is_written_is_read(tmp_path: Path, tensors: dict[str, Any], rows: int) -> None:
    rng = np.random.default_rng(0)
    data = {
        name: rng.integers(0, 2, shape).astype(DTYPES[dtype]).reshape(shape) for name, (shape, dtype) in tensors.items()
    }
    path = tmp_path / "a.safetensors"
    write_file(path, [Entry(n, tensors[n][1], tensors[n][0], [array]) for n, array in data.items()])
    found = read_file(path)
    assert list(found) == sorted(tensors)
    for name, tensor in found.items():
        assert (tensor.dtype, tensor.shape) == (tensors[name][1], tensors[name][0])
        parts = list(tensor.chunks(rows))
        assert b"".join(part.tobytes() for part in parts) == data[name].tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"GGUF", "4 bytes"),
        (struct.pack("<Q", 10**11) + b"{}", "header would have 100,000,000,000 bytes"),
        (struct.pack("<Q", 100) + b"{}", "ends inside its header"),
        (struct.pack("<Q", 2) + b"{{", "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "not an object"),
        (struct.pack("<Q", 20_000) + b"[" * 20_000, "not JSON"),
        (struct.pack("<Q", 15) + b'{"a":1, "a": 2}', "'a' occurs twice"),
        (struct.pack("<Q", 3) + b'"\xff"', "not JSON"),
    ],
)
def test_no_header(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(SafetensorsError, match=message) as caught:
        read_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry()}, b"123", "ends inside tensor `a`"),
        ({"a": entry()}, b"12345", "1 bytes belong to no tensor"),
        ({"a": entry(), "b": entry(2, 6)}, b"123456", "`b` overlaps"),
        ({"a": entry(), "b": entry()}, b"1234", "overlaps"),
        ({"a": entry(), "b": entry(8, 12)}, bytes(12), "preceded by bytes"),
        ({"a": entry(shape=(2,))}, b"1234", "needs 8 bytes and has 4"),
        ({"a": entry(end=-4)}, b"", "needs 4 bytes and has -4"),
        ({"a": entry(begin=-4, end=0)}, b"", "needs 4 bytes"),
        ({"a": entry(dtype="F4")}, b"1234", "unknown dtype 'F4'"),
        ({"a": entry(shape=(-1,))}, b"1234", "makes no sense"),
        ({"a": entry(shape=(True,))}, b"1234", "makes no sense"),
        ({"a": {"dtype": "F32"}}, b"", "makes no sense"),
        ({"a": 3}, b"", "makes no sense"),
        ({"a": entry(0, 0, shape=(0, 1 << 63))}, b"", "makes no sense"),
        ({"a": entry(shape=(1,) * 9)}, b"1234", "makes no sense"),
        ({"a": entry(1 << 63, (1 << 63) + 4)}, b"1234", "makes no sense"),
        ({"a": entry(shape=(1 << 62, 1 << 62))}, b"1234", "needs 8507.* bytes"),
        ({"a\x1b[2J": entry()}, b"1234", "name of tensor 'a.x1b"),
        ({"a\ud800": entry()}, b"1234", "name of tensor 'a.ud800"),
    ],
)
def test_bad_tables(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    with pytest.raises(SafetensorsError, match=message):
        read_file(raw(tmp_path / "bad.safetensors", header, data))


@ON_DISK
@given(st.binary(max_size=200), st.integers(0, 300))
def test_damage_is_never_a_traceback(tmp_path: Path, noise: bytes, at: int) -> None:
    path = tmp_path / "a.safetensors"
    write_file(path, [Entry("x", "F32", (4, 4), [np.zeros((4, 4), np.float32)])])
    content = bytearray(path.read_bytes())
    content[at : at + len(noise)] = noise
    path.write_bytes(content)
    try:
        for tensor in read_file(path).values():
            list(tensor.chunks(1))
    except SafetensorsError:
        pass


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_file(path, [Entry("x", "F32", (4,), [np.zeros(4, np.float32)])])
    tensor = read_file(path)["x"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SafetensorsError, match="ends inside tensor `x`"):
        list(tensor.chunks(2))


def test_wrong_amount_of_data(tmp_path: Path) -> None:
    with pytest.raises(SafetensorsError, match="12 bytes instead of 16"):
        write_file(tmp_path / "a", [Entry("x", "F32", (4,), [np.zeros(3, np.float32)])])


def _shard(folder: Path, name: str, *tensors: str) -> None:
    write_file(folder / name, [Entry(t, "F32", (1,), [np.zeros(1, np.float32)]) for t in tensors])


def test_shards(tmp_path: Path) -> None:
    _shard(tmp_path, "model-00002-of-00002.safetensors", "a")
    _shard(tmp_path, "model-00001-of-00002.safetensors", "c", "b")
    assert list(read_checkpoint(tmp_path)) == ["b", "c", "a"]
    index = {t: f"model-0000{n}-of-00002.safetensors" for t, n in (("a", 2), ("b", 1), ("c", 1))}
    (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": index}))
    assert list(read_checkpoint(tmp_path)) == ["b", "c", "a"]
    (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": {**index, "d": index["a"]}}))
    with pytest.raises(SafetensorsError, match="disagree on 1 tensors: d"):
        read_checkpoint(tmp_path)
    (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": {**index, "d": "model-3.safetensors"}}))
    with pytest.raises(SafetensorsError, match=r"lacks 1 of 3 shards: model-3\.safetensors"):
        read_checkpoint(tmp_path)
    paths = ["../x", "/etc/x", "a/b", "a\x00b", "a\ud800", 3, None]
    bad: list[Any] = [*({"weight_map": {"a": path}} for path in paths), {"weight_map": 3}, {}, []]
    for wrong in [*map(json.dumps, bad), "{", "[" * 100_000, '{"weight_map": ' + '{"a":' * 50_000]:
        (tmp_path / INDEX_NAME).write_text(wrong)
        with pytest.raises(SafetensorsError, match="index"):
            read_checkpoint(tmp_path)


def test_the_same_tensor_in_two_shards(tmp_path: Path) -> None:
    _shard(tmp_path, "model-1.safetensors", "a")
    _shard(tmp_path, "model-2.safetensors", "a")
    with pytest.raises(SafetensorsError, match=r"`a` is in both model-1\.safetensors and model-2\.safetensors"):
        read_checkpoint(tmp_path)
