"""OLMo 2 and 3: norms after attention and MLP, and over all heads of q and k."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, bools, u32
from slmkit.ops.convert.architecture import STANDARD_NAMES, Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, full_width, only
from slmkit.ops.convert.shapes import Shape

POST_NORM_NAMES: Mapping[str, str] = MappingProxyType(
    {name: target for name, target in STANDARD_NAMES.items() if not name.endswith("layernorm")}
    | {
        "model.layers.{}.self_attn.q_norm": "blk.{}.attn_q_norm",
        "model.layers.{}.self_attn.k_norm": "blk.{}.attn_k_norm",
        "model.layers.{}.post_attention_layernorm": "blk.{}.post_attention_norm",
        "model.layers.{}.post_feedforward_layernorm": "blk.{}.post_ffw_norm",
    }
)
"""A decoder that norms what comes out of its parts, not what goes in."""


class Olmo2(Architecture):
    """llama.cpp ties no embeddings here."""

    name = "olmo2"
    hf_names: ClassVar[tuple[str, ...]] = ("Olmo2ForCausalLM",)
    models = "OLMo 2"
    names = POST_NORM_NAMES
    optional: ClassVar[frozenset[str]] = frozenset()
    biases: ClassVar[frozenset[str] | None] = frozenset()

    def defaults(self, config: Config) -> dict[str, Any]:
        """What transformers fills in."""
        return {
            "num_key_value_heads": config.integer("num_attention_heads"),
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
        }

    def shapes(self) -> Mapping[str, Shape | None]:
        """One norm for all heads."""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return {**super().shapes(), "blk.{}.attn_q_norm": (q,), "blk.{}.attn_k_norm": (kv,)}

    def check(self) -> None:
        """The graph has no bias on the way out of attention."""
        super().check()
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)
        only(self.config, self.name, "hidden_act", *SILU)
        only(self.config, self.name, "attention_bias", False)


class Olmo3(Olmo2):
    """Three of four layers see a window only, and their positions are not scaled."""

    hf_names: ClassVar[tuple[str, ...]] = ("Olmo3ForCausalLM",)
    models = "OLMo 3"

    def defaults(self, config: Config) -> dict[str, Any]:
        """Every fourth layer sees everything."""
        every = config.integer("num_hidden_layers")
        kinds = ["full_attention" if (i + 1) % 4 == 0 else "sliding_attention" for i in range(every)]
        return super().defaults(config) | {"sliding_window": 4096, "layer_types": kinds}

    def check(self) -> None:
        """Each layer's kind must be known."""
        super().check()
        self.config.words("layer_types", self.n_layers)

    def late_metadata(self) -> dict[str, Value]:
        """The window and the layers that have it."""
        kinds = self.config.words("layer_types", self.n_layers)
        return {
            f"{self.name}.attention.sliding_window": u32(self.config.integer("sliding_window")),
            f"{self.name}.attention.sliding_window_pattern": bools([kind == "sliding_attention" for kind in kinds]),
        }
