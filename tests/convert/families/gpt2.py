"""GPT-2: learned positions, transposed matrices, names with and without `transformer.`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, gelu_tanh, layer_norm
from tests.factories import write_checkpoint

CONFIG: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "bos_token_id": 0,
    "eos_token_id": 0,
    "layer_norm_epsilon": 1e-5,
    "n_ctx": 64,
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 64,
    "vocab_size": 49160,
}


def _gpt2(folder: Path, *, prefix: str = "", head: bool = False, buffers: bool = False, **config: Any) -> Path:
    c = {**CONFIG, **config}
    h, f = c["n_embd"], c.get("n_inner") or 4 * c["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(c["n_layer"]):
        p = f"{prefix}h.{i}."
        if buffers:
            shapes[f"{p}attn.bias"] = (1, 1, c["n_ctx"], c["n_ctx"])
        for name, shape in {
            "attn.c_attn": (h, 3 * h),
            "attn.c_proj": (h, h),
            "ln_1": (h,),
            "ln_2": (h,),
            "mlp.c_fc": (h, f),
            "mlp.c_proj": (f, h),
        }.items():
            shapes |= {f"{p}{name}.bias": shape[-1:], f"{p}{name}.weight": shape}
    shapes |= {f"{prefix}ln_f.bias": (h,), f"{prefix}ln_f.weight": (h,)}
    shapes |= {f"{prefix}wpe.weight": (c["n_positions"], h), f"{prefix}wte.weight": (c["vocab_size"], h)}
    if head:
        shapes["lm_head.weight"] = (c["vocab_size"], h)
    return write_checkpoint(folder, c, shapes, tokenizer=False)


class Gpt2(Decoder):
    """Positions are added to the embedding; a linear layer has its inputs in rows."""

    prefix = ""
    block = "h"
    final_norm = "ln_f"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tensors = {name.removeprefix("transformer."): tensor for name, tensor in self.tensors.items()}

    def embed(self, tokens: npt.NDArray[np.int64]) -> Floats:
        return self.tensors["wte.weight"][tokens] + self.tensors["wpe.weight"][: len(tokens)]

    def head(self, x: Floats) -> Floats:
        return x @ self.tensors.get("lm_head.weight", self.tensors["wte.weight"]).T

    def norm(self, name: str, x: Floats) -> Floats:
        t = self.tensors
        return layer_norm(x, t[f"{name}.weight"], t[f"{name}.bias"], self.config["layer_norm_epsilon"])

    def layer(self, i: int, x: Floats) -> Floats:
        p = self.at(i)
        x = x + self.attention(i, self.norm(f"{p}ln_1", x))
        return x + self.mlp(i, self.norm(f"{p}ln_2", x))

    def attention(self, i: int, x: Floats) -> Floats:
        q, k, v = np.split(self.linear(f"{self.at(i)}attn.c_attn", x).reshape(len(x), -1, self.head_dim), 3, 1)
        return self.linear(f"{self.at(i)}attn.c_proj", self.attend(i, q, k, v))

    def mlp(self, i: int, x: Floats) -> Floats:
        return self.linear(f"{self.at(i)}mlp.c_proj", gelu_tanh(self.linear(f"{self.at(i)}mlp.c_fc", x)))

    def linear(self, name: str, x: Floats) -> Floats:
        return x @ self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]


CASES = {
    "tiny-gpt2": Case(_gpt2, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=Gpt2),
    # llama.cpp's converter knows no place for the buffers.
    "tiny-gpt2-buffers": Case(lambda folder: _gpt2(folder, buffers=True), (), tokenizer="smollm2", forward=Gpt2),
    "tiny-gpt2-prefix": Case(
        lambda folder: _gpt2(folder, prefix="transformer.", head=True, n_inner=None, tie_word_embeddings=False),
        tokenizer="smollm2",
        forward=Gpt2,
    ),
}
