"""What slmkit makes is, byte for byte, what llama-quantize of the same source makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from slmkit.backends.llamacpp.quantize import DryRun, dry_run, quantize
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.quantize import Override, QuantizeSpec, Rule
from slmkit.registry.atomic import sha256

PLAIN = QuantizeSpec()
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


def same(llama_tools: Path, source: Path, folder: Path, name: str, spec: QuantizeSpec, arguments: list[str]) -> None:
    theirs, ours = folder / "theirs.gguf", folder / "ours.gguf"
    command = [str(llama_tools / "llama-quantize"), *arguments, str(source), str(theirs), name, "2"]
    subprocess.run(command, check=True, capture_output=True)
    quantize(source, ours, QUANT_TYPES[name], n_threads=1, progress=SILENT, spec=spec)
    assert sha256(ours) == sha256(theirs), name


def test_every_type_is_llama_quantizes(llama_tools: Path, f16: Path, tmp_path: Path) -> None:
    n_same = 0
    for quant, answer in zip(
        QUANT_TYPES.values(), dry_run(f16, [(q, PLAIN) for q in QUANT_TYPES.values()]), strict=True
    ):
        assert isinstance(answer, DryRun)
        if not answer.needs_imatrix:
            same(llama_tools, f16, tmp_path, quant.name, PLAIN, [])
            n_same += 1
    assert n_same > 25


@pytest.mark.parametrize(("name", "spec", "arguments"), OPTIONS)
def test_every_option_is_llama_quantizes(
    llama_tools: Path, f16: Path, tmp_path: Path, name: str, spec: QuantizeSpec, arguments: list[str]
) -> None:
    same(llama_tools, f16, tmp_path, name, spec, arguments)
