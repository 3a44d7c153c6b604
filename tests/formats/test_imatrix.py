"""Importance matrices on disk: what is written comes back, llama.cpp's own come in, damaged ones are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmkit.errors import ImatrixError
from slmkit.formats.gguf.header import read_header
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Entry, string, strings, u32, write_gguf
from slmkit.formats.imatrix import Imatrix, Importance, read, write


@st.composite
def imatrices(draw: st.DrawFn) -> Imatrix:
    entries = {}
    for name in draw(st.sets(st.text(min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=4)):
        n_matrices, n_columns = draw(st.integers(1, 4)), draw(st.integers(1, 9))
        values = st.floats(0, 2.0**100, width=32, allow_subnormal=False)
        sums = draw(st.lists(values, min_size=n_matrices * n_columns, max_size=n_matrices * n_columns))
        counts = draw(st.lists(st.integers(0, 2**24), min_size=n_matrices, max_size=n_matrices))
        shaped = np.array(sums, np.float32).reshape(n_matrices, n_columns)
        entries[f"{name}.weight"] = Importance(shaped, np.array(counts, np.int64))
    datasets = tuple(draw(st.lists(st.text(max_size=9), max_size=3)))
    return Imatrix(entries, datasets, draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**32 - 1)))


def assert_same(a: Imatrix, b: Imatrix) -> None:
    assert (a.datasets, a.n_chunks, a.chunk_size, a.state) == (b.datasets, b.n_chunks, b.chunk_size, b.state)
    assert set(a.entries) == set(b.entries)
    for name, entry in a.entries.items():
        assert np.array_equal(entry.sums, b.entries[name].sums)
        assert np.array_equal(entry.counts, b.entries[name].counts)


SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SHARED
@given(imatrix=imatrices())
def test_what_is_written_comes_back(imatrix: Imatrix, tmp_path: Path) -> None:
    write(tmp_path / "x.gguf", imatrix)
    assert_same(read(tmp_path / "x.gguf"), imatrix)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("imatrix") / "x.gguf"
    sums = np.arange(12, dtype=np.float32).reshape(2, 6)
    entry = Importance(sums, np.array([3, 4]))
    write(path, Imatrix({"blk.0.a.weight": entry}, ("text",), 7, 512, {"moved": [0.1]}))
    return path.read_bytes()


@SHARED
@given(at=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_is_an_error(small: bytes, at: float, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(small[: int(at * (len(small) - 31))])  # the last bytes are padding
    with pytest.raises(ImatrixError, match=r"x\.gguf"):
        read(path)


@SHARED
@given(at=st.integers(0), byte=st.integers(0, 255))
def test_a_changed_byte_is_an_error_or_changes_no_shape(small: bytes, at: int, byte: int, tmp_path: Path) -> None:
    data = bytearray(small)
    data[at % len(data)] = byte
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    try:
        found = read(path)
    except ImatrixError:
        return
    for entry in found.entries.values():
        assert entry.sums.shape[0] == entry.counts.shape[0]
        assert np.isfinite(entry.means).all()


@pytest.mark.parametrize("count", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_a_count_that_is_none_is_damage(small: bytes, count: float, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(small)
    header = read_header(path)
    counts = next(tensor for tensor in header.tensors if tensor.name.endswith(".counts"))
    data = bytearray(small)
    struct.pack_into("<f", data, header.data_offset + counts.offset, count)
    path.write_bytes(data)
    with pytest.raises(ImatrixError, match="not finite"):
        read(path)


def test_means_are_what_the_quantizer_takes() -> None:
    entry = Importance(np.array([[2, 4], [9, 9]], np.float32), np.array([2, 0]))
    assert entry.means.tolist() == [[1, 2], [1, 1]]  # an expert that was never asked weighs all alike


def legacy(*entries: tuple[str, int, list[float]], tail: bytes = b"") -> bytes:
    out = struct.pack("<i", len(entries))
    for name, n_calls, values in entries:
        data = name.encode()
        out += struct.pack("<i", len(data)) + data + struct.pack("<ii", n_calls, len(values))
        out += struct.pack(f"<{len(values)}f", *values)
    return out + tail


def test_the_older_form(tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes(legacy(("blk.0.a.weight", 4, [2.0, 8.0]), tail=struct.pack("<ii", 4, 3) + b"abc"))
    found = read(path)
    assert found.entries["blk.0.a.weight"].means.tolist() == [[0.5, 2.0]]
    assert (found.n_chunks, found.chunk_size, found.datasets) == (4, 0, ("abc",))
    path.write_bytes(legacy(("blk.0.a.weight", 0, [2.0, 8.0])))
    assert read(path).entries["blk.0.a.weight"].means.tolist() == [[2.0, 8.0]]


@SHARED
@given(data=st.binary(max_size=60))
def test_other_bytes_are_an_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes(b"\xff" + data)
    with pytest.raises(ImatrixError):
        read(path)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_numbers_that_cannot_be_are_refused(value: float, tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes(legacy(("blk.0.a.weight", 4, [2.0, value])))
    with pytest.raises(ImatrixError, match=r"blk\.0\.a\.weight is negative or not finite"):
        read(path)


def test_a_gguf_that_is_none_says_so(f16: Path, tmp_path: Path) -> None:
    with pytest.raises(ImatrixError, match="no importance matrix: it lacks"):
        read(f16)
    metadata = {"imatrix.datasets": strings([]), "imatrix.chunk_count": u32(1), "imatrix.chunk_size": u32(1)}
    path = tmp_path / "x.gguf"
    write_gguf(path, {**metadata, "general.type": string("imatrix")}, [], [])
    with pytest.raises(ImatrixError, match="no entries"):
        read(path)
    sums = Entry("a.in_sum2", (2,), GGML_TYPES_BY_NAME["F32"])
    write_gguf(path, metadata, [sums], [bytes(8)])
    with pytest.raises(ImatrixError, match="a has no sums or no counts"):
        read(path)
    with pytest.raises(ImatrixError, match="cannot read"):
        read(tmp_path / "missing.gguf")
    with pytest.raises(ImatrixError, match="has no entries"):
        write(path, Imatrix({}, (), 0, 512))
