"""EXAONE 3.0 and 3.5: Llama's parts under GPT-2's names."""

from __future__ import annotations

from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, u32
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, full_width, only, whole_rotary


class Exaone(Architecture):
    """Its norms are RMS norms, though config.json calls their epsilon `layer_norm_epsilon`."""

    name = "exaone"
    hf_names: ClassVar[tuple[str, ...]] = ("ExaoneForCausalLM",)
    models = "EXAONE 3.0 and 3.5"
    names: ClassVar[dict[str, str]] = {
        "transformer.wte": "token_embd",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
        "transformer.h.{}.ln_1": "blk.{}.attn_norm",
        "transformer.h.{}.attn.attention.q_proj": "blk.{}.attn_q",
        "transformer.h.{}.attn.attention.k_proj": "blk.{}.attn_k",
        "transformer.h.{}.attn.attention.v_proj": "blk.{}.attn_v",
        "transformer.h.{}.attn.attention.out_proj": "blk.{}.attn_output",
        "transformer.h.{}.ln_2": "blk.{}.ffn_norm",
        "transformer.h.{}.mlp.c_fc_0": "blk.{}.ffn_gate",
        "transformer.h.{}.mlp.c_fc_1": "blk.{}.ffn_up",
        "transformer.h.{}.mlp.c_proj": "blk.{}.ffn_down",
    }
    biases: ClassVar[frozenset[str] | None] = frozenset(
        {"blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v", "blk.{}.attn_output"}
    )
    scalings: ClassVar[frozenset[str | None]] = frozenset({None, "linear", "yarn", "llama3"})

    def defaults(self, config: Config) -> dict[str, Any]:
        """llama.cpp's graph asks for the epsilon of an RMS norm; its converter writes the other key only."""
        return {"rms_norm_eps": config.number("layer_norm_epsilon", default=1e-5)}

    def check(self) -> None:
        """Whole heads are rotated."""
        super().check()
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)
        whole_rotary(self.config, self.name, self.rope)
        only(self.config, self.name, "activation_function", *SILU)

    def late_metadata(self) -> dict[str, Value]:
        """See `ExaoneModel.set_gguf_parameters` of conversion/exaone.py at llama.cpp 0c1e57098."""
        return {f"{self.name}.rope.dimension_count": u32(self.head_dim)}
