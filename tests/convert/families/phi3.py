"""Phi-3 and its heirs: fused tensors, LongRoPE within and beyond the first context, partial rotation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, inverse_frequencies, rotate, silu
from tests.convert.tensors import standard, write_tensors
from tests.factories import PIECES, make_checkpoint, write_json

SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 576,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "rope_scaling": None,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "eos_token_id": 512,
    "pad_token_id": 512,
}
TOKENS = ("<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>")


def longrope(n: int, original: int = 4096) -> dict[str, Any]:
    """Settings of a model made fit for 131,072 tokens, of which `n` dimensions of a head are rotated."""
    short, long = ([round(1 + (i * top / n) ** 1.5, 4) for i in range(n // 2)] for top in (2.5, 20.0))
    scaling = {"type": "longrope", "short_factor": short, "long_factor": long}
    context = {"max_position_embeddings": 131072, "original_max_position_embeddings": original}
    return {**context, "rope_scaling": scaling, "sliding_window": 262144}


def make_phi3(folder: Path, *, tokenizer: bool = True, **config: Any) -> Path:
    c = {**SMALL, **config}
    h, f = c["hidden_size"], c["intermediate_size"]
    d = h // c["num_attention_heads"]
    layer = {
        "input_layernorm.weight": (h,),
        "mlp.down_proj.weight": (h, f),
        "mlp.gate_up_proj.weight": (2 * f, h),
        "post_attention_layernorm.weight": (h,),
        "self_attn.o_proj.weight": (h, h),
        "self_attn.qkv_proj.weight": (h + 2 * c["num_key_value_heads"] * d, h),
    }
    make_checkpoint(folder, "Phi3ForCausalLM", "phi3", c, tokenizer=tokenizer)
    if tokenizer:
        add_tokens(folder)
    return write_tensors(folder, standard(c, layer))


def add_tokens(folder: Path) -> None:
    """Tokens beyond the SentencePiece model; each of the three files has the last word on one of them."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8"))
    token = {"lstrip": False, "rstrip": True, "normalized": False, "single_word": False}
    listed = {str(512 + i): {"content": text, "special": i != 2, **token} for i, text in enumerate(TOKENS)}
    settings["added_tokens_decoder"] |= {**listed, "2": {"content": "</s>", "special": False, **token}}
    write_json(path, {**settings, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    write_json(folder / "added_tokens.json", {text: 512 + i for i, text in enumerate((*TOKENS, "<|/inst|>"))})
    added = [{"id": i, "content": PIECES[i].text, "special": i != 2, **token} for i in range(3)]
    added += [{"id": 512 + i, "content": text, "special": True, **token} for i, text in enumerate(TOKENS)]
    added += [{"id": 519, "content": "a\u2581b", "special": False, **token}]
    write_json(folder / "tokenizer.json", {"version": "1.0", "added_tokens": added, "post_processor": None})


class Phi3(Decoder):
    """q, k and v are rows of one matrix, gate and up those of another."""

    def qkv(self, i: int, x: Floats) -> tuple[Floats, Floats, Floats]:
        both = self.linear(f"{self.at(i)}self_attn.qkv_proj", x).reshape(len(x), -1, self.head_dim)
        q, k, v = np.split(both, [self.n_heads, self.n_heads + self.n_kv_heads], 1)
        return q, k, v

    def position(self, i: int, x: Floats) -> Floats:
        c = self.config
        inverse = inverse_frequencies(int(self.head_dim * c.get("partial_rotary_factor", 1.0)), c["rope_theta"])
        if not c["rope_scaling"]:
            return rotate(x, inverse)
        context, original = c["max_position_embeddings"], c["original_max_position_embeddings"]
        factors = c["rope_scaling"]["long_factor" if len(x) > original else "short_factor"]
        scale = math.sqrt(1 + math.log(context / original) / math.log(original))
        return rotate(x, inverse / np.array(factors), scale=scale)

    def mlp(self, i: int, x: Floats) -> Floats:
        p = f"{self.at(i)}mlp."
        gate, up = np.split(self.linear(f"{p}gate_up_proj", x), 2, -1)
        return self.linear(f"{p}down_proj", silu(gate) * up)


def _mini4(folder: Path) -> Path:
    """As Phi-4-mini: tied, fewer heads of k, three quarters of a head rotated, the byte-level tokenizer.

    Its added tokens have ids that leave a gap: the tokenizers library gives them others.
    """
    config = {"vocab_size": 49216, "num_key_value_heads": 2, "partial_rotary_factor": 0.75, "tie_word_embeddings": True}
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    token = {"special": True, "lstrip": False, "rstrip": True, "normalized": False, "single_word": False}
    tokenizer["added_tokens"] += [{"id": 49170 + i, "content": text, **token} for i, text in enumerate(TOKENS[1:])]
    write_json(path, tokenizer)
    return make_phi3(folder, tokenizer=False, **{**longrope(48), **config, "num_hidden_layers": 1})


def _phi4(folder: Path) -> Path:
    """As Phi-4: no sliding window, no scaling."""
    context = {"max_position_embeddings": 16384, "original_max_position_embeddings": 16384}
    config: dict[str, Any] = {**context, "num_key_value_heads": 2, "sliding_window": None}
    return make_phi3(folder, **config)


def _version5(folder: Path) -> Path:
    """All about the rotary embedding in one place, as transformers 5 writes it."""
    settings = longrope(64)
    scaling = settings.pop("rope_scaling")
    rope = {
        "rope_type": scaling.pop("type"),
        "rope_theta": 20000.0,
        "partial_rotary_factor": 1.0,
        "original_max_position_embeddings": settings.pop("original_max_position_embeddings"),
        **scaling,
    }
    absent = {"rope_scaling": None, "rope_theta": None, "original_max_position_embeddings": None}
    return make_phi3(folder, rope_parameters=rope, num_hidden_layers=1, **{**settings, **absent})


CASES = {
    "tiny-phi3": Case(make_phi3, ("f16", "bf16", "q8_0"), forward=Phi3),
    "tiny-phi3-128k": Case(lambda folder: make_phi3(folder, **longrope(64)), forward=Phi3),
    "tiny-phi3-beyond": Case(lambda folder: make_phi3(folder, **longrope(64, original=16)), forward=Phi3),
    "tiny-phi3-version5": Case(_version5),
    "tiny-phi4": Case(_phi4, forward=Phi3),
    "tiny-phi4-mini": Case(_mini4, ("f16", "q8_0"), tokenizer="smollm2", forward=Phi3),
}
