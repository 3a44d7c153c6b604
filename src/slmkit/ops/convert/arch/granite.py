"""Granite 3: Llama with four multipliers."""

from __future__ import annotations

from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, f32
from slmkit.ops.convert.arch.llama import Llama
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, full_width, only

_SCALES = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}


class Granite(Llama):
    """Scores, embedding, residual branches and logits are scaled by numbers in config.json."""

    name = "granite"
    hf_names: ClassVar[tuple[str, ...]] = ("GraniteForCausalLM",)
    models = "Granite 3.0 to 3.3, 2B and 8B"

    def defaults(self, config: Config) -> dict[str, Any]:
        """`head_dim` has no default here."""
        out = super().defaults(config) | dict.fromkeys(_SCALES.values(), 1.0)
        del out["head_dim"]
        return out

    def check(self) -> None:
        """llama.cpp takes a scale of 0 for one that is not there."""
        super().check()
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)
        only(self.config, self.name, "hidden_act", *SILU)
        only(self.config, self.name, "position_embedding_type", "rope")
        for key in _SCALES.values():
            if self.config.number(key) == 0:
                raise ConvertError(f"{self.config.path}: llama.cpp runs no {self.name} with `{key}` 0")

    def metadata(self) -> dict[str, Value]:
        """Without the width of a head, which is always that of the model by the number of heads."""
        out = super().metadata()
        for key in ("key_length", "value_length"):
            out.pop(f"{self.name}.attention.{key}", None)
        return out

    def late_metadata(self) -> dict[str, Value]:
        """The multipliers."""
        scales = {f"{self.name}.{key}": f32(self.config.number(name)) for key, name in _SCALES.items()}
        return super().late_metadata() | scales
