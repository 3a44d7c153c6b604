"""OLMo: norms without weights, and q, k and v clipped."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, f32
from slmkit.ops.convert.architecture import STANDARD_NAMES, Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, full_width, only
from slmkit.ops.convert.weights import Permuted, Weights


class Olmo(Architecture):
    """Rotary pairs side by side, as in `llama`."""

    name = "olmo"
    hf_names: ClassVar[tuple[str, ...]] = ("OlmoForCausalLM",)
    models = "OLMo 1B and 7B"
    names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {name: target for name, target in STANDARD_NAMES.items() if not name.endswith("norm")}
    )
    biases: ClassVar[frozenset[str] | None] = frozenset()

    def defaults(self, config: Config) -> dict[str, Any]:
        """What transformers fills in."""
        return {
            "num_key_value_heads": config.integer("num_attention_heads"),
            "max_position_embeddings": 2048,
            "rope_theta": 10000.0,
        }

    def check(self) -> None:
        """The graph has no bias on the way out of attention."""
        super().check()
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)
        only(self.config, self.name, "hidden_act", *SILU)
        only(self.config, self.name, "attention_bias", False)

    def late_metadata(self) -> dict[str, Value]:
        """The epsilon is in transformers' code, not in config.json."""
        out = {f"{self.name}.attention.layer_norm_epsilon": f32(1e-5)}
        if self.config.has("clip_qkv"):
            out[f"{self.name}.attention.clamp_kqv"] = f32(self.config.number("clip_qkv"))
        return out

    def data(self, name: str, weights: Weights) -> Weights:
        """llama.cpp rotates neighbouring rows of q and k, transformers the halves of a head."""
        return Permuted(weights, self.head_dim) if name.endswith(("attn_q.weight", "attn_k.weight")) else weights
