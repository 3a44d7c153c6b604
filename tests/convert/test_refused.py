"""Settings that llama.cpp's graphs do not have: refused from config.json alone, before anything else is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slmkit.errors import ConvertError, UnclaimedTensorsError
from slmkit.ops.convert import check_supported, convert
from slmkit.ops.convert.arch.exaone4 import Exaone4
from slmkit.ops.convert.config import read_config
from slmkit.ops.convert.plan import make_plan
from tests.convert.families import cases
from tests.factories import write_json

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}


def configured(folder: Path, case: str, **changes: Any) -> Path:
    """config.json of a tiny checkpoint with some keys changed; `...` takes a key away."""
    source = folder / "source"
    source.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        write_json(source / name, {"added_tokens": [{"content": "<|endoftext|>"}]})
    cases()[case].make(source)
    config = {**json.loads((source / "config.json").read_text("utf-8")), **changes}
    write_json(source / "config.json", {key: value for key, value in config.items() if value is not ...})
    return source


@pytest.mark.parametrize(
    ("case", "changes", "match"),
    [
        ("tiny-granite", {"head_dim": 32}, "no granite of width 64 with 4 heads of 32"),
        ("tiny-granite", {"residual_multiplier": 0.0}, "`residual_multiplier` 0"),
        ("tiny-granite", {"hidden_act": "gelu"}, "`hidden_act` is 'gelu', and llama.cpp runs granite only with `silu`"),
        ("tiny-granitemoe", {"position_embedding_type": "nope"}, "`position_embedding_type` is 'nope'"),
        ("tiny-granitemoe", {"num_local_experts": 0}, "`num_local_experts`"),
        ("tiny-qwen2moe", {"norm_topk_prob": True}, "`norm_topk_prob` is True"),
        ("tiny-qwen2moe", {"mlp_only_layers": [0]}, "`mlp_only_layers`"),
        ("tiny-olmo2", {"attention_bias": True}, "`attention_bias`"),
        (
            "tiny-olmo2",
            {"rope_scaling": {**YARN, "attention_factor": 1.0}},
            "`attention_factor` 1.13863 only",
        ),
        ("tiny-olmo2", {"rope_scaling": {**YARN, "beta_fast": 64.0}}, "YaRN with `beta_fast` 32 only"),
        ("tiny-olmo2", {"rope_scaling": {**YARN, "truncate": False}}, "`truncate`"),
        ("tiny-olmo2", {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}}, "`mscale`"),
        ("tiny-olmo3", {"layer_types": ["full_attention"]}, "`layer_types` must be a list of 5"),
        ("tiny-olmo", {"attention_bias": True}, "`attention_bias`"),
        ("tiny-stablelm", {"hidden_act": "relu"}, "`hidden_act`"),
        ("tiny-stablelm", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "no `linear` rope scaling"),
        ("tiny-gpt2", {"activation_function": "relu"}, "`activation_function`"),
        ("tiny-gpt2", {"scale_attn_by_inverse_layer_idx": True}, "`scale_attn_by_inverse_layer_idx`"),
        ("tiny-gpt2", {"n_head": 5}, "no gpt2 of width 64 with 5 heads of 12"),
        ("tiny-gptneox", {"attention_bias": False}, "`attention_bias`"),
        ("tiny-exaone4", {"sliding_window": 8}, "never gives an exaone4 of 2 layers a sliding window"),
        ("tiny-exaone4", {"sliding_window": ...}, "has `sliding_window` 4096"),
        ("tiny-exaone4-32b", {"sliding_window": None}, "always gives an exaone4 of 64 layers"),
        ("tiny-exaone", {"rope_scaling": {"rope_type": "linear", "partial_rotary_factor": 0.5}}, "rotates whole heads"),
        ("tiny-glm4", {"num_key_value_heads": 3}, "heads"),
        ("tiny-ernie", {"use_bias": True}, "`use_bias`"),
        ("tiny-starcoder2", {"use_bias": False}, "`use_bias`"),
        ("tiny-starcoder2", {"norm_type": "rms_norm"}, "`norm_type`"),
    ],
)
def test_settings(case: str, changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=match):
        check_supported(configured(tmp_path, case, **changes))


def test_approximations_of_gelu_pass(tmp_path: Path) -> None:
    check_supported(configured(tmp_path, "tiny-gpt2", activation_function="gelu"))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"layer_types": None, "sliding_window_pattern": "LLLG"}, [True, True, True, False]),
        ({"layer_types": None, "sliding_window_pattern": 2}, [True, False, True, False]),
        ({"layer_types": None, "sliding_window_pattern": None}, [True, True, True, False]),
    ],
)
def test_layers_of_exaone4(changes: dict[str, Any], wanted: list[bool], tmp_path: Path) -> None:
    folder = configured(tmp_path, "tiny-exaone4-32b", **changes)
    kinds = Exaone4(read_config(folder)).kinds()
    assert [kind == "sliding_attention" for kind in kinds] == 16 * wanted


def edited(make_case: Callable[[str], Path], case: str, **changes: Any) -> Path:
    """A whole tiny checkpoint with another config.json."""
    folder = make_case(case)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_json(folder / "config.json", {**config, **changes})
    return folder


def refused(folder: Path, match: str, error: type[ConvertError] = ConvertError) -> None:
    with pytest.raises(error, match=match):
        convert(folder, folder / "out.gguf", outtype="f16")
    assert not (folder / "out.gguf").exists()


def test_the_norm_that_a_parallel_stablelm_does_not_have(make_case: Callable[[str], Path]) -> None:
    folder = edited(make_case, "tiny-stablelm", use_parallel_residual=True)
    refused(folder, r"post_attention_layernorm\.bias", UnclaimedTensorsError)


def test_norms_of_heads_by_config(make_case: Callable[[str], Path]) -> None:
    refused(edited(make_case, "tiny-stablelm", qk_layernorm=True), r"lacks 4 tensors: .*attn_q_norm")
    folder = edited(make_case, "tiny-stablelm-12b", qk_layernorm=False)
    refused(folder, r"q_layernorm\.norms\.0\.weight", UnclaimedTensorsError)


def test_a_serial_stablelm_needs_its_norm(make_case: Callable[[str], Path]) -> None:
    folder = edited(make_case, "tiny-stablelm-12b", use_parallel_residual=False)
    refused(folder, r"lacks 4 tensors: blk\.0\.ffn_norm\.weight, blk\.0\.ffn_norm\.bias")


def test_shapes_by_config(make_case: Callable[[str], Path]) -> None:
    refused(
        edited(make_case, "tiny-gptneox", num_attention_heads=2, hidden_size=32),
        "has 192 rows, not 3 times 2 heads of 16",
    )
    refused(edited(make_case, "tiny-ernie-fused", num_key_value_heads=1), r"has the shape \[256, 64\]")
    refused(edited(make_case, "tiny-granitemoe", intermediate_size=95), r"not \[6, 190, 64\]")


def test_an_expert_that_config_does_not_name(make_case: Callable[[str], Path]) -> None:
    folder = edited(make_case, "tiny-granitemoe-shared", shared_intermediate_size=0)
    refused(folder, r"shared_mlp\.input_linear", UnclaimedTensorsError)


def test_sliding_windows_of_starcoder2_are_told(make_case: Callable[[str], Path]) -> None:
    folder = make_case("tiny-starcoder2")
    assert "the sliding window of 4096 tokens is not applied" in make_plan(folder).remarks[0]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_json(folder / "config.json", {**config, "sliding_window": None})
    assert not make_plan(folder).remarks
