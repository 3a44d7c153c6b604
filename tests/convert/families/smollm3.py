"""SmolLM3: the fourth layer is not rotated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats
from tests.factories import make_checkpoint

SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 5,
    "attention_bias": False,
    "mlp_bias": False,
    "max_position_embeddings": 65536,
    "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 1, 1, 0, 1],
    "layer_types": ["full_attention"] * 5,
    "rope_theta": 5000000.0,
    "pad_token_id": 2,
    "use_sliding_window": False,
    "tie_word_embeddings": True,
}


def make_smollm3(folder: Path, **config: Any) -> Path:
    return make_checkpoint(folder, "SmolLM3ForCausalLM", "smollm3", {**SMALL, **config})


def _bpe(folder: Path) -> Path:
    config = {**SMALL, "vocab_size": 49152, "num_hidden_layers": 1, "no_rope_layers": None, "layer_types": None}
    return make_checkpoint(folder, "SmolLM3ForCausalLM", "smollm3", config, tokenizer=False)


class SmolLM3(Decoder):
    """Which layers are rotated stands in the config."""

    def position(self, i: int, x: Floats) -> Floats:
        return super().position(i, x) if self.config["no_rope_layers"][i] else x


CASES = {
    "tiny-smollm3": Case(make_smollm3, ("f16", "bf16", "q8_0"), forward=SmolLM3),
    "tiny-smollm3-untied": Case(lambda folder: make_smollm3(folder, tie_word_embeddings=False), forward=SmolLM3),
    "tiny-smollm3-bpe": Case(_bpe, tokenizer="smollm2"),
}
