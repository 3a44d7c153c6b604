"""StarCoder 2: layer norms, biases everywhere, an MLP without gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from slmkit.ops.convert.architecture import STANDARD_NAMES, Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import GELU, limit, need_plain_heads
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
        need_plain_heads(self)
        limit(self, hidden_act=GELU, use_bias=(True,), norm_type=("layer_norm",), mlp_type=("default",))

    def remarks(self, stored: Mapping[str, Weights]) -> list[str]:
        """Sliding windows are not carried over, as upstream."""
        out = super().remarks(stored)
        window, context = self.config.find("sliding_window"), self.config.integer("max_position_embeddings")
        if isinstance(window, int) and window < context:
            out.append(f"llama.cpp attends to everything: the sliding window of {window} tokens is not applied")
        return out

    def required(self) -> Iterator[str]:
        """Everything but the embedding has a bias."""
        for name in super().required():
            yield name
            if name != "token_embd.weight":
                yield name.removesuffix("weight") + "bias"
