"""OLMo 2 and 3: norms after attention and MLP; q and k normed as a whole; sliding windows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, attend, inverse_frequencies, rotate
from tests.factories import tensor_shapes, write_checkpoint

CONFIG: dict[str, Any] = {
    "attention_bias": False,
    "bos_token_id": None,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 4096,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 500000,
    "tie_word_embeddings": False,
    "vocab_size": 49160,
}
YARN = {
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "attention_factor": 1.2079441541679836,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}


def post_norm_shapes(c: Mapping[str, Any], q_norm: int, k_norm: int) -> dict[str, tuple[int, ...]]:
    """A decoder with norms after its parts, and norms of the given widths for q and k."""
    out: dict[str, tuple[int, ...]] = {}
    for name, shape in tensor_shapes(c).items():
        if name.endswith("input_layernorm.weight"):
            out[name.replace("input", "post_feedforward")] = shape
            out[name.replace("input_layernorm", "self_attn.k_norm")] = (k_norm,)
            out[name.replace("input_layernorm", "self_attn.q_norm")] = (q_norm,)
        else:
            out[name] = shape
    return out


def _olmo2(folder: Path, *, version: int = 2, **config: Any) -> Path:
    c = {**CONFIG, "architectures": [f"Olmo{version}ForCausalLM"], "model_type": f"olmo{version}", **config}
    width = c["hidden_size"]
    k_width = width // c["num_attention_heads"] * c["num_key_value_heads"]
    return write_checkpoint(folder, c, post_norm_shapes(c, width, k_width), tokenizer=False)


def _olmo3(folder: Path, **config: Any) -> Path:
    settings = {"num_hidden_layers": 5, "sliding_window": 8, "max_position_embeddings": 128, "rope_theta": 500.0}
    return _olmo2(folder, version=3, **{**settings, **config})


class Olmo2(Decoder):
    """What comes out of attention and MLP is normed, not what goes in."""

    def layer(self, i: int, x: Floats) -> Floats:
        p = self.at(i)
        x = x + self.norm(f"{p}post_attention_layernorm", self.attention(i, x))
        return x + self.norm(f"{p}post_feedforward_layernorm", self.mlp(i, x))

    def qkv(self, i: int, x: Floats) -> tuple[Floats, Floats, Floats]:
        p = f"{self.at(i)}self_attn."
        q, k, v = (self.linear(f"{p}{n}_proj", x) for n in "qkv")
        q, k = self.norm(f"{p}q_norm", q), self.norm(f"{p}k_norm", k)
        return tuple(y.reshape(len(x), -1, self.head_dim) for y in (q, k, v))  # type: ignore[return-value]


class Olmo3(Olmo2):
    """A window, and no YaRN, in three of four layers."""

    def sees_window(self, i: int) -> bool:
        kinds = self.config.get("layer_types")
        return (kinds[i] == "sliding_attention") if kinds else (i + 1) % 4 != 0

    def attend(self, i: int, q: Floats, k: Floats, v: Floats) -> Floats:
        window = self.config["sliding_window"] if self.sees_window(i) else 0
        return attend(q, k, v, self.head_dim**-0.5, window=window)

    def position(self, i: int, x: Floats) -> Floats:
        theta, yarn = self.config["rope_theta"], self.config.get("rope_scaling")
        frequencies = inverse_frequencies(self.head_dim, theta)
        if self.sees_window(i) or not yarn:
            return rotate(x, frequencies)
        return rotate(x, yarn_frequencies(frequencies, theta, yarn), scale=yarn["attention_factor"])


def yarn_frequencies(frequencies: Floats, theta: float, yarn: dict[str, Any]) -> Floats:
    """Low frequencies divided by the factor, high ones kept, blended between (arXiv 2309.00071, section 3.2)."""
    n, context = 2 * len(frequencies), yarn["original_max_position_embeddings"]

    def at(rotations: float) -> float:
        """The dimension that turns so often within the context."""
        return float(n * np.log(context / (rotations * 2 * np.pi)) / (2 * np.log(theta)))

    low, high = max(np.floor(at(yarn["beta_fast"])), 0), min(np.ceil(at(yarn["beta_slow"])), n - 1)
    kept = 1 - np.clip((np.arange(n // 2) - low) / (high - low), 0, 1)
    return frequencies / yarn["factor"] * (1 - kept) + frequencies * kept


CASES = {
    "tiny-olmo2": Case(_olmo2, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=Olmo2),
    "tiny-olmo3": Case(
        lambda folder: _olmo3(folder, rope_scaling=YARN), ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=Olmo3
    ),
    "tiny-olmo3-types": Case(
        lambda folder: _olmo3(
            folder, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"], num_key_value_heads=4
        ),
        tokenizer="smollm2",
        forward=Olmo3,
    ),
}
