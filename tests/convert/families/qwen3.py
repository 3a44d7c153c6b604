"""Qwen3: norms on q and k, heads with a width of their own; tied and untied; the byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, rms_norm
from tests.convert.tensors import Shapes, standard, write_tensors
from tests.factories import make_checkpoint

SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 512,
    "attention_bias": False,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 40960,
    "max_window_layers": 2,
    "use_sliding_window": False,
    "sliding_window": None,
    "tie_word_embeddings": True,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def attention(c: dict[str, Any]) -> Shapes:
    """Of one layer, in the order of published checkpoints."""
    h, heads, kv, d = (c[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"))
    return {
        "self_attn.k_norm.weight": (d,),
        "self_attn.k_proj.weight": (kv * d, h),
        "self_attn.o_proj.weight": (h, heads * d),
        "self_attn.q_norm.weight": (d,),
        "self_attn.q_proj.weight": (heads * d, h),
        "self_attn.v_proj.weight": (kv * d, h),
    }


def make_qwen3(folder: Path, *, tokenizer: bool = True, **config: Any) -> Path:
    c = {**SMALL, **config}
    h, f = c["hidden_size"], c["intermediate_size"]
    mlp = {"mlp.down_proj.weight": (h, f), "mlp.gate_proj.weight": (f, h), "mlp.up_proj.weight": (f, h)}
    norms = {"input_layernorm.weight": (h,), "post_attention_layernorm.weight": (h,)}
    make_checkpoint(folder, "Qwen3ForCausalLM", "qwen3", c, tokenizer=tokenizer)
    return write_tensors(folder, standard(c, {**norms, **mlp, **attention(c)}))


class Qwen3(Decoder):
    """q and k are normalized in each head before they are rotated."""

    def qkv(self, i: int, x: Floats) -> tuple[Floats, Floats, Floats]:
        q, k, v = super().qkv(i, x)
        p = f"{self.at(i)}self_attn."
        q = rms_norm(q, self.tensors[f"{p}q_norm.weight"], self.eps)
        return q, rms_norm(k, self.tensors[f"{p}k_norm.weight"], self.eps), v


VERSION5 = {"rope_theta": 1000000.0, "rope_type": "default"}
"""As transformers 5 writes it."""

CASES = {
    "tiny-qwen3": Case(make_qwen3, ("f16", "bf16", "q8_0"), forward=Qwen3),
    "tiny-qwen3-untied": Case(lambda folder: make_qwen3(folder, tie_word_embeddings=False), forward=Qwen3),
    "tiny-qwen3-version5": Case(lambda folder: make_qwen3(folder, rope_parameters=VERSION5, rope_theta=None)),
    "tiny-qwen3-bpe": Case(
        lambda folder: make_qwen3(folder, tokenizer=False, vocab_size=49152, rope_scaling=YARN, num_hidden_layers=1),
        tokenizer="smollm2",
    ),
}
