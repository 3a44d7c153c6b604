"""Llama in its many forms, and what all families share: output types, cards, odd shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from slmkit.formats.gguf.rope import llama3_factors
from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, inverse_frequencies, rotate
from tests.factories import LLAMA3_ROPE, make_checkpoint, make_llama, make_llama3, write_json

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


def _padded_bpe(folder: Path) -> Path:
    """SmolLM2's tokenizer, and a few more rows than it has tokens."""
    config = {**SMALL, "vocab_size": 49160, "tie_word_embeddings": True}
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", config, tokenizer=False)


def _llama3_bpe(folder: Path) -> Path:
    """Llama 3.1's rope with SmolLM2's tokenizer: the case of upstream that goes by a vocabulary of 49,152."""
    rope = {**LLAMA3_ROPE, "factor": 8.0}
    config = {**SMALL, "vocab_size": 49152, "tie_word_embeddings": True, "head_dim": 64, "rope_theta": 5e5}
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", {**config, "rope_scaling": rope}, tokenizer=False)


def _falcon3(folder: Path) -> Path:
    """Falcon 3: Llama with wide heads and byte-level BPE."""
    config = {**SMALL, "head_dim": 32, "rope_theta": 1000042.0, "vocab_size": 49160, "eos_token_id": 11}
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", config, tokenizer=False)


class Llama3(Decoder):
    """Frequencies divided by Llama 3.1's factors."""

    def position(self, i: int, x: Floats) -> Floats:
        rope = {**self.config["rope_scaling"], "rope_theta": self.config["rope_theta"]}
        factors = llama3_factors(rope, self.head_dim).astype(np.float64)
        return rotate(x, inverse_frequencies(self.head_dim, rope["rope_theta"]) / factors)


CASES = {
    "tiny-llama": Case(make_llama, ("f16", "bf16", "q8_0", "f32"), forward=Decoder),
    "tiny-llama3": Case(make_llama3, ("f16", "bf16", "q8_0"), forward=Llama3),
    "Mistral-tiny-instruct-v0.3": Case(_mistral, ("auto",)),
    "Card-7B-Chat": Case(_card, ("auto",)),
    "biases": Case(_biases, ("auto", "bf16"), forward=Decoder),
    "halves": Case(_halves, ("auto", "bf16")),
    "defaults": Case(_defaults, ("auto",)),
    "linear": Case(lambda folder: _llama(folder, rope_scaling={"type": "linear", "factor": 2.0}), ("auto",)),
    "padded-vocab": Case(lambda folder: _llama(folder, vocab_size=520, head_dim=32), ("auto",)),
    "odd-rows": Case(lambda folder: _llama(folder, hidden_size=72, intermediate_size=100), ("q8_0",)),
    "padded-bpe": Case(_padded_bpe, tokenizer="smollm2"),
    "Falcon3-tiny-Instruct": Case(_falcon3, tokenizer="smollm2", forward=Decoder),
    "llama3-bpe": Case(_llama3_bpe, tokenizer="smollm2"),
}
