"""Our GGUF writer against gguf-py's reader and writer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmkit.errors import GgufError
from slmkit.formats.gguf.header import read_header
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, ValueType
from slmkit.formats.gguf.writer import (
    Entry,
    Value,
    boolean,
    f32,
    f32s,
    file_size,
    i32s,
    string,
    strings,
    u32,
    write_gguf,
)

F32 = GGML_TYPES_BY_NAME["F32"]
TEXT = st.text(max_size=20)
FLOATS = st.floats(width=32, allow_nan=False)
INTS = st.integers(-(2**31), 2**31 - 1)
VALUES = st.one_of(
    st.integers(0, 2**32 - 1).map(u32),
    FLOATS.map(f32),
    st.booleans().map(boolean),
    TEXT.map(string),
    st.lists(TEXT, min_size=1, max_size=5).map(strings),
    st.lists(INTS, min_size=1, max_size=5).map(i32s),
    st.lists(FLOATS, min_size=1, max_size=5).map(f32s),
    st.integers(0, 2**64 - 1).map(lambda n: Value(ValueType.UINT64, n)),
)
ON_DISK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@ON_DISK
@given(st.dictionaries(st.text(min_size=1, max_size=12), VALUES, max_size=6), st.lists(st.integers(1, 9), max_size=3))
def test_what_is_written_is_read_by_both_readers(tmp_path: Path, values: dict[str, Value], sizes: list[int]) -> None:
    path = tmp_path / "a.gguf"
    metadata = {"general.architecture": string("llama")} | {f"x.{key}": value for key, value in values.items()}
    arrays = [np.arange(n * 3, dtype=np.float32).reshape(n, 3) for n in sizes]
    entries = [Entry(f"t{i}", a.shape, F32) for i, a in enumerate(arrays)]
    written = write_gguf(path, metadata, entries, (a.data for a in arrays))
    data = path.read_bytes()
    assert written.sha256 == hashlib.sha256(data).hexdigest()
    assert written.size_bytes == len(data) == file_size(metadata, entries)
    wanted = {key: value.value for key, value in metadata.items()}
    assert read_header(path).metadata == wanted
    if arrays:
        reader = GGUFReader(path)
        assert {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")} == wanted
        assert [t.data.tolist() for t in reader.tensors] == [a.tolist() for a in arrays]


def test_the_same_bytes_as_gguf_py(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    tokens, scores, types = ["a", "ü", "▁the"], [0.0, -1.5, -2.0], [1, 2, 3]
    first, second = np.ones((5, 64), np.float32), np.zeros((3, 7), np.float16)
    writer = GGUFWriter(theirs, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.eps", 1e-5)
    writer.add_bool("x", True)
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_tensor("a", first)
    writer.add_tensor("b", second)
    writer.add_tensor("c", np.zeros((2, 34), np.uint8), raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = {
        "general.architecture": string("llama"),
        "llama.block_count": u32(2),
        "llama.eps": f32(1e-5),
        "x": boolean(True),
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.scores": f32s(scores),
        "tokenizer.ggml.token_type": i32s(types),
    }
    shapes = {"a": ((5, 64), "F32"), "b": ((3, 7), "F16"), "c": ((2, 32), "Q8_0")}
    entries = [Entry(name, shape, GGML_TYPES_BY_NAME[kind]) for name, (shape, kind) in shapes.items()]
    write_gguf(ours, metadata, entries, [first[:2].data, first[2:].data, second.data, bytes(68)])
    assert ours.read_bytes() == theirs.read_bytes()


def _wrong(value: Any) -> list[Value]:
    return [string(value), strings([value])]


@pytest.mark.parametrize("value", [u32(-1), u32(2**32), i32s([2**31]), *_wrong(3), *_wrong(None)])
def test_values_that_do_not_fit(tmp_path: Path, value: Value) -> None:
    with pytest.raises(GgufError, match="`k` cannot be stored"):
        write_gguf(tmp_path / "a", {"k": value}, [], [])


@pytest.mark.parametrize("chunks", [[], [bytes(8)], [bytes(20)], [bytes(8), bytes(16)], [bytes(16), bytes(1)]])
def test_data_must_be_as_long_as_the_table_says(tmp_path: Path, chunks: list[bytes]) -> None:
    with pytest.raises(GgufError):
        write_gguf(tmp_path / "a", {}, [Entry("t", (2, 2), F32)], chunks)
