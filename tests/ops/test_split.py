"""Shards: there and back byte for byte, whoever wrote the file, and what cannot be split or merged says why."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.backends.llamacpp import engine
from slmkit.core.progress import SILENT
from slmkit.errors import CannotWriteError, DiskFullError, GgufError, UsageError
from slmkit.formats.gguf.header import read_header
from slmkit.formats.gguf.model import open_model
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, ValueType
from slmkit.ops.merge import merge
from slmkit.ops.split import split
from slmkit.registry import atomic
from tests.ops.ggufs import Gguf, ggufs, text

F32, Q8_0 = GGML_TYPES_BY_NAME["F32"], GGML_TYPES_BY_NAME["Q8_0"]
PLAIN = Gguf({"general.architecture": struct.pack("<I", ValueType.STRING) + text("llama")}, [])


def of(*sizes: int, **changes: object) -> Gguf:
    """Tensors of F32 with that many weights."""
    return replace(PLAIN, tensors=[(f"t{i}", (n,), F32) for i, n in enumerate(sizes)], **changes)  # type: ignore[arg-type]


def contents(path: Path) -> dict[str, bytes]:
    return {t.name: b"".join(t.pieces(100)) for t in open_model(path).tensors}


@settings(max_examples=50, deadline=None)
@given(gguf=ggufs(), data=st.data())
def test_merging_what_was_split_gives_the_same_bytes(
    gguf: Gguf, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("split")
    source = gguf.write(folder / "x.gguf")
    most = data.draw(st.integers(1, len(gguf.tensors) - 1), label="tensors in a shard")
    report = split(source, folder / "y", max_tensors=most)
    assert report.changes == ()
    assert len(report.files) == -(-len(gguf.tensors) // most)
    again = split(report.first, folder / "z", max_bytes=1)  # shards of shards
    assert len(again.files) == len(gguf.tensors)
    for shard in (report.first, folder / again.files[-1].name):
        merged = merge(shard, folder / "merged.gguf", force=True)
        assert (folder / "merged.gguf").read_bytes() == source.read_bytes()
        assert merged.file.sha256 == atomic.sha256(source)
    shutil.rmtree(folder)


def test_what_killed_ones_left_beside_it_goes(tmp_path: Path) -> None:
    """No process can have the first number; the second is this one, which lives."""
    source = of(3, 5).write(tmp_path / "x.gguf")
    mine = tmp_path / f"{atomic.PARTIAL}{os.getpid()}-y"
    theirs = tmp_path / f"{atomic.PARTIAL}notes"
    mine.mkdir()
    theirs.touch()
    for run in (
        lambda: split(source, tmp_path / "y", max_tensors=1),
        lambda: merge(tmp_path / "y-00001-of-00002.gguf", tmp_path / "z.gguf"),
    ):
        left = tmp_path / f"{atomic.PARTIAL}{2**22 + 1}-y"
        left.mkdir()
        (left / "half.gguf").write_bytes(b"half")
        left.with_name(f"{left.name}.gguf").write_bytes(b"half")
        run()
        assert set(tmp_path.glob(f"{atomic.PARTIAL}*")) == {mine, theirs}


@pytest.mark.parametrize(
    ("gguf", "why"),
    [
        (of(3, 5, filler=7), "padded with zeros"),
        (of(8, 5, padded_end=False), "padded with zeros"),
        (of(3, 5, keys={"split.count": struct.pack("<IH", ValueType.UINT16, 0)}), "earlier merge"),
    ],
)
def test_where_the_bytes_cannot_be_the_same_the_tensors_are(gguf: Gguf, why: str, tmp_path: Path) -> None:
    source = gguf.write(tmp_path / "x.gguf")
    report = split(source, tmp_path / "y", max_tensors=1)
    assert why in report.changes[0]
    merge(report.first, tmp_path / "z.gguf")
    assert contents(tmp_path / "z.gguf") == contents(source)
    assert not split(tmp_path / "z.gguf", tmp_path / "again", max_tensors=1).changes


def test_more_bytes_at_the_end(tmp_path: Path) -> None:
    source = of(8, 8).write(tmp_path / "x.gguf")
    source.write_bytes(source.read_bytes() + b"more")
    assert "more bytes" in split(source, tmp_path / "y", max_tensors=1).changes[0]


def test_a_shard_is_full_when_the_next_tensor_does_not_fit(tmp_path: Path) -> None:
    source = of(9, 8, 8, 64, 8).write(tmp_path / "x.gguf")  # 64, 32, 32, 256, 32 bytes with padding
    report = split(source, tmp_path / "y", max_bytes=96)
    shards = [read_header(tmp_path / file.name) for file in report.files]
    assert [len(shard.tensors) for shard in shards] == [2, 1, 1, 1]
    assert [file.name for file in report.files] == [f"y-{n:05d}-of-00004.gguf" for n in range(1, 5)]
    for i, shard in enumerate(shards):
        assert (shard.metadata["split.no"], shard.metadata["split.count"]) == (i, 4)
        assert shard.metadata["split.tensors.count"] == 5
        assert shard.value_types["split.tensors.count"] is ValueType.INT32
    assert "general.architecture" not in shards[1].metadata
    assert report.size_bytes == sum((tmp_path / file.name).stat().st_size for file in report.files)


def test_an_alignment_of_its_own_is_that_of_every_shard(tmp_path: Path) -> None:
    report = split(of(3, 5, 7, alignment=128).write(tmp_path / "x.gguf"), tmp_path / "y", max_tensors=1)
    assert [read_header(tmp_path / file.name).alignment for file in report.files] == [128] * 3


@pytest.mark.parametrize(
    ("option", "max_bytes", "max_tensors"),
    [(("--split-max-size", "2M"), 2_000_000, None), (("--split-max-tensors", "5"), None, 5)],
)
def test_shards_are_those_of_llama_gguf_split(
    f16: Path,
    tmp_path: Path,
    llama_tools: Path,
    option: tuple[str, str],
    max_bytes: int | None,
    max_tensors: int | None,
) -> None:
    tool = llama_tools / "llama-gguf-split"
    subprocess.run([tool, "--split", *option, f16, tmp_path / "theirs"], check=True, capture_output=True)
    report = split(f16, tmp_path / "ours", max_bytes=max_bytes, max_tensors=max_tensors)
    theirs = sorted(tmp_path.glob("theirs-*"))
    assert len(theirs) == len(report.files) > 1
    assert [path.read_bytes() for path in theirs] == [(tmp_path / file.name).read_bytes() for file in report.files]
    subprocess.run([tool, "--merge", report.first, tmp_path / "merged.gguf"], check=True, capture_output=True)
    assert contents(tmp_path / "merged.gguf") == contents(f16)


def test_shards_load_and_decode(f16: Path, tmp_path: Path) -> None:
    report = split(f16, tmp_path / "y", max_tensors=5)
    assert engine.smoke(report.first).text == engine.smoke(f16).text


# ------------------------------------------------------------------ what is refused


def test_limits_that_make_no_sense(tmp_path: Path) -> None:
    source = of(8, 8).write(tmp_path / "x.gguf")
    for limit in (None, 1):
        with pytest.raises(UsageError, match="one limit"):
            split(source, tmp_path / "y", max_bytes=limit, max_tensors=limit)
    with pytest.raises(UsageError, match="nothing to split"):
        split(source, tmp_path / "y", max_tensors=2)
    with pytest.raises(UsageError, match="nothing to merge"):
        merge(source, tmp_path / "y.gguf")


@pytest.mark.parametrize("name", ["y.gguf", "y-00001-of-00002"])
def test_prefixes_that_would_confuse(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no beginning"):
        split(of(8, 8).write(tmp_path / "x.gguf"), tmp_path / name, max_tensors=1)


@pytest.mark.parametrize("name", ["y", "y-00001-of-00002.gguf"])
def test_names_that_are_none_for_a_whole_file(name: str, tmp_path: Path) -> None:
    report = split(of(8, 8).write(tmp_path / "x.gguf"), tmp_path / "y", max_tensors=1)
    with pytest.raises(UsageError, match="no name for a whole GGUF"):
        merge(report.first, tmp_path / name, force=True)


def test_what_is_there_stays_unless_forced(tmp_path: Path) -> None:
    source = of(8, 8).write(tmp_path / "x.gguf")
    (tmp_path / "y-00002-of-00002.gguf").write_text("mine")
    (tmp_path / "z.gguf").write_text("mine")
    with pytest.raises(CannotWriteError, match="y-00002-of-00002"):
        split(source, tmp_path / "y", max_tensors=1)
    assert not (tmp_path / "y-00001-of-00002.gguf").exists()
    report = split(source, tmp_path / "y", max_tensors=1, force=True)
    with pytest.raises(CannotWriteError, match=r"z\.gguf"):
        merge(report.first, tmp_path / "z.gguf")
    assert (tmp_path / "z.gguf").read_text() == "mine"
    merge(report.first, tmp_path / "z.gguf", force=True)
    assert contents(tmp_path / "z.gguf") == contents(source)


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    report = split(of(8, 8, 8).write(tmp_path / "x.gguf"), tmp_path / "y", max_tensors=1)
    return [tmp_path / file.name for file in report.files]


def test_a_missing_shard_is_named(shards: list[Path], tmp_path: Path) -> None:
    shards[1].unlink()
    with pytest.raises(GgufError, match="y-00002-of-00003"):
        merge(shards[0], tmp_path / "z.gguf")
    assert not (tmp_path / "z.gguf").exists()


def test_shards_of_other_models(shards: list[Path], tmp_path: Path) -> None:
    saved = shards[2].read_bytes()
    total = b"split.tensors.count\x05\x00\x00\x00"
    shards[2].write_bytes(saved.replace(total + b"\x03", total + b"\x04"))
    with pytest.raises(GgufError, match="is not of the same model"):
        merge(shards[0], tmp_path / "z.gguf")
    other = split(of(8, 8, 8, 8).write(tmp_path / "x4.gguf"), tmp_path / "other", max_tensors=2)
    shutil.copyfile(other.first, shards[2])
    with pytest.raises(GgufError, match="says that it is one of 2 shards"):
        merge(shards[0], tmp_path / "z.gguf")


def test_shards_that_changed_their_names(shards: list[Path], tmp_path: Path) -> None:
    one, two = shards[1].read_bytes(), shards[2].read_bytes()
    shards[1].write_bytes(two)
    shards[2].write_bytes(one)
    with pytest.raises(GgufError, match="is number 1 by its name"):
        merge(shards[0], tmp_path / "z.gguf")
    alone = shutil.copyfile(shards[0], tmp_path / "renamed.gguf")
    with pytest.raises(GgufError, match="one of 3 shards, and 1 is here"):
        merge(alone, tmp_path / "z.gguf")


def test_the_same_shard_twice(shards: list[Path], tmp_path: Path) -> None:
    number = b"split.no\x02\x00\x00\x00"
    shards[2].write_bytes(shards[1].read_bytes().replace(number + b"\x01", number + b"\x02"))
    with pytest.raises(GgufError, match="`t1` twice"):
        merge(shards[0], tmp_path / "z.gguf")


def test_a_file_of_ordinary_name_that_is_no_shard(tmp_path: Path) -> None:
    for no in (1, 2):
        of(8).write(tmp_path / f"x-{no:05d}-of-00002.gguf")
    with pytest.raises(GgufError, match="does not say that it is a shard"):
        merge(tmp_path / "x-00001-of-00002.gguf", tmp_path / "z.gguf")


# ------------------------------------------------------------------ nothing half written


def test_a_full_disk_is_known_before(shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(DiskFullError, match="10 B free"):
        split(tmp_path / "x.gguf", tmp_path / "new" / "y", max_tensors=1)
    with pytest.raises(DiskFullError, match="10 B free"):
        merge(shards[0], tmp_path / "z.gguf")
    assert not (tmp_path / "new").exists()


def test_what_is_interrupted_leaves_nothing(shards: list[Path], tmp_path: Path) -> None:
    class Interrupted:
        def __getattr__(self, name: str) -> object:
            return getattr(SILENT, name)

        def task(self, *_: object, **__: object) -> object:
            raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    for run in (
        lambda: split(tmp_path / "x.gguf", tmp_path / "new", max_tensors=1, progress=Interrupted()),  # type: ignore[arg-type]
        lambda: merge(shards[0], tmp_path / "z.gguf", progress=Interrupted()),  # type: ignore[arg-type]
    ):
        with pytest.raises(KeyboardInterrupt):
            run()
        assert sorted(tmp_path.iterdir()) == before
