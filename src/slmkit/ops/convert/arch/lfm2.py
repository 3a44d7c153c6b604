"""LFM2: gated short convolutions with an attention layer here and there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, u32
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.shapes import Shape
from slmkit.ops.convert.statespace import squeezed
from slmkit.ops.convert.weights import Weights

_OLD_KEYS = {"theta": "rope_theta", "block_ff_dim": "intermediate_size"}
"""Keys of the first checkpoints: where both are there, transformers takes these."""


class Lfm2(Architecture):
    """Which layer is what stands in `layer_types` or, in the first checkpoints, in `full_attn_idxs`.

    https://github.com/huggingface/transformers/blob/v4.57.6/src/transformers/models/lfm2/modeling_lfm2.py
    """

    name = "lfm2"
    hf_names: ClassVar[tuple[str, ...]] = ("Lfm2ForCausalLM", "LFM2ForCausalLM")
    models = "LFM2 350M, 700M, 1.2B and 2.6B, LFM2.5"
    names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "model.embed_tokens": "token_embd",
            "model.embedding_norm": "token_embd_norm",
            "lm_head": "output",
            "model.layers.{}.operator_norm": "blk.{}.attn_norm",
            "model.layers.{}.self_attn.q_proj": "blk.{}.attn_q",
            "model.layers.{}.self_attn.k_proj": "blk.{}.attn_k",
            "model.layers.{}.self_attn.v_proj": "blk.{}.attn_v",
            "model.layers.{}.self_attn.out_proj": "blk.{}.attn_output",
            "model.layers.{}.self_attn.q_layernorm": "blk.{}.attn_q_norm",
            "model.layers.{}.self_attn.k_layernorm": "blk.{}.attn_k_norm",
            "model.layers.{}.conv.in_proj": "blk.{}.shortconv.in_proj",
            "model.layers.{}.conv.conv": "blk.{}.shortconv.conv",
            "model.layers.{}.conv.out_proj": "blk.{}.shortconv.out_proj",
            "model.layers.{}.ffn_norm": "blk.{}.ffn_norm",
            "model.layers.{}.feed_forward.w1": "blk.{}.ffn_gate",
            "model.layers.{}.feed_forward.w2": "blk.{}.ffn_down",
            "model.layers.{}.feed_forward.w3": "blk.{}.ffn_up",
        }
    )

    def __init__(self, config: Config) -> None:
        renamed = {new: config.raw[old] for old, new in _OLD_KEYS.items() if config.has(old)}
        super().__init__(replace(config, raw={**config.raw, **renamed}))
        self.layer_types = self.config.words("layer_types", self.n_layers)

    def defaults(self, config: Config) -> dict[str, Any]:
        """Those of `Lfm2Config`."""
        layers = range(config.integer("num_hidden_layers", default=32))
        full = config.find("full_attn_idxs") or layers
        if not isinstance(full, list | range):
            raise ConvertError(f"{config.path}: `full_attn_idxs` must be a list of layers, not {full!r}")
        return {
            "max_position_embeddings": 128000,
            "num_key_value_heads": 8,
            "norm_eps": 1e-5,
            "rope_theta": 1000000.0,
            "conv_L_cache": 3,
            "block_multiple_of": 256,
            "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": True,
            "layer_types": ["full_attention" if i in full else "conv" for i in layers],
        }

    def shapes(self) -> Mapping[str, Shape | None]:
        """Convolutions have a gate before and after, one kernel for each channel."""
        n, kernel = self.n_embd, self.config.integer("conv_L_cache")
        return {
            **super().shapes(),
            "blk.{}.shortconv.in_proj": (3 * n, n),
            "blk.{}.shortconv.conv": (n, kernel),
            "blk.{}.shortconv.out_proj": (n, n),
        }

    @property
    def n_ff(self) -> int:
        """Width of the MLP: by default two thirds of `intermediate_size`, rounded up to a multiple."""
        width = self.config.integer("intermediate_size")
        if not self.config.raw["block_auto_adjust_ff_dim"]:
            return width
        width = int(self.config.number("block_ffn_dim_multiplier") * int(2 * width / 3))
        multiple = self.config.integer("block_multiple_of")
        return -(-width // multiple) * multiple

    def check(self) -> None:
        """llama.cpp's graph has convolutions without bias and heads of one width."""
        super().check()
        others = set(self.layer_types) - {"conv", "full_attention"}
        if others:
            raise ConvertError(f"{self.config.path}: llama.cpp has no {min(others)} layers for lfm2")
        if self.config.find("conv_bias"):
            raise ConvertError(f"{self.config.path}: llama.cpp's lfm2 has no bias in its convolutions (`conv_bias`)")
        if self.config.integer("conv_L_cache") < 2:
            raise ConvertError(f"{self.config.path}: llama.cpp needs convolutions over 2 tokens or more")
        if self.head_dim * self.n_heads != self.n_embd:
            raise ConvertError(
                f"{self.config.path}: llama.cpp runs no lfm2 with {self.n_heads} heads of {self.head_dim}"
            )

    def metadata(self) -> dict[str, Value]:
        """A layer without heads for keys and values is a convolution to llama.cpp."""
        out = super().metadata()
        heads = [0 if kind == "conv" else self.n_kv_heads for kind in self.layer_types]
        out["lfm2.attention.head_count_kv"] = self._count("attention.head_count_kv", heads)
        out["lfm2.feed_forward_length"] = u32(self.n_ff)
        return out

    def late_metadata(self) -> dict[str, Value]:
        """The convolution sees this many tokens."""
        width = u32(self.config.integer("conv_L_cache"))
        return {"lfm2.vocab_size": u32(self.n_vocab), "lfm2.shortconv.l_cache": width}

    def gguf_name(self, name: str) -> str | None:
        """A layer has the tensors of its kind only."""
        found = super().gguf_name(name)
        return found if found is None or self._fits(found) else None

    def required(self) -> Iterator[str]:
        """See `gguf_name`."""
        return filter(self._fits, super().required())

    def data(self, name: str, weights: Weights) -> Weights:
        """llama.cpp has the kernels as a matrix."""
        return squeezed(weights) if name.endswith("shortconv.conv.weight") else weights

    def _fits(self, name: str) -> bool:
        match name.split("."):
            case ["blk", layer, "shortconv", *_]:
                return self.layer_types[int(layer)] == "conv"
            case ["blk", layer, kind, _] if kind.startswith("attn_") and kind != "attn_norm":
                return self.layer_types[int(layer)] != "conv"
        return True
