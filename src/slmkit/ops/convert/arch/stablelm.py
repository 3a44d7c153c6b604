"""StableLM: layer norms, a part of each head rotated; the 12B has a norm for each head of q and k."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, boolean, f32, u32
from slmkit.ops.convert.architecture import STANDARD_NAMES, Architecture, NamedWeights
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, full_width, only
from slmkit.ops.convert.shapes import Shape
from slmkit.ops.convert.weights import Stacked, Weights

_HEAD_NORM = re.compile(r"model\.layers\.(\d+)\.self_attn\.([qk])_layernorm\.norms\.(\d+)\.weight")

_NORMS = frozenset({"output_norm", "blk.{}.attn_norm", "blk.{}.ffn_norm"})


class StableLm(Architecture):
    """With parallel residuals there is one norm for attention and MLP; llama.cpp knows it by the other's absence."""

    name = "stablelm"
    hf_names: ClassVar[tuple[str, ...]] = ("StableLmForCausalLM",)
    models = "StableLM 2 1.6B, Zephyr 3B, StableLM 2 12B, Stable Code 3B"
    names = STANDARD_NAMES
    optional: ClassVar[frozenset[str]] = frozenset({"blk.{}.ffn_norm"})
    biases: ClassVar[frozenset[str] | None] = _NORMS | {"blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v"}
    needed_biases: ClassVar[frozenset[str]] = _NORMS
    scalings: ClassVar[frozenset[str | None]] = frozenset({None})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.parallel = bool(self.config.find("use_parallel_residual"))
        self.head_norms = bool(self.config.find("qk_layernorm"))
        self._parts: dict[str, dict[int, Weights]] = {}

    def defaults(self, config: Config) -> dict[str, Any]:
        """What transformers fills in."""
        return {
            "num_key_value_heads": 32,
            "max_position_embeddings": 4096,
            "layer_norm_eps": 1e-5,
        }

    def check(self) -> None:
        """Heads as wide as the model."""
        super().check()
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)
        only(self.config, self.name, "hidden_act", *SILU)

    def metadata(self) -> dict[str, Value]:
        """`StableLMModel.set_gguf_parameters` of conversion/stablelm.py at llama.cpp 0c1e57098.

        It leaves out the frequency base; without that Stable Code 3B (1,000,000) is another model in llama.cpp.
        """
        a, integer = self.name, self.config.integer
        out = {
            f"{a}.context_length": u32(integer("max_position_embeddings")),
            f"{a}.embedding_length": u32(self.n_embd),
            f"{a}.block_count": u32(self.n_layers),
            f"{a}.feed_forward_length": u32(integer("intermediate_size")),
            f"{a}.rope.dimension_count": u32(int((self.rope.partial_factor or 0.25) * self.head_dim)),
            f"{a}.attention.head_count": u32(self.n_heads),
            f"{a}.attention.head_count_kv": u32(self.n_kv_heads),
            f"{a}.use_parallel_residual": boolean(self.parallel),
            f"{a}.attention.layer_norm_epsilon": f32(self.config.number("layer_norm_eps")),
        }
        return out | self.rope.other_base(a)

    def shapes(self) -> Mapping[str, Shape | None]:
        """A norm for each head."""
        q, k = (self.n_heads, self.head_dim), (self.n_kv_heads, self.head_dim)
        return {**super().shapes(), "blk.{}.attn_q_norm": q, "blk.{}.attn_k_norm": k}

    def place(self, name: str, weights: Weights) -> list[NamedWeights] | None:
        """The norms of all heads go on top of each other."""
        if found := _HEAD_NORM.fullmatch(name):
            layer, which, head = found.groups()
            n_heads = self.n_heads if which == "q" else self.n_kv_heads
            if not self.head_norms or int(layer) >= self.n_layers or int(head) >= n_heads:
                return None
            target = f"blk.{layer}.attn_{which}_norm.weight"
            heads = self._parts.setdefault(target, {})
            heads[int(head)] = weights
            if len(heads) < n_heads:
                return []
            del self._parts[target]
            return [NamedWeights(target, Stacked([heads[i] for i in range(n_heads)]))]
        placed = super().place(name, weights)
        unknown = self.parallel and placed is not None and ".ffn_norm." in placed[0].name
        return None if unknown else placed

    def required(self) -> Iterator[str]:
        """What config.json says is there, too."""
        yield from super().required()
        for layer in range(self.n_layers):
            if not self.parallel:
                yield f"blk.{layer}.ffn_norm.weight"
                yield f"blk.{layer}.ffn_norm.bias"
            if self.head_norms:
                yield f"blk.{layer}.attn_q_norm.weight"
                yield f"blk.{layer}.attn_k_norm.weight"
