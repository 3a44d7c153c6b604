"""GLM-4: norms before and after the parts, half of each head rotated in neighbours, fused gate and up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, inverse_frequencies, rotate, silu
from tests.factories import tensor_shapes, write_checkpoint, write_json

CONFIG: dict[str, Any] = {
    "architectures": ["Glm4ForCausalLM"],
    "model_type": "glm4",
    "attention_bias": True,
    "eos_token_id": [0, 2],
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 49160,
}


def _glm4(folder: Path, **config: Any) -> Path:
    c = {**CONFIG, **config}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in tensor_shapes(c).items():
        if name.endswith("gate_proj.weight"):
            shapes[name.replace("gate_proj", "gate_up_proj")] = (2 * shape[0], shape[1])
        elif not name.endswith(("up_proj.weight", "o_proj.bias")):
            shapes[name] = shape
        if name.endswith("post_attention_layernorm.weight"):
            shapes[name.replace("post_attention_layernorm", "post_mlp_layernorm")] = shape
            shapes[name.replace("post_attention_layernorm", "post_self_attn_layernorm")] = shape
    write_checkpoint(folder, c, shapes, tokenizer=False)
    _add_user(folder / "tokenizer.json")
    return folder


def _add_user(path: Path) -> None:
    """The token that ends a turn."""
    tokenizer = json.loads(path.read_text("utf-8"))
    like = next(token for token in tokenizer["added_tokens"] if token["content"] == "<|endoftext|>")
    tokenizer["added_tokens"].append({**like, "id": 49152, "content": "<|user|>"})
    write_json(path, tokenizer)


class Glm4(Decoder):
    """Four norms in a layer."""

    def layer(self, i: int, x: Floats) -> Floats:
        p = self.at(i)
        mixed = self.attention(i, self.norm(f"{p}input_layernorm", x))
        x = x + self.norm(f"{p}post_self_attn_layernorm", mixed)
        return x + self.norm(f"{p}post_mlp_layernorm", self.mlp(i, self.norm(f"{p}post_attention_layernorm", x)))

    def mlp(self, i: int, x: Floats) -> Floats:
        p = f"{self.at(i)}mlp."
        gate, up = np.split(self.linear(f"{p}gate_up_proj", x), 2, -1)
        return self.linear(f"{p}down_proj", silu(gate) * up)

    def position(self, i: int, x: Floats) -> Floats:
        n = int(self.head_dim * self.config["partial_rotary_factor"])
        return rotate(x, inverse_frequencies(n, self.config["rope_theta"]), neighbours=True)


CASES = {
    "tiny-glm4": Case(_glm4, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=Glm4),
    "tiny-glm4-tied": Case(
        lambda folder: _glm4(folder, tie_word_embeddings=True, attention_bias=False), tokenizer="smollm2", forward=Glm4
    ),
}
