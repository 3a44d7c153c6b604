"""SmolLM3: each fourth layer has no rotary embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.ops.convert.arch.llama import Llama
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, only, whole_rotary, without_window
from slmkit.ops.convert.weights import Weights

_NO_ROPE_EVERY = 4
"""`n_no_rope_layer_step` in src/models/smollm3.cpp of llama.cpp 0c1e57098: no key of GGUF says otherwise."""


class SmolLM3(Llama):
    """Llama's tensors, permuted as Llama's are."""

    name = "smollm3"
    hf_names: ClassVar[tuple[str, ...]] = ("SmolLM3ForCausalLM",)
    models = "SmolLM3 3B"
    scalings: ClassVar[frozenset[str | None]] = frozenset({None, "linear", "yarn"})
    biases: ClassVar[frozenset[str] | None] = frozenset()

    def defaults(self, config: Config) -> dict[str, Any]:
        """Of SmolLM3Config in transformers 4.57; `head_dim` has none."""
        return {
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "no_rope_layer_interval": 4,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-6,
            "rope_theta": 2000000.0,
        }

    def check(self) -> None:
        """What src/models/smollm3.cpp cannot do."""
        super().check()
        only(self.config, self.name, "hidden_act", *SILU)
        only(self.config, self.name, "attention_bias", False)
        only(self.config, self.name, "mlp_bias", False)
        whole_rotary(self.config, self.name, self.rope)
        wanted = [(i + 1) % _NO_ROPE_EVERY != 0 for i in range(self.n_layers)]
        if self._rotated() != wanted:
            raise ConvertError(
                f"{self.config.path}: `no_rope_layers` leaves other layers without rotary embedding than each fourth, "
                "and llama.cpp knows only that pattern"
            )

    def remarks(self, stored: Mapping[str, Weights]) -> list[str]:
        """Sliding windows, which the published models do not use."""
        out = super().remarks(stored)
        if self.config.find("use_sliding_window"):
            out += without_window(self.config, self.config.find("sliding_window"))
        return out

    def _rotated(self) -> list[bool]:
        """For each layer whether it has a rotary embedding: `no_rope_layers` says 0 where it has none."""
        layers = self.config.find("no_rope_layers")
        if layers is None:
            step = self.config.integer("no_rope_layer_interval")
            return [(i + 1) % step != 0 for i in range(self.n_layers)]
        if not isinstance(layers, list):
            raise ConvertError(f"{self.config.path}: `no_rope_layers` must be a list, not {layers!r}")
        return [bool(layer) for layer in layers]
