"""Qwen2 and Qwen2.5: biases on q, k and v."""

from __future__ import annotations

from typing import Any, ClassVar

from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, full_width, only, whole_rotary


class Qwen2(Architecture):
    """Llama's tensors, with rotary halves left where they are."""

    name = "qwen2"
    hf_names: ClassVar[tuple[str, ...]] = ("Qwen2ForCausalLM",)
    models = "Qwen2, Qwen2.5"

    def defaults(self, config: Config) -> dict[str, Any]:
        """`head_dim` has no default here."""
        return {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}

    def check(self) -> None:
        """What src/models/qwen2.cpp cannot do."""
        super().check()
        only(self.config, self.name, "hidden_act", *SILU)
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)
        whole_rotary(self.config, self.name, self.rope)
