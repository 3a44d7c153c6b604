"""Qwen3 with experts: one tensor for each, as published, and stacked, as transformers 5 keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.families.qwen3 import SMALL, Qwen3, attention
from tests.convert.forward import Floats, silu, softmax
from tests.convert.tensors import Shapes, standard, write_tensors
from tests.factories import make_checkpoint

MOE: dict[str, Any] = {
    **SMALL,
    "moe_intermediate_size": 96,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "tie_word_embeddings": True,
    "vocab_size": 49152,
    "num_hidden_layers": 1,
}


def make_qwen3moe(folder: Path, *, stacked: bool = False, **config: Any) -> Path:
    c = {**MOE, **config}
    h, f, n = c["hidden_size"], c["moe_intermediate_size"], c["num_experts"]
    experts: Shapes = {}
    if stacked:
        experts |= {"mlp.experts.gate_up_proj": (n, 2 * f, h), "mlp.experts.down_proj": (n, h, f)}
    else:
        for i in range(n):
            p = f"mlp.experts.{i}."
            experts |= {p + "down_proj.weight": (h, f), p + "gate_proj.weight": (f, h), p + "up_proj.weight": (f, h)}
    norms = {"input_layernorm.weight": (h,), "post_attention_layernorm.weight": (h,)}
    make_checkpoint(folder, "Qwen3MoeForCausalLM", "qwen3_moe", c, tokenizer=False)
    return write_tensors(folder, standard(c, {**norms, **experts, "mlp.gate.weight": (n, h), **attention(c)}))


class Qwen3Moe(Qwen3):
    """The best experts of each token, weighted by the router."""

    def mlp(self, i: int, x: Floats) -> Floats:
        chances = softmax(self.linear(f"{self.at(i)}mlp.gate", x))
        best = np.argsort(-chances, -1)[:, : self.config["num_experts_per_tok"]]
        out = np.zeros_like(x)
        for token, chosen in enumerate(best):
            share = chances[token, chosen]
            for weight, expert in zip(share / share.sum(), chosen, strict=True):
                out[token] += weight * self.expert(i, int(expert), x[token])
        return out

    def expert(self, i: int, expert: int, x: Floats) -> Floats:
        p = f"{self.at(i)}mlp.experts."
        if f"{p}gate_up_proj" in self.tensors:
            gate, up = np.split(self.tensors[f"{p}gate_up_proj"][expert] @ x, 2)
            return self.tensors[f"{p}down_proj"][expert] @ (silu(gate) * up)
        gate, up = self.linear(f"{p}{expert}.gate_proj", x), self.linear(f"{p}{expert}.up_proj", x)
        return self.linear(f"{p}{expert}.down_proj", silu(gate) * up)


CASES = {
    "tiny-qwen3moe": Case(make_qwen3moe, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=Qwen3Moe),
    "tiny-qwen3moe-stacked": Case(
        lambda folder: make_qwen3moe(folder, stacked=True), tokenizer="smollm2", forward=Qwen3Moe
    ),
}
