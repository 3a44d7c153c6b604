"""Qwen1.5 MoE and Qwen2 MoE: experts as in Qwen3, and one more that every token goes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, u32
from slmkit.ops.convert.arch.qwen3moe import Qwen3Moe
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import full_width


class Qwen2Moe(Qwen3Moe):
    """Qwen2's attention; the shares of the chosen experts need not add up to 1. llama.cpp ties no embeddings here."""

    name = "qwen2moe"
    hf_names: ClassVar[tuple[str, ...]] = ("Qwen2MoeForCausalLM",)
    models = "Qwen1.5 MoE A2.7B, Qwen2 57B-A14B"
    names: ClassVar[Mapping[str, str]] = {
        **{name: target for name, target in Qwen3Moe.names.items() if not name.endswith(("q_norm", "k_norm"))},
        "model.layers.{}.mlp.shared_expert_gate": "blk.{}.ffn_gate_inp_shexp",
        "model.layers.{}.mlp.shared_expert.gate_proj": "blk.{}.ffn_gate_shexp",
        "model.layers.{}.mlp.shared_expert.up_proj": "blk.{}.ffn_up_shexp",
        "model.layers.{}.mlp.shared_expert.down_proj": "blk.{}.ffn_down_shexp",
    }
    optional: ClassVar[frozenset[str]] = frozenset()
    biases: ClassVar[frozenset[str] | None] = frozenset({"blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v"})
    shares_add_up = False

    def defaults(self, config: Config) -> dict[str, Any]:
        """Of Qwen2MoeConfig in transformers 4.57."""
        return super().defaults(config) | {
            "num_key_value_heads": 16,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
        }

    def check(self) -> None:
        """Heads as wide as the model."""
        super().check()
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)

    def late_metadata(self) -> dict[str, Value]:
        """The one expert more has a width of its own."""
        width = self.config.integer("shared_expert_intermediate_size")
        return super().late_metadata() | {f"{self.name}.expert_shared_feed_forward_length": u32(width)}
