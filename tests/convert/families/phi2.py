"""Phi-2: both branches of a layer read one norm, biases everywhere, less than half of each head is rotated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, gelu_tanh, inverse_frequencies, layer_norm, rotate
from tests.convert.tensors import Shapes, write_tensors
from tests.factories import make_checkpoint

SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 49216,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
    "rms_norm_eps": None,
    "partial_rotary_factor": 0.375,
    "qk_layernorm": False,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}


def make_phi2(folder: Path, **config: Any) -> Path:
    c = {**SMALL, **config}
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    shapes: Shapes = {"model.embed_tokens.weight": (v, h)}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        matrices = {f"self_attn.{n}": (h, h) for n in ("q_proj", "k_proj", "v_proj", "dense")}
        for name, shape in {**matrices, "mlp.fc1": (f, h), "mlp.fc2": (h, f), "input_layernorm": (h,)}.items():
            shapes |= {f"{p}{name}.weight": shape, f"{p}{name}.bias": shape[:1]}
    shapes |= {"model.final_layernorm.weight": (h,), "model.final_layernorm.bias": (h,)}
    make_checkpoint(folder, "PhiForCausalLM", "phi", c, tokenizer=False)
    return write_tensors(folder, {**shapes, "lm_head.weight": (v, h), "lm_head.bias": (v,)}, dtype="F16")


def halved(x: Floats) -> Floats:
    """Rounded to 16 bits, as llama.cpp's table of GELU is: without this it is 2e-3 from the exact function."""
    return x.astype(np.float16).astype(np.float32)


class Phi2(Decoder):
    """Attention and MLP are added to the same residual."""

    def layer(self, i: int, x: Floats) -> Floats:
        same = self.norm(f"{self.at(i)}input_layernorm", x)
        return x + self.attention(i, same) + self.mlp(i, same)

    def attention(self, i: int, x: Floats) -> Floats:
        q, k, v = self.qkv(i, x)
        mixed = self.attend(i, self.position(i, q), self.position(i, k), v)
        return self.linear(f"{self.at(i)}self_attn.dense", mixed)

    def position(self, i: int, x: Floats) -> Floats:
        n = int(self.head_dim * self.config["partial_rotary_factor"])
        return rotate(x, inverse_frequencies(n, self.config["rope_theta"]))

    def mlp(self, i: int, x: Floats) -> Floats:
        p = f"{self.at(i)}mlp."
        return self.linear(f"{p}fc2", halved(gelu_tanh(halved(self.linear(f"{p}fc1", x)))))

    def norm(self, name: str, x: Floats) -> Floats:
        name = name.replace("model.norm", "model.final_layernorm")
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return layer_norm(x, weight, bias, self.config["layer_norm_eps"])

    def head(self, x: Floats) -> Floats:
        return self.linear("lm_head", x)


CASES = {"tiny-phi2": Case(make_phi2, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=Phi2)}
