"""GPT-NeoX and Pythia: q, k and v of each head side by side in one matrix; attention and MLP in parallel."""

from __future__ import annotations

from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, boolean, f32, u32
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import GELU, full_width, only
from slmkit.ops.convert.weights import Concatenated, Sliced, Weights


class GptNeox(Architecture):
    """llama.cpp's converter writes neither the type of the file nor the frequency base."""

    name = "gptneox"
    hf_names: ClassVar[tuple[str, ...]] = ("GPTNeoXForCausalLM",)
    models = "Pythia, GPT-NeoX"
    names: ClassVar[dict[str, str]] = {
        "gpt_neox.embed_in": "token_embd",
        "gpt_neox.final_layer_norm": "output_norm",
        "embed_out": "output",
        "gpt_neox.layers.{}.input_layernorm": "blk.{}.attn_norm",
        "gpt_neox.layers.{}.attention.query_key_value": "blk.{}.attn_qkv",
        "gpt_neox.layers.{}.attention.dense": "blk.{}.attn_output",
        "gpt_neox.layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
        "gpt_neox.layers.{}.mlp.dense_h_to_4h": "blk.{}.ffn_up",
        "gpt_neox.layers.{}.mlp.dense_4h_to_h": "blk.{}.ffn_down",
    }
    optional: ClassVar[frozenset[str]] = frozenset()
    biases: ClassVar[frozenset[str] | None] = frozenset(names.values()) - {"token_embd", "output"}
    needed_biases: ClassVar[frozenset[str]] = biases or frozenset()
    scalings: ClassVar[frozenset[str | None]] = frozenset({None})
    writes_file_type = False

    def defaults(self, config: Config) -> dict[str, Any]:
        """What transformers fills in."""
        return {
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "use_parallel_residual": True,
            "hidden_act": "gelu",
        }

    def check(self) -> None:
        """Biases are not optional, and there are no groups of queries."""
        super().check()
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)
        only(self.config, self.name, "hidden_act", *GELU)
        only(self.config, self.name, "attention_bias", True)

    def metadata(self) -> dict[str, Value]:
        """`GPTNeoXModel.set_gguf_parameters` of conversion/gptneox.py at llama.cpp 0c1e57098.

        It leaves out the frequency base, which matters when it is not 10,000.
        """
        a, integer = self.name, self.config.integer
        share = self.config.number("rotary_pct", default=self.rope.partial_factor or 0.25)
        out = {
            f"{a}.context_length": u32(integer("max_position_embeddings")),
            f"{a}.embedding_length": u32(self.n_embd),
            f"{a}.block_count": u32(self.n_layers),
            f"{a}.feed_forward_length": u32(integer("intermediate_size")),
            f"{a}.rope.dimension_count": u32(int(share * self.head_dim)),
            f"{a}.attention.head_count": u32(self.n_heads),
            f"{a}.use_parallel_residual": boolean(bool(self.config.find("use_parallel_residual"))),
            f"{a}.attention.layer_norm_epsilon": f32(self.config.number("layer_norm_eps")),
        }
        return out | self.rope.other_base(a)

    def data(self, name: str, weights: Weights) -> Weights:
        """All of q, then k, then v."""
        if ".attn_qkv." not in name:
            return weights
        n, d = self.n_heads, self.head_dim
        if weights.shape[0] != 3 * n * d:
            raise ConvertError(
                f"{self.config.folder}: `{name}` has {weights.shape[0]} rows, not 3 times {n} heads of {d}"
            )
        parts = [Sliced(weights, (3 * i + part) * d, (3 * i + part + 1) * d) for part in range(3) for i in range(n)]
        return Concatenated(parts)
