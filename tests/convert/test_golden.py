"""Our files against those of llama.cpp's own converter: whole files where their digest is known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from slmkit.ops.convert import architectures, convert
from tests.convert.families import cases
from tests.convert.golden import describe, golden
from tests.factories import split_shards

PAIRS = [(name, outtype) for name, case in cases().items() for outtype in case.outtypes]


def check(checkpoint: Path, outtype: str, target: Path, name: str) -> str:
    """The same file; where it is not, or no digest of one is known, the first difference in it."""
    report = convert(checkpoint, target, outtype=outtype)
    wanted = golden(name)
    assert report.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert report.size_bytes == target.stat().st_size
    if report.sha256 == wanted.get("file_sha256"):
        return report.architecture
    found = describe(target)
    assert found["metadata"] == wanted["metadata"]
    assert found["tensors"] == wanted["tensors"]
    assert list(found["metadata"]) == list(wanted["metadata"])
    assert list(found["tensors"]) == list(wanted["tensors"])
    assert "file_sha256" not in wanted or "tokenizer.chat_templates" in found["metadata"]  # upstream's order is random
    return report.architecture


@pytest.mark.parametrize(("name", "outtype"), PAIRS)
def test_tiny(name: str, outtype: str, make_case: Callable[[str], Path], tmp_path: Path) -> None:
    check(make_case(name), outtype, tmp_path / "out.gguf", f"{name}-{outtype}")


@pytest.mark.parametrize("outtype", ["f16", "bf16", "q8_0"])
def test_smollm2(outtype: str, smollm2: Path, tmp_path: Path) -> None:
    check(smollm2, outtype, tmp_path / "out.gguf", f"smollm2-135m-{outtype}")


def test_smollm2_in_two_shards(smollm2: Path, tmp_path: Path) -> None:
    folder = split_shards(smollm2, tmp_path / "smollm2-135m-2shard", 2)
    check(folder, "f16", tmp_path / "out.gguf", "smollm2-135m-2shard-f16")


def test_without_the_index_shards_are_found_by_name(make_case: Callable[[str], Path], tmp_path: Path) -> None:
    folder = split_shards(make_case("tiny-llama"), tmp_path / "b" / "tiny-llama", 3)
    (folder / "model.safetensors.index.json").unlink()
    convert(folder, tmp_path / "out.gguf", outtype="f16")
    assert describe(tmp_path / "out.gguf")["tensors"] == golden("tiny-llama-f16")["tensors"]


def test_every_architecture_has_golden_data_and_a_forward_pass() -> None:
    proven = {
        golden(f"{name}-{case.outtypes[0]}")["metadata"]["general.architecture"]["value"]: case.forward
        for name, case in cases().items()
        if case.forward and case.outtypes
    }
    assert proven.keys() == {found.name for found in architectures().values()}
