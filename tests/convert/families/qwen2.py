"""Qwen2: biases on q, k and v."""

from __future__ import annotations

from pathlib import Path

from tests.convert.families import Case
from tests.convert.forward import Decoder
from tests.factories import make_checkpoint, make_qwen2

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "beta_fast": 32.0}


def _qwen2(folder: Path, **config: object) -> Path:
    return make_checkpoint(folder, "Qwen2ForCausalLM", "qwen2", {**SMALL, **config})


CASES = {
    "tiny-qwen2": Case(make_qwen2, ("f16", "bf16", "q8_0"), forward=Decoder),
    "tiny-qwen2-untied": Case(lambda folder: make_qwen2(folder, tied=False), forward=Decoder),
    "yarn": Case(lambda folder: _qwen2(folder, rope_scaling=YARN), ("auto",)),
}
