"""A GGUF without its weights: the real header, byte for byte, and a hole."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmkit.errors import GgufError
from slmkit.formats.gguf.header import read_header
from slmkit.formats.gguf.hollow import Hollow, read_hollow
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, ValueType
from slmkit.formats.gguf.writer import Entry, Value, string, u32, write_gguf
from slmkit.ops.convert import convert


def test_the_header_is_the_files_own_and_the_rest_a_hole(f16: Path, tmp_path: Path) -> None:
    hollow = read_hollow(f16)
    hollow.write(tmp_path / "hollow.gguf")
    n = read_header(f16).data_offset
    assert (tmp_path / "hollow.gguf").read_bytes()[:n] == f16.read_bytes()[:n]
    assert hollow.size_bytes == f16.stat().st_size == (tmp_path / "hollow.gguf").stat().st_size
    assert (tmp_path / "hollow.gguf").stat().st_blocks * 512 < f16.stat().st_size / 10
    assert not any((tmp_path / "hollow.gguf").read_bytes()[n:])


def test_shards_are_one_file_without_their_numbers(checkpoint: Path, f16: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "x.gguf", model_id="local/tiny-llama", split_max_bytes=600_000)
    shards = sorted(tmp_path.glob("*.gguf"))
    assert len(shards) > 2
    assert read_hollow(shards[1]).size_bytes == read_hollow(f16).size_bytes
    shards[2].unlink()
    with pytest.raises(GgufError, match="lacks 1 of"):
        read_hollow(shards[0])


def test_without_vocabulary_only_the_tokens_are_missing(f16: Path) -> None:
    whole, small = read_hollow(f16), read_hollow(f16).without_vocabulary()
    gone = {key for key in whole.metadata if key not in small.metadata}
    assert gone
    assert all(key.startswith("tokenizer.") for key in gone)
    assert (small.entries, small.metadata["llama.vocab_size"].value) == (whole.entries, 512)
    assert small.metadata["tokenizer.ggml.model"].value == "no_vocab"


def _write(path: Path, **metadata: Value) -> Path:
    entry = Entry("x", (32,), GGML_TYPES_BY_NAME["F32"])
    write_gguf(path, {key.replace("__", "."): value for key, value in metadata.items()}, [entry], [bytes(128)])
    return path


def test_every_kind_of_value_comes_back(tmp_path: Path) -> None:
    values = {
        "general__architecture": string("llama"),
        "a": Value(ValueType.ARRAY, [1, 2], ValueType.UINT16),
        "b": Value(ValueType.ARRAY, [True, False], ValueType.BOOL),
        "c": Value(ValueType.ARRAY, ["x", ""], ValueType.STRING),
        "d": Value(ValueType.FLOAT64, 0.5),
        "e": Value(ValueType.ARRAY, [], ValueType.FLOAT32),
    }
    path = _write(tmp_path / "x.gguf", **values)
    read_hollow(path).write(tmp_path / "y.gguf")
    assert (tmp_path / "y.gguf").read_bytes() == path.read_bytes()
    assert list(read_hollow(path).metadata.values()) == list(values.values())


def test_what_cannot_be_planned_with_is_refused(tmp_path: Path) -> None:
    other = _write(tmp_path / "x.gguf", general__architecture=string("llama"), general__alignment=u32(64))
    with pytest.raises(GgufError, match="alignment of 64 bytes"):
        read_hollow(other)
    write_gguf(tmp_path / "none.gguf", {"general.architecture": string("llama")}, [], [])
    with pytest.raises(GgufError, match="no tensors"):
        read_hollow(tmp_path / "none.gguf")
    (tmp_path / "cut.gguf").write_bytes(other.read_bytes()[:40])
    with pytest.raises(GgufError, match="damaged"):
        read_hollow(tmp_path / "cut.gguf")


def test_sums() -> None:
    entries = [Entry("a", (3, 32), GGML_TYPES_BY_NAME["Q4_0"]), Entry("b", (7,), GGML_TYPES_BY_NAME["F32"])]
    hollow = Hollow({"general.architecture": string("x")}, entries)
    assert (hollow.n_params, hollow.weights_bytes, hollow.bpw) == (103, 3 * 18 + 28, 8 * 82 / 103)
