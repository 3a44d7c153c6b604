"""Granite: Llama with four multipliers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, attend
from tests.factories import make_checkpoint

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
SCALES = {
    "attention_multiplier": 0.2,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}


def _granite(folder: Path, *, tokenizer: bool = True, **config: Any) -> Path:
    settings = {**SMALL, **SCALES, "tie_word_embeddings": True, **config}
    return make_checkpoint(folder, "GraniteForCausalLM", "granite", settings, tokenizer=tokenizer)


class Granite(Decoder):
    """Every branch scaled."""

    def embed(self, tokens: npt.NDArray[np.int64]) -> Floats:
        return super().embed(tokens) * self.config["embedding_multiplier"]

    def head(self, x: Floats) -> Floats:
        return super().head(x) / self.config["logits_scaling"]

    def attend(self, i: int, q: Floats, k: Floats, v: Floats) -> Floats:
        return attend(q, k, v, self.config["attention_multiplier"])

    def attention(self, i: int, x: Floats) -> Floats:
        return super().attention(i, x) * self.config["residual_multiplier"]

    def mlp(self, i: int, x: Floats) -> Floats:
        return super().mlp(i, x) * self.config["residual_multiplier"]


CASES = {
    "tiny-granite": Case(
        lambda folder: _granite(folder, tokenizer=False, vocab_size=49155),
        ("f16", "bf16", "q8_0"),
        tokenizer="smollm2",
        forward=Granite,
    ),
    "tiny-granite-biases": Case(
        lambda folder: _granite(
            folder, attention_bias=True, mlp_bias=True, tie_word_embeddings=False, head_dim=16, rope_theta=5e6
        ),
        forward=Granite,
    ),
    "tiny-granite-defaults": Case(
        lambda folder: make_checkpoint(folder, "GraniteForCausalLM", "granite", {**SMALL, "num_hidden_layers": 1})
    ),
}
