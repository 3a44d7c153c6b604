"""Qwen2 and Qwen2.5: biases on q, k and v."""

from __future__ import annotations

from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.config import Config


class Qwen2(Architecture):
    """Llama's tensors, with rotary halves left where they are."""

    name = "qwen2"
    hf_names: ClassVar[tuple[str, ...]] = ("Qwen2ForCausalLM",)
    models = "Qwen2, Qwen2.5"

    def defaults(self, config: Config) -> dict[str, Any]:
        """`head_dim` has no default here."""
        return {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}

    def check(self) -> None:
        """llama.cpp's graph has no other width of heads."""
        super().check()
        if self.head_dim * self.n_heads != self.n_embd:
            raise ConvertError(
                f"{self.config.path}: llama.cpp runs no qwen2 with {self.n_heads} heads of {self.head_dim}"
            )
