"""Qwen2 MoE: experts one by one, and one more that every token goes through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.families.granitemoe import mixture
from tests.convert.forward import Decoder, Floats, silu, softmax
from tests.factories import tensor_shapes, write_checkpoint

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2MoeForCausalLM"],
    "model_type": "qwen2_moe",
    "bos_token_id": 0,
    "decoder_sparse_step": 1,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 192,
    "max_position_embeddings": 8192,
    "mlp_only_layers": [],
    "moe_intermediate_size": 96,
    "norm_topk_prob": False,
    "num_attention_heads": 4,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "shared_expert_intermediate_size": 128,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 49160,
}


def _qwen2moe(folder: Path) -> Path:
    c = CONFIG
    h, n = c["hidden_size"], c["num_experts"]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in tensor_shapes({**c, "model_type": "qwen2"}).items():
        if ".mlp." not in name:
            shapes[name] = shape
        if name.endswith("down_proj.weight"):
            p = name.removesuffix("down_proj.weight")
            shapes |= {f"{p}gate.weight": (n, h), f"{p}shared_expert_gate.weight": (1, h)}
            widths = {f"experts.{i}": c["moe_intermediate_size"] for i in range(n)}
            for part, f in {**widths, "shared_expert": c["shared_expert_intermediate_size"]}.items():
                shapes |= {f"{p}{part}.{kind}_proj.weight": (f, h) for kind in ("gate", "up")}
                shapes[f"{p}{part}.down_proj.weight"] = (h, f)
    return write_checkpoint(folder, c, shapes, tokenizer=False)


class Qwen2Moe(Decoder):
    """Shares are a softmax over all experts; the shared one has a gate of its own."""

    def mlp(self, i: int, x: Floats) -> Floats:
        p = f"{self.at(i)}mlp."
        shares = softmax(self.linear(f"{p}gate", x))
        out = mixture(
            x, shares, self.config["num_experts_per_tok"], lambda n, token: self.gated(f"{p}experts.{n}.", token)
        )
        share = 1 / (1 + np.exp(-self.linear(f"{p}shared_expert_gate", x)))
        return out + share * self.gated(f"{p}shared_expert.", x)

    def gated(self, p: str, x: Floats) -> Floats:
        return self.linear(f"{p}down_proj", silu(self.linear(f"{p}gate_proj", x)) * self.linear(f"{p}up_proj", x))


CASES = {"tiny-qwen2moe": Case(_qwen2moe, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=Qwen2Moe)}
