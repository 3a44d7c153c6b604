"""Checkpoints of known families that llama.cpp would run as another model: refused from config.json, or told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmkit.errors import ConvertError, UnclaimedTensorsError, UnsupportedArchError
from slmkit.formats.gguf.header import read_header
from slmkit.ops.convert import check_supported, convert
from tests.convert.families.bitnet import make_bitnet
from tests.convert.families.phi2 import make_phi2
from tests.convert.families.phi3 import longrope, make_phi3
from tests.convert.families.qwen3 import make_qwen3
from tests.convert.families.qwen3moe import make_qwen3moe
from tests.convert.families.smollm3 import make_smollm3
from tests.convert.notes import Warnings
from tests.convert.test_errors import configure, refused, rewrite

LINEAR = {"rope_type": "linear", "factor": 2.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONG = longrope(64)["rope_scaling"]
GELU = "`hidden_act` is 'gelu', and llama.cpp runs"

REFUSED: list[tuple[Callable[..., Path], dict[str, Any], str]] = [
    (make_qwen3, {"hidden_act": "gelu"}, GELU),
    (make_qwen3, {"attention_bias": True}, "`attention_bias` is True, and llama.cpp runs qwen3 only with False"),
    (make_qwen3, {"partial_rotary_factor": 0.5}, "llama.cpp rotates whole heads in qwen3"),
    (make_qwen3, {"num_key_value_heads": 3}, "4 heads of 64 for 3 of k make no sense"),
    (make_qwen3, {"head_dim": 63}, "4 heads of 63"),
    (make_qwen3, {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "`dynamic` rope scaling"),
    (make_qwen3, {"_name_or_path": "Qwen/Qwen3-Reranker-0.6B"}, "is a reranker"),
    (make_qwen3moe, {"norm_topk_prob": False}, "`norm_topk_prob` is False, and llama.cpp runs qwen3moe only with True"),
    (make_qwen3moe, {"norm_topk_prob": ...}, "`norm_topk_prob` is False"),
    (make_qwen3moe, {"mlp_only_layers": [1]}, r"`mlp_only_layers` is \[1\]"),
    (make_qwen3moe, {"decoder_sparse_step": 2}, "`decoder_sparse_step` is 2"),
    (make_smollm3, {"hidden_act": "gelu"}, GELU),
    (make_smollm3, {"mlp_bias": True}, "`mlp_bias` is True"),
    (make_smollm3, {"attention_bias": True}, "`attention_bias` is True"),
    (make_smollm3, {"no_rope_layers": [1, 1, 0, 1, 1]}, "each fourth, and llama.cpp knows only that pattern"),
    (make_smollm3, {"no_rope_layers": [1, 1, 1, 0]}, "knows only that pattern"),
    (make_smollm3, {"no_rope_layers": ..., "no_rope_layer_interval": 2}, "knows only that pattern"),
    (make_smollm3, {"no_rope_layers": "all"}, "`no_rope_layers` must be a list"),
    (make_smollm3, {"rope_scaling": LLAMA3}, "`llama3` rope scaling for smollm3"),
    (make_smollm3, {"partial_rotary_factor": 0.5}, "rotates whole heads in smollm3"),
    (make_phi2, {"hidden_act": "gelu"}, GELU),
    (make_phi2, {"qk_layernorm": True}, "`qk_layernorm` is True"),
    (make_phi2, {"tie_word_embeddings": True}, "`tie_word_embeddings` is True"),
    (make_phi2, {"partial_rotary_factor": 0.05}, "a `partial_rotary_factor` of 0.05 splits no head"),
    (make_phi2, {"rope_scaling": LINEAR}, "`linear` rope scaling for phi2"),
    (make_phi2, {"head_dim": 32}, "runs no phi2 of width 128 with 2 heads of 32"),
    (make_phi3, {"hidden_act": "gelu"}, GELU),
    (make_phi3, {"head_dim": 32}, "runs no phi3 of width 256 with 4 heads of 32"),
    (make_phi3, {"partial_rotary_factor": 0.27}, "a `partial_rotary_factor` of 0.27 splits no head"),
    (make_phi3, {"rope_scaling": LINEAR}, "`linear` rope scaling for phi3"),
    (
        make_phi3,
        {"rope_scaling": {**LONG, "long_factor": [1.0]}},
        "`long_factor` of the rope scaling must be 32 numbers",
    ),
    (
        make_phi3,
        {"rope_scaling": {**LONG, "short_factor": ["a"] * 32}},
        "`short_factor` of the rope scaling must be 32",
    ),
    (make_phi3, {"rope_scaling": {"type": "longrope"}}, "`long_factor`"),
    (make_bitnet, {"hidden_act": "relu2"}, "`hidden_act` is 'relu2'"),
    (make_bitnet, {"weight_bits": 2}, "`weight_bits` is 2"),
    (make_bitnet, {"rope_scaling": LINEAR}, "`linear` rope scaling for bitnet"),
    (make_bitnet, {"head_dim": 32}, "runs no bitnet of width 256 with 4 heads of 32"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[..., Path]], Path]:
    """One folder for each family: what is refused here is refused before weights are looked at."""
    found: dict[Callable[..., Path], Path] = {}

    def folder(make: Callable[..., Path]) -> Path:
        if make not in found:
            found[make] = make(tmp_path_factory.mktemp("made") / "checkpoint")
        return found[make]

    return folder


@pytest.mark.parametrize(("make", "changes", "match"), REFUSED)
def test_refused_from_the_config(
    make: Callable[..., Path], changes: dict[str, Any], match: str, made: Callable[[Callable[..., Path]], Path]
) -> None:
    path = made(make) / "config.json"
    before = path.read_text("utf-8")
    configure(path.parent, **changes)
    try:
        with pytest.raises(ConvertError, match=match):
            check_supported(path.parent)
    finally:
        path.write_text(before, encoding="utf-8")


def test_bitnet_2b_4t(tmp_path: Path) -> None:
    """Its architecture is called almost like the one that llama.cpp runs."""
    folder = configure(make_bitnet(tmp_path / "a"), architectures=["BitNetForCausalLM"], hidden_act="relu2")
    error = refused(folder, UnsupportedArchError, "squared ReLU, .* `attn_sub_norm` and `ffn_sub_norm`")
    assert error.hint is not None
    assert "bitnet.cpp" in error.hint


def test_a_reranker_by_its_card(tmp_path: Path) -> None:
    folder = make_qwen3(tmp_path / "a")
    (folder / "README.md").write_text("# Qwen3-Reranker-0.6B\n", encoding="utf-8")
    refused(folder, ConvertError, "is a reranker")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (make_qwen3, "self_attn.o_proj.bias"),
        (make_smollm3, "mlp.up_proj.bias"),
        (make_phi3, "self_attn.qkv_proj.bias"),
        (make_bitnet, "self_attn.q_proj.bias"),
    ],
)
def test_biases_that_llama_cpp_does_not_load(make: Callable[..., Path], name: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    rewrite(folder, {f"model.layers.0.{name}": np.zeros(4, np.float32)})
    refused(folder, UnclaimedTensorsError, name)


def test_phi2_needs_its_biases(make_case: Callable[[str], Path]) -> None:
    folder = make_case("tiny-phi2")
    rewrite(folder, {}, drop="fc1.bias")
    refused(folder, ConvertError, r"lacks 2 tensors: blk\.0\.ffn_up\.bias, blk\.1\.ffn_up\.bias")


def test_experts(make_case: Callable[[str], Path]) -> None:
    folder, p = make_case("tiny-qwen3moe"), "model.layers.0.mlp.experts."
    rewrite(folder, {f"{p}6.up_proj.weight": np.zeros((96, 128), np.float32)})
    refused(folder, UnclaimedTensorsError, "experts.6.up_proj")
    rewrite(folder, {}, drop="experts.6.")
    rewrite(folder, {f"{p}2.up_proj.weight": np.zeros((96, 128), np.float32)}, drop="experts.2.up_proj")
    refused(folder, ConvertError, r"the experts `model\.layers\.0\.mlp\.experts\.\*\.up_proj` differ in shape or type")
    rewrite(folder, {}, drop="experts.2.up_proj")
    refused(folder, ConvertError, r"lacks 3 tensors: blk\.0\.ffn_gate_exps\.weight")


def test_stacked_experts_of_another_shape(make_case: Callable[[str], Path]) -> None:
    folder = make_case("tiny-qwen3moe-stacked")
    name = "model.layers.0.mlp.experts.gate_up_proj"
    rewrite(folder, {name: np.zeros((6, 128, 192), np.float32)}, drop="gate_up_proj")
    refused(folder, ConvertError, r"gate_up_proj` has shape \(6, 128, 192\), by config\.json .* \(6, 192, 128\)")


def test_windows_are_told(tmp_path: Path) -> None:
    windowed: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 1024}
    for folder, said in (
        (make_qwen3(tmp_path / "a", **windowed), 1024),
        (make_qwen3(tmp_path / "b", sliding_window=1024), None),
        (make_smollm3(tmp_path / "c", **windowed), 1024),
        (make_phi3(tmp_path / "d"), 2047),
        (make_phi3(tmp_path / "e", **longrope(64)), None),
    ):
        warnings = Warnings()
        convert(folder, folder / "out.gguf", progress=warnings)
        wanted = [f"llama.cpp attends to everything: the sliding window of {said} tokens is not applied"]
        about_tokens = "llama.cpp keeps the spaces beside"  # Phi-3's
        found = [text for text in warnings.texts if not text.startswith(about_tokens)]
        assert found == (wanted if said else [])


def test_a_base_that_phi2_does_not_have_by_itself(make_case: Callable[[str], Path], tmp_path: Path) -> None:
    folder = configure(make_case("tiny-phi2"), rope_theta=50000.0)
    convert(folder, tmp_path / "out.gguf")
    assert read_header(tmp_path / "out.gguf").metadata["phi2.rope.freq_base"] == 50000.0


def test_phi3_with_an_attention_factor_of_its_own(tmp_path: Path) -> None:
    settings = longrope(64)
    for name, scaling, wanted in (
        ("a", {"attention_factor": 1.5}, 1.5),
        ("b", {"type": "yarn"}, 1.3465735),  # 0.1 ln 32 + 1
        ("c", {}, 1.1902381),  # sqrt(1 + ln 32 / ln 4096)
    ):
        folder = make_phi3(tmp_path / name, **{**settings, "rope_scaling": {**settings["rope_scaling"], **scaling}})
        convert(folder, folder / "out.gguf")
        found = read_header(folder / "out.gguf").metadata["phi3.rope.scaling.attn_factor"]
        assert found == pytest.approx(wanted)
