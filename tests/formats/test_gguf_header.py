from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmkit.errors import GgufError
from slmkit.formats.gguf.header import check_structure, read_header, shards
from slmkit.formats.gguf.types import GGML_TYPES, ValueType


def test_the_type_table_is_that_of_the_gguf_package() -> None:
    theirs = {t.value: (t.name, *gguf.GGML_QUANT_SIZES[t]) for t in gguf.GGMLQuantizationType}
    ours = {t.id: (t.name, t.block, t.block_bytes) for t in GGML_TYPES.values()}
    assert {k: ours[k] for k in theirs} == theirs
    assert {v.name: v.value for v in ValueType} == {v.name: v.value for v in gguf.GGUFValueType}


def test_it_reads_what_the_gguf_package_reads(f16: Path) -> None:
    header, reader = read_header(f16), gguf.GGUFReader(f16)
    theirs = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert header.metadata == theirs
    assert [(t.name, t.shape, t.type.name, t.size_bytes, header.data_offset + t.offset) for t in header.tensors] == [
        (t.name, tuple(t.shape.tolist()), t.tensor_type.name, t.n_bytes, t.data_offset) for t in reader.tensors
    ]
    assert header.n_params == sum(int(t.n_elements) for t in reader.tensors)
    assert sum(header.params_by_type.values()) == header.n_params


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(data=st.data())
def test_no_cut_and_no_flipped_byte_makes_anything_but_a_clear_error(
    f16: Path, tmp_path: Path, data: st.DataObject
) -> None:
    whole = f16.read_bytes()
    end_of_header = read_header(f16).data_offset
    damaged = bytearray(whole[:end_of_header])
    if data.draw(st.booleans(), label="cut"):
        del damaged[data.draw(st.integers(0, end_of_header - 1)) :]
    for _ in range(data.draw(st.integers(0, 4), label="flips")):
        if damaged:
            damaged[data.draw(st.integers(0, min(len(damaged), 4000) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged)
    try:
        read_header(path)
    except GgufError as error:
        assert str(path) in error.message


def test_a_file_cut_short_names_the_tensor(f16: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(f16.read_bytes()[:-1000])
    last = max(read_header(f16).tensors, key=lambda t: t.offset)
    with pytest.raises(GgufError, match=last.name):
        check_structure(cut)
    assert check_structure(f16).tensors


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04 a zip file, say"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(GgufError, match=r"x\.gguf"):
        read_header(path)


def test_a_missing_file_and_a_missing_shard(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="cannot read"):
        read_header(tmp_path / "no.gguf")
    first = tmp_path / "m-00001-of-00002.gguf"
    first.touch()
    with pytest.raises(GgufError, match="m-00002-of-00002"):
        shards(first)
    second = tmp_path / "m-00002-of-00002.gguf"
    second.touch()
    assert shards(second) == [first, second]


def test_microsofts_bitnet_type_is_explained(f16: Path, tmp_path: Path) -> None:
    raw = bytearray(f16.read_bytes())
    name = read_header(f16).tensors[0].name.encode()
    at = raw.index(len(name).to_bytes(8, "little") + name) + 8 + len(name)
    n_dims = int.from_bytes(raw[at : at + 4], "little")
    raw[at + 4 + 8 * n_dims] = 36
    path = tmp_path / "i2_s.gguf"
    path.write_bytes(raw)
    with pytest.raises(GgufError, match="i2_s"):
        read_header(path)
