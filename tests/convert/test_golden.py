"""Our files against those of llama.cpp's own converter: whole files where their digest is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmkit.ops.convert import convert
from tests.convert.cases import BORROWED, CASES
from tests.convert.golden import describe, golden
from tests.factories import split_shards

PAIRS = [(name, outtype) for name, (_, outtypes) in CASES.items() for outtype in outtypes]


def check(checkpoint: Path, outtype: str, target: Path, name: str) -> None:
    report = convert(checkpoint, target, outtype=outtype)
    found, wanted = describe(target), golden(name)
    assert report.sha256 == found["file_sha256"]
    assert report.size_bytes == target.stat().st_size
    assert found["metadata"] == wanted["metadata"]
    assert found["tensors"] == wanted["tensors"]
    assert list(found["metadata"]) == list(wanted["metadata"])
    assert list(found["tensors"]) == list(wanted["tensors"])
    if "file_sha256" in wanted and "tokenizer.chat_templates" not in found["metadata"]:
        assert found["file_sha256"] == wanted["file_sha256"]


@pytest.mark.parametrize(("name", "outtype"), PAIRS)
def test_tiny(name: str, outtype: str, tmp_path: Path) -> None:
    make, _ = CASES[name]
    check(make(tmp_path / name), outtype, tmp_path / "out.gguf", f"{name}-{outtype}")


@pytest.mark.parametrize("name", BORROWED)
def test_tiny_with_a_real_tokenizer(name: str, smollm2: Path, tmp_path: Path) -> None:
    check(BORROWED[name](tmp_path / name, smollm2), "f16", tmp_path / "out.gguf", f"{name}-f16")


@pytest.mark.parametrize("outtype", ["f16", "bf16", "q8_0"])
def test_smollm2(outtype: str, smollm2: Path, tmp_path: Path) -> None:
    check(smollm2, outtype, tmp_path / "out.gguf", f"smollm2-135m-{outtype}")


def test_smollm2_in_two_shards(smollm2: Path, tmp_path: Path) -> None:
    folder = split_shards(smollm2, tmp_path / "smollm2-135m-2shard", 2)
    check(folder, "f16", tmp_path / "out.gguf", "smollm2-135m-2shard-f16")


def test_without_the_index_shards_are_found_by_name(tmp_path: Path) -> None:
    make, _ = CASES["tiny-llama"]
    whole = make(tmp_path / "a" / "tiny-llama")
    folder = split_shards(whole, tmp_path / "b" / "tiny-llama", 3)
    (folder / "model.safetensors.index.json").unlink()
    convert(folder, tmp_path / "out.gguf", outtype="f16")
    assert describe(tmp_path / "out.gguf")["tensors"] == golden("tiny-llama-f16")["tensors"]
