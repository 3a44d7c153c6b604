"""OLMo: norms without weights; q, k and v clipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, layer_norm
from tests.factories import tensor_shapes, write_checkpoint

CONFIG: dict[str, Any] = {
    "architectures": ["OlmoForCausalLM"],
    "model_type": "olmo",
    "attention_bias": False,
    "clip_qkv": None,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 2048,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "pad_token_id": 1,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "vocab_size": 49160,
}


def _olmo(folder: Path, **config: Any) -> Path:
    c = {**CONFIG, **config}
    shapes = {name: shape for name, shape in tensor_shapes(c).items() if not name.endswith("norm.weight")}
    return write_checkpoint(folder, c, shapes, tokenizer=False)


class Olmo(Decoder):
    """transformers has the epsilon in its code."""

    def norm(self, name: str, x: Floats) -> Floats:
        return layer_norm(x, np.ones(1), 0.0, 1e-5)

    def qkv(self, i: int, x: Floats) -> tuple[Floats, Floats, Floats]:
        q, k, v = super().qkv(i, x)
        clip = self.config["clip_qkv"] or np.inf
        return q.clip(-clip, clip), k.clip(-clip, clip), v.clip(-clip, clip)


CASES = {
    "tiny-olmo": Case(_olmo, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=Olmo),
    "tiny-olmo-clipped": Case(
        lambda folder: _olmo(folder, clip_qkv=0.5, num_key_value_heads=2, tie_word_embeddings=False),
        tokenizer="smollm2",
        forward=Olmo,
    ),
}
