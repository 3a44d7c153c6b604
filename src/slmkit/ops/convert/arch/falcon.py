"""Falcon: attention and MLP side by side, in the words of transformers and of RefinedWeb."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, f32, string, u32
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.weights import Concatenated, Sliced, Weights


class Falcon(Architecture):
    """7B and 11B have one norm for both parts, 40B one for each.

    https://github.com/huggingface/transformers/blob/v4.57.6/src/transformers/models/falcon/modeling_falcon.py
    """

    name = "falcon"
    hf_names: ClassVar[tuple[str, ...]] = ("FalconForCausalLM", "RWForCausalLM")
    models = "Falcon 7B and 40B, Falcon2 11B"
    names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "transformer.word_embeddings": "token_embd",
            "transformer.ln_f": "output_norm",
            "lm_head": "output",
            "transformer.h.{}.input_layernorm": "blk.{}.attn_norm",
            "transformer.h.{}.ln_mlp": "blk.{}.attn_norm",
            "transformer.h.{}.ln_attn": "blk.{}.attn_norm_2",
            "transformer.h.{}.self_attention.query_key_value": "blk.{}.attn_qkv",
            "transformer.h.{}.self_attention.dense": "blk.{}.attn_output",
            "transformer.h.{}.mlp.dense_h_to_4h": "blk.{}.ffn_up",
            "transformer.h.{}.mlp.dense_4h_to_h": "blk.{}.ffn_down",
        }
    )
    optional = frozenset({"output", "blk.{}.attn_norm_2"})
    scalings = frozenset({None})

    def defaults(self, config: Config) -> dict[str, Any]:
        """Those of `FalconConfig`."""
        return {
            "layer_norm_epsilon": 1e-5,
            "max_position_embeddings": 2048,
            "multi_query": True,
            "parallel_attn": True,
            "rope_theta": 10000.0,
        }

    @property
    def n_kv_heads(self) -> int:
        """A checkpoint of the old kind has one, whatever `num_kv_heads` says."""
        if self.config.find("new_decoder_architecture"):
            return self.config.integer("num_kv_heads", default=self.n_heads)
        return self.config.integer("n_head_kv", default=1 if self.config.raw["multi_query"] else self.n_heads)

    @property
    def two_norms(self) -> bool:
        """Whether attention and MLP have norms of their own."""
        new = self.config.find("new_decoder_architecture") or self.config.has("n_head_kv")
        return bool(new) and self.config.integer("num_ln_in_parallel_attn", default=2) == 2

    def check(self) -> None:
        """llama.cpp has the parallel layers only, with rotary positions and without bias."""
        super().check()
        wanted = {"parallel_attn": True, "alibi": False, "bias": False}
        for key, right in wanted.items():
            if bool(self.config.find(key)) is not right:
                raise ConvertError(f"{self.config.path}: llama.cpp's falcon has no layers with `{key}` {not right}")
        if self.config.find("activation") not in (None, "gelu"):
            raise ConvertError(f"{self.config.path}: llama.cpp's falcon has GELU, not {self.config.find('activation')}")
        if self.n_embd % self.n_heads or self.n_heads % self.n_kv_heads:
            raise ConvertError(f"{self.config.path}: {self.n_heads} heads in {self.n_kv_heads} groups make no sense")

    @property
    def n_ff(self) -> int:
        """Width of the MLP."""
        return self.config.integer("ffn_hidden_size", default=4 * self.n_embd)

    def metadata(self) -> dict[str, Value]:
        """Upstream leaves out the base of the rotary embedding; so do we, where it is the usual one."""
        out = {
            "context_length": u32(self.config.integer("max_position_embeddings")),
            "tensor_data_layout": string("jploski"),
            "embedding_length": u32(self.n_embd),
            "feed_forward_length": u32(self.n_ff),
            "block_count": u32(self.n_layers),
            "attention.head_count": u32(self.n_heads),
            "attention.head_count_kv": u32(self.n_kv_heads),
            "attention.layer_norm_epsilon": f32(self.config.number("layer_norm_epsilon")),
        }
        theta = self.config.number("rope_theta")
        if theta != 10000:
            out["rope.freq_base"] = f32(theta)
        return {f"{self.name}.{key}": value for key, value in out.items()}

    def required(self) -> Iterator[str]:
        """The norms have biases."""
        yield from super().required()
        yield "output_norm.bias"
        for i in range(self.n_layers):
            yield f"blk.{i}.attn_norm.bias"
            if self.two_norms:
                yield f"blk.{i}.attn_norm_2.weight"
                yield f"blk.{i}.attn_norm_2.bias"

    def data(self, name: str, weights: Weights) -> Weights:
        """A group is its queries, one key and one value: llama.cpp has all queries first, then keys, then values."""
        if not name.endswith("attn_qkv.weight"):
            return weights
        head, queries = self.n_embd // self.n_heads, self.n_heads // self.n_kv_heads
        group = (queries + 2) * head
        if weights.shape[0] != group * self.n_kv_heads:
            raise ConvertError(
                f"{self.config.folder}: {weights.shape[0]} rows of `{name}` are not {self.n_heads} heads in "
                f"{self.n_kv_heads} groups"
            )
        parts = ((0, queries * head), (queries * head, group - head), (group - head, group))
        starts = range(0, weights.shape[0], group)
        return Concatenated([Sliced(weights, at + first, at + last) for first, last in parts for at in starts])
