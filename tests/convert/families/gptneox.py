"""GPT-NeoX: q, k and v of each head side by side; attention and MLP in parallel, or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, gelu, inverse_frequencies, layer_norm, rotate
from tests.factories import write_checkpoint

CONFIG: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 64,
    "intermediate_size": 256,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "use_parallel_residual": True,
    "vocab_size": 49160,
}


def _gptneox(folder: Path, *, buffers: bool = False, **config: Any) -> Path:
    c = {**CONFIG, **config}
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"embed_out.weight": (v, h), "gpt_neox.embed_in.weight": (v, h)}
    shapes |= {f"gpt_neox.final_layer_norm.{kind}": (h,) for kind in ("bias", "weight")}
    for i in range(c["num_hidden_layers"]):
        p = f"gpt_neox.layers.{i}."
        if buffers:
            shapes[f"{p}attention.bias"] = (1, 1, 8, 8)
            shapes[f"{p}attention.masked_bias"] = (1,)
            shapes[f"{p}attention.rotary_emb.inv_freq"] = (2,)
        for name, shape in {
            "attention.dense": (h, h),
            "attention.query_key_value": (3 * h, h),
            "input_layernorm": (h,),
            "mlp.dense_4h_to_h": (h, f),
            "mlp.dense_h_to_4h": (f, h),
            "post_attention_layernorm": (h,),
        }.items():
            shapes |= {f"{p}{name}.bias": shape[:1], f"{p}{name}.weight": shape}
    return write_checkpoint(folder, c, shapes, dtype="F16", tokenizer=False)


class GptNeox(Decoder):
    """The exact GELU; llama.cpp has its tanh approximation."""

    prefix = "gpt_neox."
    final_norm = "final_layer_norm"

    def embed(self, tokens: npt.NDArray[np.int64]) -> Floats:
        return self.tensors["gpt_neox.embed_in.weight"][tokens]

    def head(self, x: Floats) -> Floats:
        return x @ self.tensors["embed_out.weight"].T

    def norm(self, name: str, x: Floats) -> Floats:
        t = self.tensors
        return layer_norm(x, t[f"{name}.weight"], t[f"{name}.bias"], self.config["layer_norm_eps"])

    def layer(self, i: int, x: Floats) -> Floats:
        p = self.at(i)
        mixed = x + self.attention(i, self.norm(f"{p}input_layernorm", x))
        seen = x if self.config["use_parallel_residual"] else mixed
        return mixed + self.mlp(i, self.norm(f"{p}post_attention_layernorm", seen))

    def attention(self, i: int, x: Floats) -> Floats:
        fused = self.linear(f"{self.at(i)}attention.query_key_value", x)
        q, k, v = np.split(fused.reshape(len(x), self.n_heads, 3 * self.head_dim), 3, -1)
        q, k = self.position(i, q), self.position(i, k)
        return self.linear(f"{self.at(i)}attention.dense", self.attend(i, q, k, v))

    def position(self, i: int, x: Floats) -> Floats:
        n = int(self.config["rotary_pct"] * self.head_dim)
        return rotate(x, inverse_frequencies(n, self.config["rotary_emb_base"]))

    def mlp(self, i: int, x: Floats) -> Floats:
        p = f"{self.at(i)}mlp."
        return self.linear(f"{p}dense_4h_to_h", gelu(self.linear(f"{p}dense_h_to_4h", x)))


TOLERANCE = 5e-3
"""For GELU, which llama.cpp approximates and looks up in halves."""

CASES = {
    "tiny-gptneox": Case(
        lambda folder: _gptneox(folder, buffers=True),
        ("f16", "bf16", "q8_0"),
        tokenizer="smollm2",
        forward=GptNeox,
        tolerance=TOLERANCE,
    ),
    "tiny-gptneox-serial": Case(
        lambda folder: _gptneox(folder, use_parallel_residual=False, rotary_pct=1.0),
        tokenizer="smollm2",
        forward=GptNeox,
        tolerance=TOLERANCE,
    ),
    # llama.cpp's converter forgets the frequency base.
    "tiny-gptneox-base": Case(
        lambda folder: _gptneox(folder, rotary_emb_base=500000), (), "smollm2", forward=GptNeox, tolerance=TOLERANCE
    ),
}
