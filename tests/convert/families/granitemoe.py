"""Granite with experts: stacked in the checkpoint, gate and up of each one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.families.granite import SCALES, SMALL, Granite
from tests.convert.forward import Floats, silu, softmax
from tests.factories import tensor_shapes, write_checkpoint

CONFIG: dict[str, Any] = {
    **SMALL,
    **SCALES,
    "architectures": ["GraniteMoeForCausalLM"],
    "model_type": "granitemoe",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "intermediate_size": 96,
    "max_position_embeddings": 4096,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 6,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "vocab_size": 512,
}
SHARED = {
    "architectures": ["GraniteMoeSharedForCausalLM"],
    "model_type": "granitemoeshared",
    "shared_intermediate_size": 64,
    "tie_word_embeddings": False,
}


def _granitemoe(folder: Path, **config: Any) -> Path:
    c = {**CONFIG, **config}
    h, f, n, shared = (
        c["hidden_size"],
        c["intermediate_size"],
        c["num_local_experts"],
        c.get("shared_intermediate_size"),
    )
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in tensor_shapes(c).items():
        if ".mlp." not in name:
            shapes[name] = shape
        if name.endswith("down_proj.weight"):
            p = name.removesuffix("mlp.down_proj.weight")
            shapes[f"{p}block_sparse_moe.input_linear.weight"] = (n, 2 * f, h)
            shapes[f"{p}block_sparse_moe.output_linear.weight"] = (n, h, f)
            shapes[f"{p}block_sparse_moe.router.layer.weight"] = (n, h)
            if shared:
                shapes[f"{p}shared_mlp.input_linear.weight"] = (2 * shared, h)
                shapes[f"{p}shared_mlp.output_linear.weight"] = (h, shared)
    return write_checkpoint(folder, c, shapes)


def mixture(x: Floats, shares: Floats, n_used: int, expert: Callable[[int, Floats], Floats]) -> Floats:
    """What the experts with the largest shares make of each token, weighted by these; x (tokens, width)."""
    out = np.zeros_like(x)
    for token, best in enumerate(np.argsort(-shares, -1)[:, :n_used]):
        for i in best:
            out[token] += shares[token, i] * expert(int(i), x[token])
    return out


class GraniteMoe(Granite):
    """Shares are a softmax over the chosen experts only."""

    def mlp(self, i: int, x: Floats) -> Floats:
        p, used = self.at(i), self.config["num_experts_per_tok"]
        scores = self.linear(f"{p}block_sparse_moe.router.layer", x)
        least = np.sort(scores, -1)[:, -used, None]
        shares = softmax(np.where(scores >= least, scores, -np.inf))

        def expert(number: int, token: Floats) -> Floats:
            gate, up = np.split(self.tensors[f"{p}block_sparse_moe.input_linear.weight"][number] @ token, 2)
            out: Floats = self.tensors[f"{p}block_sparse_moe.output_linear.weight"][number] @ (silu(gate) * up)
            return out

        out = mixture(x, shares, used, expert)
        if self.config.get("shared_intermediate_size"):
            gate, up = np.split(self.linear(f"{p}shared_mlp.input_linear", x), 2, -1)
            out = out + self.linear(f"{p}shared_mlp.output_linear", silu(gate) * up)
        return out * self.config["residual_multiplier"]


CASES = {
    "tiny-granitemoe": Case(_granitemoe, ("f16", "bf16", "q8_0"), forward=GraniteMoe),
    "tiny-granitemoe-shared": Case(lambda folder: _granitemoe(folder, **SHARED), forward=GraniteMoe),
}
