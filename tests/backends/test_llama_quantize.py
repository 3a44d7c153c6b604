"""What slmkit makes is, byte for byte, what llama-quantize of the same source makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from slmkit.backends.llamacpp.quantize import DryRun, Order, dry_run, quantize, quantize_together
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.quantize import Override, QuantizeSpec, Rule
from slmkit.formats.gguf.header import read_header
from slmkit.registry.atomic import sha256

PLAIN = QuantizeSpec()
PLAINLY = [(quant, PLAIN) for quant in QUANT_TYPES.values()]
OPTIONS: list[tuple[str, QuantizeSpec, list[str]]] = [
    (
        "Q4_K_M",
        QuantizeSpec(rules=(Rule("ffn_down", "Q6_K"), Rule(r"attn_[kv]\.weight", "Q8_0"))),
        ["--tensor-type", "ffn_down=q6_k", "--tensor-type", r"attn_[kv]\.weight=q8_0"],
    ),
    ("Q4_0", QuantizeSpec(output_type="Q8_0"), ["--output-tensor-type", "q8_0"]),
    ("Q4_0", QuantizeSpec(embedding_type="Q5_1"), ["--token-embedding-type", "q5_1"]),
    ("Q4_K_M", QuantizeSpec(pure=True), ["--pure"]),
    ("Q4_K_M", QuantizeSpec(leave_output=True), ["--leave-output-tensor"]),
    ("Q8_0", QuantizeSpec(prune_layers=(0,)), ["--prune-layers", "0"]),
    (
        "Q8_0",
        QuantizeSpec(overrides=(Override("llama.context_length", 77), Override("general.name", "x"))),
        ["--override-kv", "llama.context_length=int:77", "--override-kv", "general.name=str:x"],
    ),
    ("IQ4_XS", QuantizeSpec(max_buffer_bytes=1 << 20), []),
]


def needs_imatrix(answer: object) -> bool:
    assert isinstance(answer, DryRun)
    return answer.needs_imatrix


def same(llama_tools: Path, source: Path, folder: Path, name: str, spec: QuantizeSpec, arguments: list[str]) -> None:
    theirs, ours = folder / "theirs.gguf", folder / "ours.gguf"
    command = [str(llama_tools / "llama-quantize"), *arguments, str(source), str(theirs), name, "2"]
    subprocess.run(command, check=True, capture_output=True)
    quantize(source, ours, QUANT_TYPES[name], n_threads=1, progress=SILENT, spec=spec)
    assert sha256(ours) == sha256(theirs), name


def test_every_type_is_llama_quantizes(llama_tools: Path, f16: Path, tmp_path: Path) -> None:
    n_same = 0
    for quant, answer in zip(QUANT_TYPES.values(), dry_run(f16, PLAINLY), strict=True):
        if not needs_imatrix(answer):
            same(llama_tools, f16, tmp_path, quant.name, PLAIN, [])
            n_same += 1
    assert n_same > 25


@pytest.mark.parametrize(("name", "spec", "arguments"), OPTIONS)
def test_every_option_is_llama_quantizes(
    llama_tools: Path, f16: Path, tmp_path: Path, name: str, spec: QuantizeSpec, arguments: list[str]
) -> None:
    same(llama_tools, f16, tmp_path, name, spec, arguments)


def test_types_that_are_made_together_are_llama_quantizes(llama_tools: Path, f16: Path, tmp_path: Path) -> None:
    """One pass over the source for all of them, in pieces of a few rows, by several threads."""
    names = [q.name for q, a in zip(QUANT_TYPES.values(), dry_run(f16, PLAINLY), strict=True) if not needs_imatrix(a)]
    orders = [
        Order(tmp_path / f"{name}.gguf", QUANT_TYPES[name], QuantizeSpec(max_buffer_bytes=30_000)) for name in names
    ]
    results = quantize_together(f16, orders, n_threads=3, progress=SILENT)
    for name, order, result in zip(names, orders, results, strict=True):
        theirs = tmp_path / "theirs.gguf"
        subprocess.run(
            [str(llama_tools / "llama-quantize"), str(f16), str(theirs), name], check=True, capture_output=True
        )
        assert sha256(order.target) == sha256(theirs), name
        assert dict(result.types) == {tensor.name: tensor.type.name for tensor in read_header(theirs).tensors}
