"""ERNIE 4.5: rotary neighbours; the older checkpoints with fused matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, inverse_frequencies, rotate
from tests.factories import make_checkpoint, tensor_shapes, write_checkpoint, write_json

CONFIG: dict[str, Any] = {
    "architectures": ["Ernie4_5_ForCausalLM"],
    "model_type": "ernie4_5",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 131072,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "use_bias": False,
    "vocab_size": 512,
}


def _ernie(folder: Path, **config: Any) -> Path:
    settings = {**CONFIG, **config}
    make_checkpoint(folder, "Ernie4_5ForCausalLM", "ernie4_5", settings | {"architectures": ["Ernie4_5ForCausalLM"]})
    path = folder / "tokenizer_config.json"
    write_json(path, json.loads(path.read_text("utf-8")) | {"add_prefix_space": False})
    return folder


def _fused(folder: Path) -> Path:
    """As the first versions were published: another prefix, q with k and v, gate with up."""
    c = CONFIG
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in tensor_shapes(c).items():
        name = name.replace("model.", "ernie.")
        if name.endswith("q_proj.weight"):
            rows = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * c["head_dim"]
            shapes[name.replace("q_proj", "qkv_proj")] = (rows, shape[1])
        elif name.endswith("gate_proj.weight"):
            shapes[name.replace("gate_proj", "up_gate_proj")] = (2 * shape[0], shape[1])
        elif not name.endswith(("k_proj.weight", "v_proj.weight", "up_proj.weight")):
            shapes[name] = shape
    return write_checkpoint(folder, c, shapes)


class Ernie45(Decoder):
    """Dimensions 0 and 1 of a head are a pair."""

    def position(self, i: int, x: Floats) -> Floats:
        return rotate(x, inverse_frequencies(self.head_dim, self.config["rope_theta"]), neighbours=True)


class Fused(Ernie45):
    """Takes the matrices apart."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        for name, tensor in list(self.tensors.items()):
            name = name.replace("ernie.", "model.")
            self.tensors[name] = tensor
            if "qkv_proj" in name:
                parts = dict(zip("qkv", np.split(tensor, [q, q + kv]), strict=True))
                self.tensors |= {name.replace("qkv_proj", f"{n}_proj"): part for n, part in parts.items()}
            if "up_gate_proj" in name:
                parts = dict(zip(("gate", "up"), np.split(tensor, 2), strict=True))
                self.tensors |= {name.replace("up_gate_proj", f"{n}_proj"): part for n, part in parts.items()}


CASES = {
    "tiny-ernie": Case(_ernie, ("f16", "bf16", "q8_0"), forward=Ernie45),
    "tiny-ernie-untied": Case(lambda folder: _ernie(folder, tie_word_embeddings=False), forward=Ernie45),
    "tiny-ernie-fused": Case(_fused, forward=Fused),
}
