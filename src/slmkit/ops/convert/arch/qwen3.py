"""Qwen3: q and k are normalized head by head, and heads have a width of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.ops.convert.architecture import STANDARD_NAMES, Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, only, whole_heads, whole_rotary, without_window
from slmkit.ops.convert.weights import Weights


class Qwen3(Architecture):
    """Llama's tensors and two norms more, with rotary halves left where they are."""

    name = "qwen3"
    hf_names: ClassVar[tuple[str, ...]] = ("Qwen3ForCausalLM",)
    models = "Qwen3 0.6B to 32B"
    names: ClassVar[Mapping[str, str]] = {
        **STANDARD_NAMES,
        "model.layers.{}.self_attn.q_norm": "blk.{}.attn_q_norm",
        "model.layers.{}.self_attn.k_norm": "blk.{}.attn_k_norm",
    }
    biases: ClassVar[frozenset[str] | None] = frozenset()

    def defaults(self, config: Config) -> dict[str, Any]:
        """Of Qwen3Config in transformers 4.57."""
        return {
            "head_dim": 128,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
        }

    def check(self) -> None:
        """What src/models/qwen3.cpp and qwen3moe.cpp cannot do."""
        super().check()
        only(self.config, self.name, "hidden_act", *SILU)
        only(self.config, self.name, "attention_bias", False)
        whole_heads(self.config, self.n_heads, self.n_kv_heads, self.head_dim)
        whole_rotary(self.config, self.name, self.rope)
        if self._is_reranker():
            raise ConvertError(
                f"{self.config.folder} is a reranker; slmkit converts generating models",
                hint="llama.cpp's convert_hf_to_gguf.py gives it the head that ranks",
            )

    def remarks(self, stored: Mapping[str, Weights]) -> list[str]:
        """Sliding windows, which published Qwen3 models do not use."""
        out = super().remarks(stored)
        if self.config.find("use_sliding_window"):
            out += without_window(self.config, self.config.find("sliding_window"))
        return out

    def _is_reranker(self) -> bool:
        """Qwen3-Reranker calls itself Qwen3ForCausalLM: only its model card and its name tell."""
        folder = self.config.folder
        names = f"{folder.name} {self.config.find('_name_or_path')}".lower()
        try:
            card = (folder / "README.md").read_text("utf-8", "replace").lower()
        except FileNotFoundError:
            card = ""
        return "qwen3-reranker" in names or "# qwen3-reranker" in card
