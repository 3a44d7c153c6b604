"""GPT-2: learned positions, one fused matrix for q, k and v, matrices stored the other way round."""

from __future__ import annotations

from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, f32, u32
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import GELU, full_width, only
from slmkit.ops.convert.weights import Transposed, Weights

_TRANSPOSED = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")


class Gpt2(Architecture):
    """Some checkpoints have names that begin with `transformer.`, some have not."""

    name = "gpt2"
    hf_names: ClassVar[tuple[str, ...]] = ("GPT2LMHeadModel",)
    models = "GPT-2, DistilGPT2"
    names: ClassVar[dict[str, str]] = {
        "wte": "token_embd",
        "wpe": "position_embd",
        "ln_f": "output_norm",
        "lm_head": "output",
        "h.{}.ln_1": "blk.{}.attn_norm",
        "h.{}.attn.c_attn": "blk.{}.attn_qkv",
        "h.{}.attn.c_proj": "blk.{}.attn_output",
        "h.{}.ln_2": "blk.{}.ffn_norm",
        "h.{}.mlp.c_fc": "blk.{}.ffn_up",
        "h.{}.mlp.c_proj": "blk.{}.ffn_down",
    }
    biases: ClassVar[frozenset[str] | None] = frozenset(names.values()) - {"token_embd", "position_embd", "output"}
    needed_biases: ClassVar[frozenset[str]] = biases or frozenset()
    ignored: ClassVar[tuple[str, ...]] = (r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",)
    scalings: ClassVar[frozenset[str | None]] = frozenset({None})

    def defaults(self, config: Config) -> dict[str, Any]:
        """What transformers fills in."""
        return {
            "n_positions": config.find("n_ctx") or 1024,
            "n_inner": 4 * config.integer("n_embd"),
            "layer_norm_epsilon": 1e-5,
            "activation_function": "gelu_new",
        }

    def check(self) -> None:
        """The graph has the usual scale of scores only."""
        super().check()
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)
        only(self.config, self.name, "activation_function", *GELU)
        only(self.config, self.name, "scale_attn_weights", True)
        only(self.config, self.name, "scale_attn_by_inverse_layer_idx", False)
        only(self.config, self.name, "add_cross_attention", False)

    def metadata(self) -> dict[str, Value]:
        """`GPT2Model.set_gguf_parameters` of conversion/gpt2.py at llama.cpp 0c1e57098."""
        a, integer = self.name, self.config.integer
        return {
            f"{a}.block_count": u32(self.n_layers),
            f"{a}.context_length": u32(integer("n_positions")),
            f"{a}.embedding_length": u32(self.n_embd),
            f"{a}.feed_forward_length": u32(integer("n_inner")),
            f"{a}.attention.head_count": u32(self.n_heads),
            f"{a}.attention.layer_norm_epsilon": f32(self.config.number("layer_norm_epsilon")),
        }

    def rename(self, name: str) -> str:
        """Without the prefix."""
        return name.removeprefix("transformer.")

    def data(self, name: str, weights: Weights) -> Weights:
        """A Conv1D has its inputs in rows."""
        return Transposed(weights) if name.endswith(_TRANSPOSED) else weights
