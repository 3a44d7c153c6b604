"""Quantizing by the real llama.cpp: its dry run says what it then does, for every type and option."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slmkit.backends.llamacpp.quantize import DryRun, dry_run, quantize
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.quantize import Override, QuantizeSpec, Rule
from slmkit.errors import EngineError, UsageError
from slmkit.formats.gguf.header import read_header
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Entry, string, write_gguf

Q4_0, Q4_K_M = QUANT_TYPES["Q4_0"], QUANT_TYPES["Q4_K_M"]


def planned(source: Path, name: str, spec: QuantizeSpec | None = None) -> DryRun:
    (answer,) = dry_run(source, [(QUANT_TYPES[name], spec or QuantizeSpec())])
    assert isinstance(answer, DryRun)
    return answer


def made(source: Path, target: Path, name: str, spec: QuantizeSpec | None = None) -> dict[str, str]:
    result = quantize(source, target, QUANT_TYPES[name], n_threads=2, progress=SILENT, spec=spec or QuantizeSpec())
    types = {tensor.name: tensor.type.name for tensor in read_header(target).tensors}
    assert dict(result.types) == types
    return types


def test_the_dry_run_of_every_type_is_what_is_then_made(f16: Path, tmp_path: Path) -> None:
    answers = dry_run(f16, [(quant, QuantizeSpec()) for quant in QUANT_TYPES.values()])
    for quant, answer in zip(QUANT_TYPES.values(), answers, strict=True):
        assert isinstance(answer, DryRun)
        if not answer.needs_imatrix:
            assert answer.types == made(f16, tmp_path / f"{quant}.gguf", quant.name), quant


@pytest.mark.parametrize(
    ("spec", "name", "kind"),
    [
        (QuantizeSpec(rules=(Rule("ffn_down", "Q6_K"), Rule("ffn", "Q3_K"))), "blk.1.ffn_down.weight", "Q6_K"),
        (QuantizeSpec(rules=(Rule("ffn_down", "Q6_K"), Rule("ffn", "Q3_K"))), "blk.1.ffn_up.weight", "Q3_K"),
        (QuantizeSpec(output_type="Q8_0"), "output.weight", "Q8_0"),
        (QuantizeSpec(embedding_type="Q5_1"), "token_embd.weight", "Q5_1"),
        (QuantizeSpec(pure=True), "output.weight", "Q4_K"),
        (QuantizeSpec(leave_output=True), "output.weight", "F16"),
    ],
)
def test_an_option_decides_the_type(f16: Path, tmp_path: Path, spec: QuantizeSpec, name: str, kind: str) -> None:
    assert planned(f16, "Q4_K_M", spec).types[name] == kind
    assert made(f16, tmp_path / "x.gguf", "Q4_K_M", spec)[name] == kind


def test_layers_are_pruned_and_values_overridden(f16: Path, tmp_path: Path) -> None:
    overrides = (
        Override("llama.context_length", 77),
        Override("llama.rope.freq_base", 5.5),
        Override("tokenizer.ggml.add_bos_token", False),
        Override("general.name", "another"),
    )
    made(f16, tmp_path / "x.gguf", "Q8_0", QuantizeSpec(prune_layers=(0,), overrides=overrides))
    header = read_header(tmp_path / "x.gguf")
    assert {t.name.split(".")[1] for t in header.tensors if t.name.startswith("blk.")} == {"0"}
    assert header.hyper("block_count") == 1
    assert [header.metadata[o.key] for o in overrides] == [o.value for o in overrides]


def test_a_bounded_buffer_changes_no_byte(f16: Path, tmp_path: Path) -> None:
    made(f16, tmp_path / "a.gguf", "Q4_K_M")
    made(f16, tmp_path / "b.gguf", "Q4_K_M", QuantizeSpec(max_buffer_bytes=10_000))
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


HELD = """
import sys, threading, tracemalloc
from pathlib import Path
from slmkit.backends.llamacpp import one_pass
from slmkit.formats.gguf.model import open_model

def anonymous():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10

def watch():
    while not done.wait(0.001):
        peaks.append(anonymous())

def write(max_buffer_bytes):
    types = {tensor.name: "Q4_0" for tensor in source.tensors}
    target = one_pass.Target(Path(folder) / "made.gguf", 2, types, max_buffer_bytes=max_buffer_bytes)
    one_pass.write(source, [target], 2, lambda n_bytes: None)

folder, bound = sys.argv[1], int(sys.argv[2]) or None
source = open_model(Path(folder) / "source.gguf")
write(bound)  # what is allocated once
before, peaks, done = anonymous(), [0], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
write(bound)
done.set()
watcher.join()
tracemalloc.start()
write(bound)
print(tracemalloc.get_traced_memory()[1], max(peaks) - before)
"""
"""What writing a Q4_0 holds: bytes that Python and numpy have allocated, and how much anonymous memory grows."""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous memory from mapped files")
@pytest.mark.parametrize(("bound", "most"), [(0, 4 << 20), (1 << 20, 1 << 20), (64 << 10, 64 << 10)])
def test_memory_is_bounded_whatever_the_size_of_a_tensor(bound: int, most: int, tmp_path: Path) -> None:
    """A matrix of 64 MiB. Beside the buffers: the interpreter's own 128 KiB, as traced, and pages that malloc keeps."""
    shape = (32768, 1024)
    weights = np.random.default_rng(1).standard_normal(shape).astype(np.float16)
    entries = [Entry("blk.0.ffn_up.weight", shape, GGML_TYPES_BY_NAME["F16"])]
    write_gguf(tmp_path / "source.gguf", {"general.architecture": string("llama")}, entries, [weights.tobytes()])
    command = [sys.executable, "-c", HELD, str(tmp_path), str(bound)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    traced, grown = map(int, done.stdout.split())
    assert traced < most + (128 << 10)
    assert grown < 12 << 20


def test_quantized_sources_are_refused_unless_allowed(f16: Path, tmp_path: Path) -> None:
    made(f16, tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(EngineError, match="requantizing from type q8_0 is disabled"):
        made(tmp_path / "q8.gguf", tmp_path / "x.gguf", "Q4_0")
    types = made(tmp_path / "q8.gguf", tmp_path / "x.gguf", "Q4_0", QuantizeSpec(allow_requantize=True))
    assert types["blk.0.ffn_up.weight"] == "Q4_0"


@pytest.mark.parametrize("make", [lambda: Rule("ffn(", "Q6_K"), lambda: Rule("", "Q6_K"), lambda: Override("", 1)])
def test_what_cannot_be_meant_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(UsageError):
        make()


def test_a_spec_comes_back_from_its_parameters() -> None:
    spec = QuantizeSpec(
        rules=(Rule("a", "Q6_K"),),
        output_type="Q8_0",
        embedding_type="Q5_1",
        pure=True,
        leave_output=True,
        keep_split=True,
        prune_layers=(1, 3),
        overrides=(Override("k", 1.5),),
        allow_requantize=True,
    )
    assert QuantizeSpec.of({"type": "Q4_0", **spec.parameters}) == spec
    assert not QuantizeSpec().parameters
