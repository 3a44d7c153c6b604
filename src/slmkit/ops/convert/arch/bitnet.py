"""BitNet b1.58 as 1bitLLM reproduced it: Llama with two norms more and weights of three values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, f32, string
from slmkit.ops.convert.architecture import STANDARD_NAMES, Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, heads_of_width, only, whole_heads, whole_rotary
from slmkit.ops.convert.ternary import Ternarized, Unpacked
from slmkit.ops.convert.weights import Weights

_TERNARY = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


class Bitnet(Architecture):
    """Checkpoints have the weights as they were trained; running the model rounds them, and so does the converter."""

    name = "bitnet"
    hf_names: ClassVar[tuple[str, ...]] = ("BitnetForCausalLM",)
    models = "1bitLLM's bitnet_b1_58"
    refused: ClassVar[Mapping[str, tuple[str, str]]] = {
        "BitNetForCausalLM": (
            "llama.cpp cannot run BitNetForCausalLM (Microsoft's BitNet b1.58 2B 4T): its MLP is a squared ReLU, while "
            "llama.cpp's bitnet has SiLU, and llama.cpp does not know its norms `attn_sub_norm` and `ffn_sub_norm`",
            "run it with bitnet.cpp: https://github.com/microsoft/BitNet",
        )
    }
    names: ClassVar[Mapping[str, str]] = {
        **{name: target for name, target in STANDARD_NAMES.items() if target != "output"},
        "model.layers.{}.self_attn.inner_attn_ln": "blk.{}.attn_sub_norm",
        "model.layers.{}.mlp.ffn_layernorm": "blk.{}.ffn_sub_norm",
    }
    biases: ClassVar[frozenset[str] | None] = frozenset()
    scalings: ClassVar[frozenset[str | None]] = frozenset({None})

    def defaults(self, config: Config) -> dict[str, Any]:
        """Of LlamaConfig, which 1bitLLM's config.json names as its `model_type`."""
        heads = config.integer("num_attention_heads")
        return {
            "head_dim": config.integer("hidden_size") // heads,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "num_key_value_heads": heads,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
        }

    def check(self) -> None:
        """What src/models/bitnet.cpp cannot do."""
        super().check()
        only(self.config, self.name, "hidden_act", *SILU)
        only(self.config, self.name, "tie_word_embeddings", True)
        only(self.config, self.name, "weight_bits", 1)
        whole_heads(self.config, self.n_heads, self.n_kv_heads, self.head_dim)
        whole_rotary(self.config, self.name, self.rope)
        heads_of_width(self.config, self.name, self.n_heads, self.head_dim, self.n_embd)

    def late_metadata(self) -> dict[str, Value]:
        """Without effect, and written by llama.cpp's converter (`BitnetModel` in conversion/bitnet.py, 0c1e57098)."""
        return {f"{self.name}.rope.scaling.type": string("linear"), f"{self.name}.rope.scaling.factor": f32(1.0)}

    def data(self, name: str, weights: Weights) -> Weights:
        """The seven matrices of a layer have three values; those of a packed checkpoint have them already."""
        ternary = name.split(".")[-2] in _TERNARY and not isinstance(weights, Unpacked)
        return Ternarized(weights) if ternary else weights
