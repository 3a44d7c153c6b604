"""Collecting by the real llama.cpp, beside its own llama-imatrix and llama-quantize.

Both add squares in float32, in another order: llama-imatrix all rows one after the other to a sum that grows, slmkit
each chunk by itself. Of sums of n equal numbers the first may be off by some n**0.5 * 6e-8, so single columns differ by
up to `MOST` after some chunks, and half of all matrices by less than `USUAL` in their worst column.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmkit.backends.llamacpp.child import Event, run
from slmkit.backends.llamacpp.imatrix import Collected, collect
from slmkit.backends.llamacpp.quantize import dry_run, quantize
from slmkit.core.imatrix import CHECK_EVERY, Calibration
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.quantize import ImatrixFile, QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.errors import EngineError, UsageError
from slmkit.formats.gguf.header import read_header
from slmkit.formats.imatrix import Imatrix, read, write
from slmkit.ops import corpora
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests.convert.families import granitemoe

MOST, USUAL = 2e-4, 2e-5
N_CHUNKS = 4
TEXT = corpora.corpus().text[:40_000]


def collected(model: Path, target: Path, text: str = TEXT, n_chunks: int | None = N_CHUNKS) -> Collected:
    return collect(
        model,
        target,
        Calibration("text.txt", text),
        state=target.with_name("state.gguf"),
        subject="this",
        n_chunks=n_chunks,
        n_threads=2,
        progress=SILENT,
    )


def theirs(tools: Path, model: Path, folder: Path, *options: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    target = folder / ("theirs.dat" if "dat" in options else "theirs.gguf")
    command = [tools / "llama-imatrix", "-m", model, "-f", "text.txt", "-o", target.name, "-t", "2", "--no-ppl"]
    command += ["--chunks", str(N_CHUNKS), *options]
    subprocess.run([*map(str, command)], cwd=folder, check=True, capture_output=True, timeout=250)
    return target


def assert_near(ours: Imatrix, other: Imatrix) -> None:
    assert ours.entries.keys() == other.entries.keys()
    assert (ours.n_chunks, ours.chunk_size, ours.datasets) == (other.n_chunks, other.chunk_size, other.datasets)
    worst = []
    for name, entry in ours.entries.items():
        assert np.array_equal(entry.counts, other.entries[name].counts), name
        assert entry.sums.shape == other.entries[name].sums.shape, name
        scale = np.maximum(other.entries[name].sums, 1e-20)
        worst.append(float((np.abs(entry.sums - other.entries[name].sums) / scale).max()))
    assert max(worst) < MOST
    assert np.median(worst) < USUAL


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with 40 experts, of which some are never asked."""
    folder = tmp_path_factory.mktemp("moe")
    checkpoint = granitemoe._granitemoe(folder / "tiny-moe", num_local_experts=40, num_experts_per_tok=3)
    target = folder / "moe.gguf"
    verbs.convert(ModelRef("path", str(checkpoint)), Session(Registry(folder / "home"), SILENT), target=target)
    return target


@pytest.fixture(scope="module")
def dense(f16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The importance matrix of the tiny model."""
    target = tmp_path_factory.mktemp("dense") / "ours.gguf"
    collected(f16, target)
    return target


def test_it_is_what_llama_imatrix_makes(f16: Path, dense: Path, llama_tools: Path, tmp_path: Path) -> None:
    other = theirs(llama_tools, f16, tmp_path)
    assert_near(read(dense), read(other))
    assert [t.name for t in read_header(dense).tensors] == [t.name for t in read_header(other).tensors]
    assert_near(read(dense), read(theirs(llama_tools, f16, tmp_path, "-b", "512")))


def test_experts_are_what_llama_imatrix_makes_of_them(moe: Path, llama_tools: Path, tmp_path: Path) -> None:
    collected(moe, tmp_path / "ours.gguf")
    ours = read(tmp_path / "ours.gguf")
    assert_near(ours, read(theirs(llama_tools, moe, tmp_path)))
    experts = ours.entries["blk.0.ffn_down_exps.weight"]
    assert experts.sums.shape[0] == len(experts.counts) == 40
    assert experts.counts.sum() == N_CHUNKS * 512 * 3


def test_their_files_are_read_and_written_byte_for_byte(f16: Path, llama_tools: Path, tmp_path: Path) -> None:
    other = theirs(llama_tools, f16, tmp_path)
    write(tmp_path / "again.gguf", read(other))
    assert (tmp_path / "again.gguf").read_bytes() == other.read_bytes()
    older = read(theirs(llama_tools, f16, tmp_path, "--output-format", "dat"))
    for name, entry in read(other).entries.items():
        assert np.allclose(older.entries[name].means, entry.means, rtol=1e-6)


@pytest.mark.parametrize("name", ["IQ2_XXS", "Q4_K_M", "Q2_K_S", "IQ4_XS"])
def test_quants_are_those_of_llama_quantize(
    name: str, f16: Path, dense: Path, llama_tools: Path, tmp_path: Path
) -> None:
    spec = QuantizeSpec(imatrix=ImatrixFile("ours", dense, ""))
    quant = QUANT_TYPES[name]
    made = quantize(f16, tmp_path / "ours.gguf", quant, n_threads=2, progress=SILENT, spec=spec)
    command = [llama_tools / "llama-quantize", "--imatrix", dense.name, f16, tmp_path / "theirs.gguf", name]
    subprocess.run([*map(str, command)], cwd=dense.parent, check=True, capture_output=True, timeout=200)
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
    (planned,) = dry_run(f16, [(quant, spec)])
    assert not isinstance(planned, EngineError)
    assert planned.needs_imatrix == (name in ("IQ2_XXS", "Q2_K_S"))
    assert planned.types == made.types
    metadata = read_header(tmp_path / "ours.gguf").metadata
    assert metadata["quantize.imatrix.file"] == "ours.gguf"
    assert metadata["quantize.imatrix.dataset"] == "text.txt"
    assert metadata["quantize.imatrix.chunks_count"] == N_CHUNKS


def test_experts_are_quantized_as_by_llama_quantize(moe: Path, llama_tools: Path, tmp_path: Path) -> None:
    collected(moe, tmp_path / "im.gguf")
    spec = QuantizeSpec(imatrix=ImatrixFile("im", tmp_path / "im.gguf", ""))
    quantize(moe, tmp_path / "ours.gguf", QUANT_TYPES["IQ4_NL"], n_threads=2, progress=SILENT, spec=spec)
    command = [llama_tools / "llama-quantize", "--imatrix", "im.gguf", moe, "theirs.gguf", "IQ4_NL"]
    subprocess.run([*map(str, command)], cwd=tmp_path, check=True, capture_output=True, timeout=200)
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


class _EnoughError(Exception):
    pass


def job(model: Path, folder: Path) -> dict[str, Any]:
    """What a child is asked, but for how much and when it saves: `x.gguf` in the folder, by way of `state.gguf`."""
    return {
        "path": str(model),
        "text": TEXT,
        "dataset": "text.txt",
        "target": str(folder / "x.gguf"),
        "state": str(folder / "state.gguf"),
        "subject": "this",
        "n_threads": 2,
    }


@pytest.mark.parametrize("n_chunks", [CHECK_EVERY + 3, 2 * CHECK_EVERY])
def test_a_run_that_was_killed_goes_on_and_ends_in_the_same_bytes(n_chunks: int, f16: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    whole = collected(f16, tmp_path / "a" / "x.gguf", n_chunks=n_chunks)
    begun = 0

    def stop(event: Event, _: int) -> None:
        nonlocal begun
        begun += event["event"] == "chunk"
        if begun == CHECK_EVERY + 2:
            raise _EnoughError  # the child is killed

    arguments = {**job(f16, tmp_path), "n_chunks": n_chunks, "save_every_s": 1e9}
    with pytest.raises(_EnoughError):
        run("imatrix", arguments, listen=stop)
    assert read(tmp_path / "state.gguf").n_chunks == CHECK_EVERY
    done: list[int] = []

    def look(event: Event, _: int) -> None:
        if event["event"] == "text":
            done.append(event["done"])

    result = run("imatrix", arguments, listen=look)
    assert done == [CHECK_EVERY]
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "a" / "x.gguf").read_bytes()
    assert tuple(result["moved"]) == whole.moved
    assert "slmkit.state" not in read_header(tmp_path / "x.gguf").metadata

    run("imatrix", {**arguments, "subject": "another", "n_chunks": 2}, listen=look)
    run("imatrix", {**arguments, "n_chunks": 2}, listen=look)  # fewer than were saved
    assert done == [CHECK_EVERY, 0, 0]
    assert read(tmp_path / "x.gguf").n_chunks == 2


@pytest.mark.parametrize("n_saved", [1, CHECK_EVERY - 1, CHECK_EVERY, CHECK_EVERY + 2])
def test_a_run_goes_on_from_any_chunk_and_ends_in_the_same_bytes(n_saved: int, f16: Path, tmp_path: Path) -> None:
    """What a look compares with is saved, too."""
    (tmp_path / "a").mkdir()
    n_chunks = 2 * CHECK_EVERY + 1
    whole = collected(f16, tmp_path / "a" / "x.gguf", n_chunks=n_chunks)
    arguments = {**job(f16, tmp_path), "save_every_s": 0}
    run("imatrix", {**arguments, "n_chunks": n_saved}, listen=lambda event, pid: None)
    assert read(tmp_path / "state.gguf").n_chunks == n_saved
    done: list[int] = []

    def look(event: Event, _: int) -> None:
        if event["event"] == "text":
            done.append(event["done"])

    result = run("imatrix", {**arguments, "n_chunks": n_chunks}, listen=look)
    assert done == [n_saved]
    assert tuple(result["moved"]) == whole.moved
    assert len(whole.moved) == 2
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "a" / "x.gguf").read_bytes()


def test_a_damaged_state_is_not_gone_on_with(f16: Path, dense: Path, tmp_path: Path) -> None:
    (tmp_path / "state.gguf").write_bytes(b"GGUF damaged")
    collected(f16, tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == dense.read_bytes()


def test_it_ends_when_little_changes(f16: Path, tmp_path: Path) -> None:
    """The same words again and again: what a chunk adds is what the chunks before had."""
    result = collected(
        f16, tmp_path / "x.gguf", text="the one that all there were of him and her\n" * 4000, n_chunks=99
    )
    assert result.reason == "settled"
    assert result.n_chunks < 99
    assert len(result.moved) == result.n_chunks // CHECK_EVERY


def test_a_short_text_is_refused(f16: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the text text\.txt is \d+ tokens long"):
        collected(f16, tmp_path / "x.gguf", text="too short")
    assert not (tmp_path / "x.gguf").exists()


def test_an_engine_with_another_layout_is_refused() -> None:
    code = (
        "from slmkit.backends.llamacpp import tensors\n"
        "tensors.check_layout()\n"
        "fields = list(tensors.Tensor._fields_)\n"
        "fields.insert(3, ('more', tensors.ctypes.c_int64))\n"
        "Other = type('Other', (tensors.ctypes.Structure,), {'_fields_': fields, 'values': tensors.Tensor.values})\n"
        "Other.at = classmethod(lambda cls, address: cls.from_address(address))\n"
        "tensors.Tensor = Other\n"
        "try:\n"
        "    tensors.check_layout()\n"
        "except tensors.NativeError as error:\n"
        "    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "lays its tensors out in another way" in found.stdout
