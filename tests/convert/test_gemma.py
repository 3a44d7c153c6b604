"""Gemma: what llama.cpp's graphs take for granted is refused, what a multimodal checkpoint has more is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmkit.errors import ConvertError
from slmkit.formats.gguf.header import read_header
from slmkit.formats.safetensors import Entry, read_checkpoint, write_file
from slmkit.formats.tokenizer_json import load, read_tokenizer_json
from slmkit.ops.convert import convert
from slmkit.ops.convert.arch.gemma3n import deviations
from slmkit.ops.convert.plan import make_plan
from tests.convert.engine import tokenize
from tests.convert.families.gemma import IMAGE, N_VOCAB, RUNS
from tests.factories import write_json

LAYERS = {"layer_types": ["sliding_attention"] * 4}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("tiny-gemma", {"attention_bias": True}, "biases in the attention"),
    ("tiny-gemma", {"hidden_act": "silu"}, "the activation `silu`"),
    ("tiny-gemma", {"tie_word_embeddings": False}, "an untied output"),
    ("tiny-gemma", {"partial_rotary_factor": 0.5}, "rotated in part"),
    ("tiny-gemma", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "no `yarn` rope scaling"),
    ("tiny-gemma2", {"query_pre_attn_scalar": 224}, r"`query_pre_attn_scalar` 224 \(it assumes 32\)"),
    ("tiny-gemma2", {"query_pre_attn_scalar": "a lot"}, "must be a number"),
    ("tiny-gemma2", {"num_hidden_layers": 46}, r"32 \(it assumes 16\)"),
    ("tiny-gemma2", {"attn_logit_softcapping": None}, "`attn_logit_softcapping` switched off"),
    ("tiny-gemma2", {"final_logit_softcapping": None}, "`final_logit_softcapping` switched off"),
    ("tiny-gemma2", {"hidden_activation": "relu"}, "the activation `relu`"),
    ("tiny-gemma2", {"layer_types": ["chunked_attention"] * 4}, "a layer of type `chunked_attention`"),
    ("tiny-gemma2", {"layer_types": ["full_attention"]}, "a list of 4 texts"),
    ("tiny-gemma3", {"query_pre_attn_scalar": ...}, r"256 \(it assumes 32\)"),
    ("tiny-gemma3", {"attn_logit_softcapping": 50.0}, "a soft cap on attention"),
    ("tiny-gemma3", {"use_bidirectional_attention": True}, "attention in both directions"),
    ("tiny-gemma3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn rope scaling beside sliding windows"),
    ("tiny-gemma3", {"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "no `llama3` rope scaling"),
    (
        "tiny-gemma3",
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}, "full_attention": {}}},
        "`linear` rope scaling in sliding windows",
    ),
    ("tiny-gemma3", {"vocab_size": N_VOCAB + 1}, f"is {N_VOCAB + 1}, but the embedding has {N_VOCAB} rows"),
    ("gemma3n-text", {"altup_num_inputs": 3}, r"`altup_num_inputs` 3 \(it assumes 4\)"),
    ("gemma3n-text", {"laurel_rank": 32}, r"`laurel_rank` 32 \(it assumes 64\)"),
    ("gemma3n-text", {"final_logit_softcapping": None}, "`final_logit_softcapping`"),
    ("gemma3n-text", {"num_kv_shared_layers": 4}, "4 of 12 layers that share keys"),
    ("gemma3n-text", {"activation_sparsity_pattern": [0.5] * 12}, "another `activation_sparsity_pattern`"),
    ("gemma3n-text", {"intermediate_size": [256] * 11 + [128]}, "layers of different `intermediate_size`"),
]


def configure(folder: Path, **changes: Any) -> Path:
    """Change keys of config.json; `...` removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text("utf-8")), **changes}
    write_json(path, {key: value for key, value in config.items() if value is not ...})
    return folder


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED)
def test_refused(name: str, changes: dict[str, Any], message: str, make_case: Callable[[str], Path]) -> None:
    with pytest.raises(ConvertError, match=message):
        make_plan(configure(make_case(name), **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_shared_layers": 6}, "6 of 25 layers that share"),
        ({"num_kv_shared_layers": 0}, "0 of 25 layers that share"),
        ({"layer_types": ["full_attention"] * 25}, "these `layer_types`"),
    ],
)
def test_shared_keys_and_values(changes: dict[str, Any], message: str, make_case: Callable[[str], Path]) -> None:
    folder = make_case("gemma-3n-published-it")
    text = json.loads((folder / "config.json").read_text("utf-8"))["text_config"]
    with pytest.raises(ConvertError, match=message):
        make_plan(configure(folder, text_config={**text, **changes}))


def test_what_is_left_out(make_case: Callable[[str], Path]) -> None:
    tokens = f"left out: 1 added tokens beyond the {N_VOCAB} rows of the embedding: {IMAGE}"
    assert make_plan(make_case("gemma-3-published-it")).remarks == (
        tokens,
        "left out: 2 tensors of the vision tower; the GGUF is the text model",
        "left out: 2 tensors of the image projector; the GGUF is the text model",
    )
    assert make_plan(make_case("gemma-3n-published-it")).remarks[1:] == (
        "left out: 2 tensors of the vision tower; the GGUF is the text model",
        "left out: 3 tensors of the audio encoder; the GGUF is the text model",
    )


def test_rows_are_cut_to_the_tokens(make_case: Callable[[str], Path]) -> None:
    """In the checkpoint there are 64 more."""
    for tensor in make_plan(make_case("gemma-3-published-it")).tensors:
        if tensor.name == "token_embd.weight":
            assert tensor.weights.shape == (N_VOCAB, 64)


def test_a_copy_of_the_embedding_is_no_output(make_case: Callable[[str], Path], tmp_path: Path) -> None:
    folder = make_case("tiny-gemma2")
    tensors = read_checkpoint(folder)
    kept = [Entry(t.name, t.dtype, t.shape, list(t.chunks())) for t in tensors.values()]
    table = tensors["model.embed_tokens.weight"]
    write_file(folder / "model.safetensors", [*kept, Entry("lm_head.weight", "BF16", table.shape, table.chunks())])
    assert "output.weight" not in {tensor.name for tensor in make_plan(folder).tensors}


def test_half_a_stack(make_case: Callable[[str], Path]) -> None:
    folder = make_case("gemma3n-text")
    kept = [t for t in read_checkpoint(folder).values() if "altup_projections.2" not in t.name]
    write_file(folder / "model.safetensors", [Entry(t.name, t.dtype, t.shape, list(t.chunks())) for t in kept])
    with pytest.raises(ConvertError, match=r"lacks 1 tensors: altup_proj\.weight"):
        make_plan(folder)


def test_a_stack_of_two_shapes(make_case: Callable[[str], Path]) -> None:
    folder = make_case("gemma3n-text")
    kept = [t for t in read_checkpoint(folder).values() if "altup_projections.2" not in t.name]
    entries = [Entry(t.name, t.dtype, t.shape, list(t.chunks())) for t in kept]
    wrong = Entry("model.altup_projections.2.weight", "F32", (2, 2), [np.ones((2, 2), np.float32)])
    write_file(folder / "model.safetensors", [*entries, wrong])
    with pytest.raises(ConvertError, match=r"altup_projections\.2\.weight` has another shape or type"):
        make_plan(folder)


def test_the_end_of_a_turn(make_case: Callable[[str], Path]) -> None:
    """Token 107 ends a turn of Gemma 1, when it says so."""
    folder = make_case("tiny-gemma")
    assert make_plan(folder).metadata["tokenizer.ggml.eot_token_id"].value == 107
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text("utf-8").replace("<end_of_turn>", "<end>"), encoding="utf-8")
    assert "tokenizer.ggml.eot_token_id" not in make_plan(folder).metadata


TEXTS = [
    "the people said 42 things to her",
    "  two    four     five  ",
    f"the<end_of_turn>\n<start_of_turn>user\n{IMAGE[:-1]}",
    "<unused7><mask> <unk><bos>",
    "naïve 日本語 🦙\tx\r\n",
    "<0x0A> the<0x41>",
    "",
    " ",
]


@pytest.mark.parametrize("missing", ["tokenizer.json", "tokenizer.model"])
@pytest.mark.parametrize("name", ["tiny-gemma", "tiny-gemma3"])
def test_the_same_ids(name: str, missing: str, make_case: Callable[[str], Path], tmp_path: Path) -> None:
    """With one of the two files alone; llama.cpp's converter reads no Gemma without tokenizer.model."""
    folder = make_case(name)
    library = load(read_tokenizer_json(folder / "tokenizer.json"))
    (folder / missing).unlink()
    convert(folder, tmp_path / "out.gguf")
    assert tokenize(tmp_path / "out.gguf", TEXTS) == [library.encode(t, add_special_tokens=False).ids for t in TEXTS]
    assert tokenize(tmp_path / "out.gguf", TEXTS, special=True) == [library.encode(text).ids for text in TEXTS]
    metadata = read_header(tmp_path / "out.gguf").metadata
    assert metadata["tokenizer.ggml.add_space_prefix"] is False
    assert (metadata["tokenizer.ggml.bos_token_id"], metadata["tokenizer.ggml.eos_token_id"]) == (2, 1)
    assert {run.replace("\u2581", " ") for run in RUNS} < set(metadata["tokenizer.ggml.tokens"])


def test_deviations() -> None:
    """What torch 2.13 makes of float32; for 0.95 llama.cpp has 1.64485335, which is two steps from it."""
    found = {share: deviations(share) for share in (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)}
    assert found == {
        0.0: -math.inf,
        0.5: 0.0,
        0.8: 0.8416212797164917,
        0.9: 1.281551480293274,
        0.95: 1.6448535919189453,
        0.99: 2.326348304748535,
    }
