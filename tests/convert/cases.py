"""Tiny checkpoints that llama.cpp's converter and ours must agree on; `scripts/golden` makes their golden data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.factories import LLAMA3_ROPE, make_checkpoint, make_llama, make_llama3, make_qwen2, write_json

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
CARD = """---
license: other
license_name: foo
license_link: LICENSE
language:
- en
- no
tags:
- a
- b
pipeline_tag: text-generation
base_model: meta-llama/Llama-2-7b-hf
datasets:
- org/data-set
---
# x
"""


def _llama(folder: Path, **config: object) -> Path:
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", {**SMALL, **config})


def _qwen2(folder: Path, **config: object) -> Path:
    return make_checkpoint(folder, "Qwen2ForCausalLM", "qwen2", {**SMALL, **config})


def _mistral(folder: Path) -> Path:
    return make_checkpoint(folder, "MistralForCausalLM", "mistral", {**SMALL, "sliding_window": 128})


def _biases(folder: Path) -> Path:
    config = {**SMALL, "attention_bias": True, "mlp_bias": True}
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", config, dtype="F32")


def _halves(folder: Path) -> Path:
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", SMALL, dtype="F16")


def _defaults(folder: Path) -> Path:
    """What config.json may leave out."""
    _llama(folder, num_key_value_heads=4, head_dim=None)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    for key in ("num_key_value_heads", "rope_theta", "rms_norm_eps", "max_position_embeddings"):
        del config[key]
    write_json(path, config)
    return folder


def _card(folder: Path) -> Path:
    """A model card, recommended sampling, added tokens, a prefix space and two chat templates."""
    _llama(folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    sampling = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1}
    write_json(folder / "generation_config.json", sampling)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["chat_template"] = [{"name": "default", "template": "D"}, {"name": "tool-use", "template": "T"}]
    config["added_tokens_decoder"]["300"] = {"content": "<|x|>", "special": False}
    config["added_tokens_decoder"]["301"] = {"content": "a\u2581b", "special": False}
    config["add_prefix_space"] = True
    write_json(path, config)
    return folder


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "beta_fast": 32.0}
CASES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "tiny-llama": (make_llama, ("f16", "bf16", "q8_0", "f32")),
    "tiny-llama3": (make_llama3, ("f16", "bf16", "q8_0")),
    "tiny-qwen2": (make_qwen2, ("f16", "bf16", "q8_0")),
    "tiny-qwen2-untied": (lambda folder: make_qwen2(folder, tied=False), ("f16",)),
    "Mistral-tiny-instruct-v0.3": (_mistral, ("auto",)),
    "Card-7B-Chat": (_card, ("auto",)),
    "biases": (_biases, ("auto", "bf16")),
    "halves": (_halves, ("auto", "bf16")),
    "defaults": (_defaults, ("auto",)),
    "linear": (lambda folder: _llama(folder, rope_scaling={"type": "linear", "factor": 2.0}), ("auto",)),
    "yarn": (lambda folder: _qwen2(folder, rope_scaling=YARN), ("auto",)),
    "qwen2-head-dim": (lambda folder: _qwen2(folder, head_dim=32), ("auto",)),
    "padded-vocab": (lambda folder: _llama(folder, vocab_size=520, head_dim=32), ("auto",)),
    "odd-rows": (lambda folder: _llama(folder, hidden_size=72, intermediate_size=100), ("q8_0",)),
}
"""Name of the folder (the converter reads it) -> what writes it, and the output types to compare."""


def borrow_tokenizer(folder: Path, source: Path) -> Path:
    """Put another checkpoint's byte-level BPE tokenizer into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(source / name, folder / name)
    return folder


def padded_bpe(folder: Path, source: Path) -> Path:
    """SmolLM2's tokenizer, and a few more rows than it has tokens."""
    borrow_tokenizer(folder, source)
    config = {**SMALL, "vocab_size": 49160, "tie_word_embeddings": True}
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", config, tokenizer=False)


def llama3_bpe(folder: Path, source: Path) -> Path:
    """Llama 3.1's rope with SmolLM2's tokenizer: the case of upstream that goes by a vocabulary of 49,152."""
    borrow_tokenizer(folder, source)
    rope = {**LLAMA3_ROPE, "factor": 8.0}
    config = {**SMALL, "vocab_size": 49152, "tie_word_embeddings": True, "head_dim": 64, "rope_theta": 5e5}
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", {**config, "rope_scaling": rope}, tokenizer=False)


BORROWED: dict[str, Callable[[Path, Path], Path]] = {"padded-bpe": padded_bpe, "llama3-bpe": llama3_bpe}
"""Cases that need the tokenizer of the real SmolLM2; converted to f16."""
