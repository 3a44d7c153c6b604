"""Gemma 3n: four streams, low-rank residuals, an embedding for each layer, the last ones share keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.families.gemma import FOUR, GEMMA, N_VOCAB, Gemma3, Shapes, gelu, layer_shapes, write
from tests.convert.forward import Floats, attend, rms_norm

ALTUP, PER_LAYER, RANK = 4, 256, 64
"""Numbers that llama.cpp takes for granted."""
WIDTH, NORM = 256, 0.05
N_ROWS = N_VOCAB - 100
"""Rows of the embeddings: images and sound have tokens, and no rows."""


def _shapes(c: Mapping[str, Any], p: str, rows: int) -> Shapes:
    h, n = c["hidden_size"], c["num_hidden_layers"]
    c = {**c, "intermediate_size": WIDTH}
    out: Shapes = {f"{p}altup_projections.{i}.weight": (h, h) for i in range(ALTUP - 1)}
    out |= {f"{p}altup_unembed_projections.{i}.weight": (h, h) for i in range(ALTUP - 1)}
    out[f"{p}embed_tokens.weight"] = (rows, h)
    out[f"{p}embed_tokens_per_layer.weight"] = (N_ROWS, n * PER_LAYER)
    for i in range(n):
        layer = f"{p}layers.{i}."
        own = {
            "altup.correct_output_scale": (h,),
            "altup.correction_coefs.weight": (ALTUP, ALTUP),
            "altup.modality_router.weight": (ALTUP, h),
            "altup.prediction_coefs.weight": (ALTUP * ALTUP, ALTUP),
            "altup.router_norm.weight": (h,),
            "laurel.linear_left.weight": (RANK, h),
            "laurel.linear_right.weight": (h, RANK),
            "laurel.post_laurel_norm.weight": (h,),
            "per_layer_input_gate.weight": (PER_LAYER, h),
            "per_layer_projection.weight": (h, PER_LAYER),
            "post_per_layer_input_norm.weight": (h,),
        }
        out |= {f"{layer}{name}": shape for name, shape in own.items()}
        out |= layer_shapes(c, layer, norms=FOUR, qk_norm=True)
    out[f"{p}norm.weight"] = (h,)
    out[f"{p}per_layer_model_projection.weight"] = (n * PER_LAYER, h)
    return out | {f"{p}per_layer_projection_norm.weight": (PER_LAYER,)}


TEXT = {
    **{key: value for key, value in GEMMA.items() if key not in ("hidden_size", "tie_word_embeddings")},
    "hidden_size": 64,
    "model_type": "gemma3n_text",
    "intermediate_size": [WIDTH] * 25,
    "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 15,
    "num_hidden_layers": 25,
    "num_kv_shared_layers": 5,
    "rope_local_base_freq": 1e4,
    "rope_theta": 1e6,
    "sliding_window": 8,
    "vocab_size_per_layer_input": N_ROWS,
}
TOWERS = {
    "model.audio_tower.conformer.0.norm.weight": (8,),
    "model.audio_tower.conformer.0.attention.attn.per_dim_scale": (8,),
    "model.embed_audio.embedding.weight": (4, 8),
    "model.embed_vision.embedding.weight": (4, 8),
    "model.vision_tower.timm_model.conv_stem.conv.weight": (8, 3, 2, 2),
}


def _published(folder: Path) -> Path:
    """As google/gemma-3n-E2B-it."""
    config = {
        "architectures": ["Gemma3nForConditionalGeneration"],
        "model_type": "gemma3n",
        "text_config": TEXT,
        "vision_config": {"model_type": "gemma3n_vision"},
        "audio_config": {"model_type": "gemma3n_audio"},
        "eos_token_id": [1, 107],
        "torch_dtype": "bfloat16",
    }
    return write(folder, config, TOWERS | _shapes(TEXT, "model.language_model.", N_ROWS), norm=NORM)


def _text_only(folder: Path) -> Path:
    """The text model by itself, with what transformers fills in left out."""
    left_out = ("activation_sparsity_pattern", "rope_local_base_freq", "rope_theta")
    config = {key: value for key, value in TEXT.items() if key not in left_out}
    config |= {"architectures": ["Gemma3nForCausalLM"], "intermediate_size": WIDTH, "num_hidden_layers": 12}
    config |= {"num_kv_shared_layers": 0}
    return write(folder, config, _shapes(config, "model.", N_VOCAB), dtype="F16", norm=NORM)


class Gemma3n(Gemma3):
    """Gemma3nTextModel of transformers 4.57."""

    every = 5
    cap = 30.0

    def logits(self, tokens: Any) -> Floats:
        ids, n, p = np.array(tokens), len(tokens), self.prefix
        self.kept: dict[bool, tuple[Floats, Floats]] = {}
        x = self.embed(ids)
        table = self.tensors[f"{p}embed_tokens_per_layer.weight"][ids] * np.float32(PER_LAYER**0.5)
        projected = self.linear(f"{p}per_layer_model_projection", x) * np.float32(x.shape[-1] ** -0.5)
        projected = self.norm(f"{p}per_layer_projection_norm", projected.reshape(n, -1, PER_LAYER))
        self.inputs = (projected + table.reshape(n, -1, PER_LAYER)) * np.float32(0.5**0.5)
        others = (self.linear(f"{p}altup_projections.{i}", x) for i in range(ALTUP - 1))
        streams = np.stack([x, *(self.as_large_as(x, other) for other in others)])
        for i in range(self.n_layers):
            streams = self.layer(i, streams)
        first = streams[0]
        others = (self.linear(f"{p}altup_unembed_projections.{i}", streams[i + 1]) for i in range(ALTUP - 1))
        x = np.stack([first, *(self.as_large_as(first, other) for other in others)]).mean(0)
        return self.head(self.norm(f"{p}norm", x))

    @staticmethod
    def as_large_as(x: Floats, other: Floats) -> Floats:
        return other * np.sqrt(np.mean(x * x, -1, keepdims=True) / np.mean(other * other, -1, keepdims=True))

    def layer(self, i: int, x: Floats) -> Floats:
        p = self.at(i)
        coefs = self.linear(f"{p}altup.prediction_coefs", self.modalities(i, x[0])).reshape(-1, ALTUP, ALTUP)
        predicted = x + np.einsum("bth,tab->ath", x, coefs)
        active = predicted[0]
        inner = self.norm(f"{p}input_layernorm", active)
        low = self.linear(f"{p}laurel.linear_right", self.linear(f"{p}laurel.linear_left", inner))
        laurel = inner + self.norm(f"{p}laurel.post_laurel_norm", low)
        attention = self.norm(f"{p}post_attention_layernorm", self.attention(i, inner))
        mixed = (active + attention + laurel) / np.float32(np.sqrt(2))
        inner = self.mlp(i, self.norm(f"{p}pre_feedforward_layernorm", mixed))
        activated = mixed + self.norm(f"{p}post_feedforward_layernorm", inner)
        coefs = self.linear(f"{p}altup.correction_coefs", self.modalities(i, activated)) + 1
        corrected = predicted + (activated - active) * coefs.T[..., None]
        first = corrected[0] * self.tensors[f"{p}altup.correct_output_scale"]
        first = gelu(self.linear(f"{p}per_layer_input_gate", first)) * self.inputs[:, i]
        first = self.norm(f"{p}post_per_layer_input_norm", self.linear(f"{p}per_layer_projection", first))
        return np.concatenate([corrected[:1], corrected[1:] + first])

    def modalities(self, i: int, x: Floats) -> Floats:
        inner = self.norm(f"{self.at(i)}altup.router_norm", x) / x.shape[-1]
        return np.tanh(self.linear(f"{self.at(i)}altup.modality_router", inner))

    def norm(self, name: str, x: Floats) -> Floats:
        return rms_norm(x, self.tensors[f"{name}.weight"], self.eps)

    def qkv(self, i: int, x: Floats) -> tuple[Floats, Floats, Floats]:
        q, k, v = super().qkv(i, x)
        return q, k, rms_norm(v, np.ones(1, np.float32), self.eps)

    def attend(self, i: int, q: Floats, k: Floats, v: Floats) -> Floats:
        """The last layers see the keys and values of the last one of their kind before them."""
        if i < self.n_layers - self.config["num_kv_shared_layers"]:
            self.kept[self.slides(i)] = k, v
        window = self.config["sliding_window"] if self.slides(i) else 0
        return attend(q, *self.kept[self.slides(i)], 1.0, window=window)

    def mlp(self, i: int, x: Floats) -> Floats:
        p = f"{self.at(i)}mlp."
        gate, up = self.linear(f"{p}gate_proj", x), self.linear(f"{p}up_proj", x)
        if i < 10:
            # llama.cpp's standard deviation has n - 1, that of transformers n: for real widths it is the same.
            cut = gate.mean(-1, keepdims=True) + gate.std(-1, keepdims=True, ddof=1) * NormalDist().inv_cdf(0.95)
            gate = np.maximum(gate - cut, 0)
        return self.linear(f"{p}down_proj", gelu(gate) * up)

    def head(self, x: Floats) -> Floats:
        rows = super(Gemma3, self).head(x)
        zeros = np.zeros((len(rows), self.config["vocab_size"] - rows.shape[1]), np.float32)
        return np.concatenate([rows, zeros], -1)


CASES = {
    "gemma-3n-published-it": Case(_published, ("f16", "bf16", "q8_0"), forward=Gemma3n),
    "gemma3n-text": Case(_text_only, ("auto",), forward=Gemma3n),
}
