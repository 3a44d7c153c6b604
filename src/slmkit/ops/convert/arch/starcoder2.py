"""StarCoder 2: layer norms, biases everywhere, an MLP without gate."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from slmkit.ops.convert.architecture import STANDARD_NAMES, Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import GELU, full_width, only, without_window
from slmkit.ops.convert.weights import Weights


class StarCoder2(Architecture):
    """Rotary halves stay where they are."""

    name = "starcoder2"
    hf_names: ClassVar[tuple[str, ...]] = ("Starcoder2ForCausalLM",)
    models = "StarCoder 2 3B, 7B and 15B"
    names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {name: target for name, target in STANDARD_NAMES.items() if ".mlp." not in name}
        | {"model.layers.{}.mlp.c_fc": "blk.{}.ffn_up", "model.layers.{}.mlp.c_proj": "blk.{}.ffn_down"}
    )
    biases: ClassVar[frozenset[str] | None] = frozenset(names.values()) - {"token_embd", "output"}
    needed_biases: ClassVar[frozenset[str]] = biases or frozenset()

    def defaults(self, config: Config) -> dict[str, Any]:
        """What transformers fills in."""
        return {
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "norm_epsilon": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "gelu_pytorch_tanh",
        }

    def check(self) -> None:
        """The graph knows no model without biases."""
        super().check()
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)
        only(self.config, self.name, "hidden_act", *GELU)
        only(self.config, self.name, "use_bias", True)
        only(self.config, self.name, "norm_type", "layer_norm")
        only(self.config, self.name, "mlp_type", "default")

    def remarks(self, stored: Mapping[str, Weights]) -> list[str]:
        """Sliding windows are not carried over, as upstream."""
        return super().remarks(stored) + without_window(self.config, self.config.find("sliding_window"))
