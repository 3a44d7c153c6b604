"""Shards: the bytes of llama.cpp's converter with `--split-max-size`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slmkit.core.convert import split_size
from slmkit.formats.gguf.header import read_header, shards
from slmkit.ops.convert import convert
from tests.convert.golden import SPLIT, describe, golden


def test_shards_are_those_of_upstream(make_case: Callable[[str], Path], tmp_path: Path) -> None:
    name, outtype, most = SPLIT
    target = tmp_path / "out" / f"{name}.gguf"
    target.parent.mkdir()
    report = convert(make_case(name), target, outtype=outtype, split_max_bytes=split_size(most))
    wanted = golden(f"{name}-{outtype}-split-{most}")
    assert [file.name for file in report.files] == sorted(p.name for p in target.parent.iterdir()) == list(wanted)
    assert {path.name: describe(path) for path in target.parent.iterdir()} == wanted
    assert [file.sha256 for file in report.files] == [part["file_sha256"] for part in wanted.values()]
    assert report.size_bytes == sum(path.stat().st_size for path in target.parent.iterdir())


def test_what_fits_is_not_split(make_case: Callable[[str], Path], tmp_path: Path) -> None:
    report = convert(make_case("tiny-llama"), tmp_path / "x.gguf", outtype="f16", split_max_bytes=2**30)
    assert [file.name for file in report.files] == ["x.gguf"]
    assert report.sha256 == golden("tiny-llama-f16")["file_sha256"]


def test_a_tensor_is_never_split(make_case: Callable[[str], Path], tmp_path: Path) -> None:
    report = convert(make_case("tiny-llama"), tmp_path / "x.gguf", outtype="f16", split_max_bytes=1)
    assert len(report.files) == report.n_tensors == 21
    found = shards(tmp_path / report.files[0].name)
    assert [len(read_header(path).tensors) for path in found] == [1] * 21
