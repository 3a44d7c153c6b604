"""GLM-4 (0414): norms before and after attention and MLP, half of each head rotated, gate and up in one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, u32
from slmkit.ops.convert.architecture import STANDARD_NAMES, Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, only, whole_heads
from slmkit.ops.convert.shapes import Shape, with_fused_gate
from slmkit.ops.convert.vocab import Vocab

_SPECIAL = {"eos": "<|endoftext|>", "eot": "<|user|>", "unk": "<|endoftext|>", "bos": "<|endoftext|>"}


class Glm4(Architecture):
    """llama.cpp's graph takes gate and up as they are, in one matrix called `ffn_up`."""

    name = "glm4"
    hf_names: ClassVar[tuple[str, ...]] = ("Glm4ForCausalLM",)
    models = "GLM-4 9B and 32B (0414)"
    names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {name: target for name, target in STANDARD_NAMES.items() if not name.endswith(("gate_proj", "up_proj"))}
        | {
            "model.layers.{}.post_self_attn_layernorm": "blk.{}.post_attention_norm",
            "model.layers.{}.mlp.gate_up_proj": "blk.{}.ffn_up",
            "model.layers.{}.post_mlp_layernorm": "blk.{}.post_ffw_norm",
        }
    )
    biases: ClassVar[frozenset[str] | None] = frozenset({"blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v"})

    def defaults(self, config: Config) -> dict[str, Any]:
        """What transformers fills in."""
        return {
            "num_key_value_heads": 2,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1.5625e-07,
            "rope_theta": 10000.0,
            "head_dim": 128,
        }

    def check(self) -> None:
        """The fused MLP is a SwiGLU."""
        super().check()
        only(self.config, self.name, "hidden_act", *SILU)
        whole_heads(self.config, self.n_heads, self.n_kv_heads, self.head_dim)

    def shapes(self) -> Mapping[str, Shape | None]:
        """Gate and up are one tensor."""
        return with_fused_gate(self)

    def late_metadata(self) -> dict[str, Value]:
        """How much of a head is rotated."""
        share = self.rope.partial_factor or 0.5
        return {f"{self.name}.rope.dimension_count": u32(int(self.head_dim * share))}

    def read_vocab(self, folder: Path, pre: str | None) -> Vocab:
        """`<|user|>` ends a turn; the others stand in where the tokenizer names none."""
        found = super().read_vocab(folder, pre)
        ids = {text: i for i, text in enumerate(found.tokens)}
        for kind, text in _SPECIAL.items():
            if text in ids:
                found.special.ids.setdefault(kind, ids[text])
        return found
