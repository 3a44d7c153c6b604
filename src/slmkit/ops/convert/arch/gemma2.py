"""Gemma 2: norms before and after, soft caps, a sliding window in every other layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, bools, f32, u32
from slmkit.ops.convert.arch.gemma import Gemma

SANDWICH = {
    "model.layers.{}.post_attention_layernorm": "blk.{}.post_attention_norm",
    "model.layers.{}.pre_feedforward_layernorm": "blk.{}.ffn_norm",
    "model.layers.{}.post_feedforward_layernorm": "blk.{}.post_ffw_norm",
}


class Gemma2(Gemma):
    """Gemma with four norms in a layer."""

    name = "gemma2"
    hf_names: ClassVar[tuple[str, ...]] = ("Gemma2ForCausalLM",)
    models = "Gemma 2"
    names: ClassVar[Mapping[str, str]] = {**Gemma.names, **SANDWICH}
    transformers: ClassVar[Mapping[str, Any]] = {
        **Gemma.transformers,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }
    activation = ("hidden_activation",)
    n_layers_27b: ClassVar[int] = 46
    """By this number of layers llama.cpp knows the 27B, whose scale of attention is another one."""
    every: ClassVar[int] = 2
    """Of this many layers llama.cpp takes the last for one that sees everything."""

    def check(self) -> None:
        """The scale of attention is not stored in GGUF, and soft caps cannot be switched off."""
        super().check()
        self.check_scale()
        for cap in self.caps():
            self.refuse(not self.config.find(cap), f"`{cap}` switched off")
        self.slides()

    def check_scale(self) -> None:
        """`f_attention_scale` of src/models/gemma2.cpp."""
        assumed = self.n_embd // self.n_heads if self.n_layers == self.n_layers_27b else self.head_dim
        scalar = self.config.number("query_pre_attn_scalar")
        self.refuse(scalar != assumed, f"`query_pre_attn_scalar` {scalar:g} (it assumes {assumed})")

    def caps(self) -> tuple[str, ...]:
        """Soft caps that the graph always applies."""
        return "attn_logit_softcapping", "final_logit_softcapping"

    def slides(self) -> list[bool]:
        """For each layer, whether it sees only a window."""
        if not self.config.has("layer_types"):
            every = self.config.integer("sliding_window_pattern", default=self.every)
            return [bool((i + 1) % every) for i in range(self.n_layers)]
        types = self.config.words("layer_types", self.n_layers)
        for found in types:
            self.refuse(found not in ("sliding_attention", "full_attention"), f"a layer of type `{found}`")
        return [found == "sliding_attention" for found in types]

    def pattern(self) -> dict[str, Value]:
        """Which layers have a window, where that is not what llama.cpp assumes."""
        slides = self.slides()
        if slides == [bool((i + 1) % self.every) for i in range(self.n_layers)]:
            return {}
        return {f"{self.name}.attention.sliding_window_pattern": bools(slides)}

    def late_metadata(self) -> dict[str, Value]:
        """Soft caps and the window."""
        a = self.name
        out = {f"{a}.{cap}": f32(self.config.number(cap)) for cap in self.caps()}
        return out | {f"{a}.attention.sliding_window": u32(self.config.integer("sliding_window"))} | self.pattern()
