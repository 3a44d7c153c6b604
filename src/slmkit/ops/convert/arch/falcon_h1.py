"""Falcon-H1: attention and a Mamba2 layer side by side in each block, and multipliers everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, u32
from slmkit.ops.convert.arch.mamba2 import Mamba2
from slmkit.ops.convert.architecture import STANDARD_NAMES, NamedWeights
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.statespace import multiplied
from slmkit.ops.convert.weights import Weights

_ELSEWHERE = ("model.norm", "post_attention_layernorm", "mlp")


class FalconH1(Mamba2):
    """The multipliers become part of the weights, in upstream's order, as each product is rounded.

    https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/falcon_h1.py
    """

    name = "falcon-h1"
    hf_names: ClassVar[tuple[str, ...]] = ("FalconH1ForCausalLM",)
    models = "Falcon-H1 0.5B to 34B, Falcon-H1-Tiny"
    names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {name: target for name, target in STANDARD_NAMES.items() if not any(part in name for part in _ELSEWHERE)}
        | {
            "model.final_layernorm": "output_norm",
            "model.layers.{}.pre_ff_layernorm": "blk.{}.ffn_norm",
            "model.layers.{}.feed_forward.gate_proj": "blk.{}.ffn_gate",
            "model.layers.{}.feed_forward.up_proj": "blk.{}.ffn_up",
            "model.layers.{}.feed_forward.down_proj": "blk.{}.ffn_down",
            "model.layers.{}.mamba.in_proj": "blk.{}.ssm_in",
            "model.layers.{}.mamba.conv1d": "blk.{}.ssm_conv1d",
            "model.layers.{}.mamba.dt_proj": "blk.{}.ssm_dt",
            "model.layers.{}.mamba.A_log": "blk.{}.ssm_a",
            "model.layers.{}.mamba.D": "blk.{}.ssm_d",
            "model.layers.{}.mamba.norm": "blk.{}.ssm_norm",
            "model.layers.{}.mamba.out_proj": "blk.{}.ssm_out",
        }
    )
    optional = frozenset({"output", "blk.{}.ssm_dt", "blk.{}.ssm_norm"})
    vocab_multiple = 1

    def defaults(self, config: Config) -> dict[str, Any]:
        """Those of `FalconH1Config`; `mamba_d_ssm` may also be `null`."""
        ones = ("key", "attention_in", "attention_out", "ssm_in", "ssm_out", "embedding", "lm_head")
        n_inner = config.integer("mamba_expand", default=2) * config.integer("hidden_size")
        out: dict[str, Any] = {f"{name}_multiplier": 1.0 for name in ones}
        return out | {
            "mlp_multipliers": [1.0] * 2,
            "ssm_multipliers": [1.0] * 5,
            "mamba_d_ssm": n_inner if "mamba_d_ssm" in config.raw else 1024,
            "mamba_n_groups": 1,
            "mamba_d_state": 256,
            "mamba_d_conv": 4,
            "mamba_rms_norm": False,
            "mamba_norm_before_gate": True,
            "max_position_embeddings": 8192,
            "num_key_value_heads": 8,
            "rope_theta": 100000.0,
            "head_dim": config.integer("hidden_size") // config.integer("num_attention_heads"),
        }

    @property
    def n_inner(self) -> int:
        """Channels of a state-space layer."""
        return self.config.integer("mamba_d_ssm")

    @property
    def ssm_head_dim(self) -> int:
        """Channels of a head."""
        if self.config.find("mamba_d_head") in (None, "auto"):
            return self.n_inner // self.config.integer("mamba_n_heads", default=128)
        return self.config.integer("mamba_d_head")

    @property
    def n_groups(self) -> int:
        """Sets of B and C, which heads share."""
        return self.config.integer("mamba_n_groups")

    def check(self) -> None:
        """The norm of llama.cpp comes after the gate."""
        super().check()
        self.check_layer("hidden_act", "mamba_proj_bias", "mamba_conv_bias")
        self.check_layer("hidden_act", "projectors_bias", "mamba_conv_bias")
        if self.config.raw["mamba_rms_norm"] and self.config.raw["mamba_norm_before_gate"]:
            raise ConvertError(f"{self.config.path}: llama.cpp has no {self.name} layers with `mamba_norm_before_gate`")

    def metadata(self) -> dict[str, Value]:
        """What Mamba2 has no use for gets its true value."""
        return super().metadata() | {
            f"{self.name}.context_length": u32(self.config.integer("max_position_embeddings")),
            f"{self.name}.feed_forward_length": u32(self.config.integer("intermediate_size")),
            f"{self.name}.attention.head_count": u32(self.n_heads),
        }

    def late_metadata(self) -> dict[str, Value]:
        """The attention's."""
        return {
            f"{self.name}.vocab_size": u32(self.n_vocab),
            f"{self.name}.attention.head_count_kv": u32(self.n_kv_heads),
            f"{self.name}.attention.key_length": u32(self.head_dim),
            f"{self.name}.attention.value_length": u32(self.head_dim),
        } | self.rope.metadata(self.name)

    def tensors(self, stored: Mapping[str, Weights]) -> list[NamedWeights]:
        """Embedding and output have multipliers of their own, so that tied ones become two tensors.

        Upstream makes one of them: the logits of Falcon-H1-Tiny 90M come out 1.4 times too large.
        """
        embedding = stored.get("model.embed_tokens.weight")
        same = self.config.number("lm_head_multiplier") == self.config.number("embedding_multiplier")
        if self.config.find("tie_word_embeddings") and embedding and not same:
            stored = {**stored, "lm_head.weight": embedding}
        return super().tensors(stored)

    def gguf_name(self, name: str) -> str | None:
        """llama.cpp looks for one of the norms without `.weight`."""
        found = super().gguf_name(name)
        return found.removesuffix(".weight") if found and found.endswith(".ffn_norm.weight") else found

    def required(self) -> Iterator[str]:
        """See `gguf_name`."""
        for name in super().required():
            yield name.removesuffix(".weight") if name.endswith(".ffn_norm.weight") else name
        if self.config.raw["mamba_rms_norm"]:
            yield from (f"blk.{i}.ssm_norm.weight" for i in range(self.n_layers))

    def data(self, name: str, weights: Weights) -> Weights:
        """With its multipliers."""
        weights = super().data(name, weights)
        kind = name.split(".")[-2]
        return self._ssm_in(weights) if kind == "ssm_in" else multiplied(weights, *self._multipliers().get(kind, ()))

    def _multipliers(self) -> Mapping[str, tuple[float, ...]]:
        one = self.config.number
        attention = one("attention_in_multiplier")
        gate, down = self.config.numbers("mlp_multipliers", 2)
        return {
            "token_embd": (one("embedding_multiplier"),),
            "attn_q": (attention,),
            "attn_k": (one("key_multiplier"), attention),
            "attn_v": (attention,),
            "attn_output": (one("attention_out_multiplier"),),
            "ffn_gate": (gate,),
            "ffn_down": (down,),
            "ssm_out": (one("ssm_out_multiplier"),),
            "output": (one("lm_head_multiplier"),),
        }

    def _ssm_in(self, weights: Weights) -> Weights:
        """One multiplier for all rows, then one each for those of the gate, of x, B, C and the time step."""
        bc = self.n_groups * self.config.integer("mamba_d_state")
        heights = (self.n_inner, self.n_inner, bc, bc, self.n_inner // self.ssm_head_dim)
        if weights.shape[0] != sum(heights):
            raise ConvertError(f"{self.config.folder}: `mamba.in_proj` has {weights.shape[0]} rows, not {sum(heights)}")
        rows = np.repeat(np.array(self.config.numbers("ssm_multipliers", 5), np.float32), heights)
        return multiplied(weights, self.config.number("ssm_in_multiplier"), rows)
