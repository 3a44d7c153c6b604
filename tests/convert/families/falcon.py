"""Falcon: one norm (7B, in RefinedWeb's words), two norms (40B), one norm and another rotary base (11B)."""

from __future__ import annotations

import json
from math import erf
from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, layer_norm, tensors_of
from tests.convert.recurrent import write_model

HIDDEN, VOCAB, HEADS, DIM = 64, 49152, 4, 16


def make_falcon(folder: Path, n_kv: int, norms: tuple[str, ...], **config: Any) -> Path:
    """Tied; `norms` are those of a layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(2):
        p = f"transformer.h.{i}."
        shapes |= {f"{p}{norm}.{suffix}": (HIDDEN,) for norm in norms for suffix in ("bias", "weight")}
        shapes |= {
            f"{p}mlp.dense_4h_to_h.weight": (HIDDEN, 4 * HIDDEN),
            f"{p}mlp.dense_h_to_4h.weight": (4 * HIDDEN, HIDDEN),
            f"{p}self_attention.dense.weight": (HIDDEN, HIDDEN),
            f"{p}self_attention.query_key_value.weight": ((HEADS + 2 * n_kv) * DIM, HIDDEN),
        }
    shapes |= {"transformer.ln_f.bias": (HIDDEN,), "transformer.ln_f.weight": (HIDDEN,)}
    shapes["transformer.word_embeddings.weight"] = (VOCAB, HIDDEN)
    common: dict[str, Any] = {
        "alibi": False,
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": HIDDEN,
    }
    common |= {"layer_norm_epsilon": 1e-5, "parallel_attn": True, "vocab_size": VOCAB}
    return write_model(folder, {**common, **config}, shapes, tokenizer=False)


def _refined_web(folder: Path) -> Path:
    config = {"architectures": ["RWForCausalLM"], "model_type": "RefinedWebModel", "multi_query": True}
    return make_falcon(folder, 1, ("input_layernorm",), **config, n_head=HEADS, n_layer=2)


def falcon_7b(folder: Path) -> Path:
    """transformers' words, with the `num_kv_heads` that means nothing here."""
    config = {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "new_decoder_architecture": False}
    config |= {"num_attention_heads": HEADS, "num_hidden_layers": 2, "num_kv_heads": HEADS, "multi_query": True}
    return make_falcon(folder, 1, ("input_layernorm",), **config)


def new_decoder(folder: Path, norms: tuple[str, ...] = ("ln_attn", "ln_mlp"), **more: Any) -> Path:
    """40B; `more` may make it 11B."""
    config = {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "new_decoder_architecture": True}
    config |= {"num_attention_heads": HEADS, "num_hidden_layers": 2, "num_kv_heads": 2}
    return make_falcon(folder, 2, norms, **{**config, **more})


class Falcon(Decoder):
    prefix = "transformer."
    block = "h"

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text("utf-8"))
        self.tensors = tensors_of(folder)
        self.n_layers, self.head_dim = 2, DIM

    def embed(self, tokens: Any) -> Floats:
        return self.tensors["transformer.word_embeddings.weight"][tokens]

    def head(self, x: Floats) -> Floats:
        return x @ self.tensors["transformer.word_embeddings.weight"].T

    def norm(self, name: str, x: Floats) -> Floats:
        name = "transformer.ln_f" if name == "transformer.norm" else name
        return layer_norm(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], 1e-5)

    def layer(self, i: int, x: Floats) -> Floats:
        p = self.at(i)
        two = f"{p}ln_mlp.weight" in self.tensors
        attended = self.norm(f"{p}ln_attn" if two else f"{p}input_layernorm", x)
        up = self.linear(f"{p}mlp.dense_h_to_4h", self.norm(f"{p}ln_mlp", x) if two else attended)
        gelu = 0.5 * up * (1 + np.vectorize(erf)(up / np.sqrt(2)))
        return x + self.attention(i, attended) + self.linear(f"{p}mlp.dense_4h_to_h", gelu)

    def attention(self, i: int, x: Floats) -> Floats:
        groups = self.config["num_kv_heads"] if self.config.get("new_decoder_architecture") else 1
        fused = self.linear(f"{self.at(i)}self_attention.query_key_value", x).reshape(len(x), groups, -1, DIM)
        q = self.position(i, fused[:, :, :-2].reshape(len(x), -1, DIM))
        mixed = self.attend(i, q, self.position(i, fused[:, :, -2]), fused[:, :, -1])
        return self.linear(f"{self.at(i)}self_attention.dense", mixed)


CASES = {
    "tiny-falcon-rw": Case(_refined_web, ("f16",), tokenizer="smollm2", forward=Falcon),
    "tiny-falcon": Case(new_decoder, ("f16", "q8_0"), tokenizer="smollm2", forward=Falcon),
}
