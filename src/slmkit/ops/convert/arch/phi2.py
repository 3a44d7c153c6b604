"""Phi-1, Phi-1.5 and Phi-2: attention and MLP side by side, biases everywhere, a part of each head rotated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, boolean, f32, u32
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import GELU_TANH, heads_of_width, only, rotated, whole_heads

_THETA = 10000.0
"""What llama.cpp takes when the file names no other base."""


class Phi2(Architecture):
    """LayerNorm, and one of them for both branches."""

    name = "phi2"
    hf_names: ClassVar[tuple[str, ...]] = ("PhiForCausalLM",)
    models = "Phi-1, Phi-1.5, Phi-2"
    names: ClassVar[Mapping[str, str]] = {
        "model.embed_tokens": "token_embd",
        "model.final_layernorm": "output_norm",
        "lm_head": "output",
        "model.layers.{}.input_layernorm": "blk.{}.attn_norm",
        "model.layers.{}.self_attn.q_proj": "blk.{}.attn_q",
        "model.layers.{}.self_attn.k_proj": "blk.{}.attn_k",
        "model.layers.{}.self_attn.v_proj": "blk.{}.attn_v",
        "model.layers.{}.self_attn.dense": "blk.{}.attn_output",
        "model.layers.{}.mlp.fc1": "blk.{}.ffn_up",
        "model.layers.{}.mlp.fc2": "blk.{}.ffn_down",
    }
    optional: ClassVar[frozenset[str]] = frozenset()
    biases: ClassVar[frozenset[str] | None] = frozenset(names.values()) - {"token_embd"}
    scalings: ClassVar[frozenset[str | None]] = frozenset({None})

    def defaults(self, config: Config) -> dict[str, Any]:
        """Of PhiConfig in transformers 4.57."""
        return {
            "hidden_act": "gelu_new",
            "intermediate_size": 4 * config.integer("hidden_size"),
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": 2048,
            "partial_rotary_factor": 0.5,
            "rope_theta": _THETA,
        }

    @property
    def n_rotated(self) -> int:
        """Rotated dimensions of each head."""
        return rotated(self.config, self.rope, self.n_heads, self.n_embd)

    def check(self) -> None:
        """What src/models/phi2.cpp cannot do."""
        super().check()
        only(self.config, self.name, "hidden_act", *GELU_TANH)
        only(self.config, self.name, "qk_layernorm", False)
        only(self.config, self.name, "tie_word_embeddings", False)
        whole_heads(self.config, self.n_heads, self.n_kv_heads, self.head_dim)
        heads_of_width(self.config, self.name, self.n_heads, self.head_dim, self.n_embd)
        rotated(self.config, self.rope, self.n_heads, self.n_embd)

    def metadata(self) -> dict[str, Value]:
        """In the order of `Phi2Model` in conversion/phi.py at llama.cpp 0c1e57098, which writes no base of the rope."""
        a, config = self.name, self.config
        out = {
            f"{a}.context_length": u32(config.integer("n_positions", "max_position_embeddings")),
            f"{a}.embedding_length": u32(self.n_embd),
            f"{a}.feed_forward_length": u32(config.integer("intermediate_size")),
            f"{a}.block_count": u32(self.n_layers),
            f"{a}.attention.head_count": u32(self.n_heads),
            f"{a}.attention.head_count_kv": u32(self.n_kv_heads),
            f"{a}.attention.layer_norm_epsilon": f32(config.number("layer_norm_epsilon", "layer_norm_eps")),
            f"{a}.rope.dimension_count": u32(self.n_rotated),
        }
        theta = self.rope.main["rope_theta"]
        return out if theta == _THETA else out | {f"{a}.rope.freq_base": f32(theta)}

    def late_metadata(self) -> dict[str, Value]:
        """The tokenizer's own word on this comes later and counts."""
        return {"tokenizer.ggml.add_bos_token": boolean(False)}

    def required(self) -> Iterator[str]:
        """llama.cpp insists on the biases, too; only those of q, k and v may be absent."""
        yield from super().required()
        for template in sorted(self.biases or ()):
            if not template.endswith(("attn_q", "attn_k", "attn_v")):
                for layer in range(self.n_layers if "{}" in template else 1):
                    yield f"{template.format(layer)}.bias"
