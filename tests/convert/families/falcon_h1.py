"""Falcon-H1: attention and Mamba2 side by side; multipliers of the published 0.5B, none of them 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, silu
from tests.convert.recurrent import mamba2, write_model

HIDDEN, HEADS, KV, DIM, VOCAB, FF = 64, 4, 2, 32, 49152, 96
INNER, SSM_HEADS, STATES = 96, 6, 16
MULTIPLIERS = {
    "attention_in_multiplier": 0.93,
    "attention_out_multiplier": 0.9375,
    "embedding_multiplier": 5.656854249492381,
    "key_multiplier": 0.390625,
    "lm_head_multiplier": 0.0390625,
    "mlp_multipliers": [0.8838834764831845, 0.5859375],
    "ssm_in_multiplier": 1.25,
    "ssm_multipliers": [0.3535533905932738, 0.25, 0.7071067811865476, 0.5, 0.31],
    "ssm_out_multiplier": 0.23570226039551587,
}


def _shapes(n_groups: int, *, norm: bool, output: bool) -> dict[str, tuple[int, ...]]:
    conv = INNER + 2 * n_groups * STATES
    out: dict[str, tuple[int, ...]] = {"lm_head.weight": (VOCAB, HIDDEN)} if output else {}
    out |= {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.final_layernorm.weight": (HIDDEN,)}
    for i in range(2):
        p = f"model.layers.{i}."
        out |= {
            f"{p}feed_forward.down_proj.weight": (HIDDEN, FF),
            f"{p}feed_forward.gate_proj.weight": (FF, HIDDEN),
            f"{p}feed_forward.up_proj.weight": (FF, HIDDEN),
            f"{p}input_layernorm.weight": (HIDDEN,),
            f"{p}mamba.A_log": (SSM_HEADS,),
            f"{p}mamba.D": (SSM_HEADS,),
            f"{p}mamba.conv1d.bias": (conv,),
            f"{p}mamba.conv1d.weight": (conv, 1, 4),
            f"{p}mamba.dt_bias": (SSM_HEADS,),
            f"{p}mamba.in_proj.weight": (INNER + conv + SSM_HEADS, HIDDEN),
            **({f"{p}mamba.norm.weight": (INNER,)} if norm else {}),
            f"{p}mamba.out_proj.weight": (HIDDEN, INNER),
            f"{p}pre_ff_layernorm.weight": (HIDDEN,),
            f"{p}self_attn.k_proj.weight": (KV * DIM, HIDDEN),
            f"{p}self_attn.o_proj.weight": (HIDDEN, HEADS * DIM),
            f"{p}self_attn.q_proj.weight": (HEADS * DIM, HIDDEN),
            f"{p}self_attn.v_proj.weight": (KV * DIM, HIDDEN),
        }
    return out


def _make(folder: Path, dtype: str = "BF16", *, n_groups: int = 1, norm: bool = False, **more: Any) -> Path:
    config = {
        "architectures": ["FalconH1ForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": FF,
        "mamba_conv_bias": True,
        "mamba_d_conv": 4,
        "mamba_d_head": INNER // SSM_HEADS,
        "mamba_d_ssm": INNER,
        "mamba_d_state": STATES,
        "mamba_expand": 2,
        "mamba_n_groups": n_groups,
        "mamba_n_heads": SSM_HEADS,
        "mamba_norm_before_gate": False,
        "mamba_proj_bias": False,
        "mamba_rms_norm": norm,
        "max_position_embeddings": 2048,
        "model_type": "falcon_h1",
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "num_key_value_heads": KV,
        "projectors_bias": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000000000.0,
        "tie_word_embeddings": False,
        "vocab_size": VOCAB,
        **MULTIPLIERS,
        **more,
    }
    shapes = _shapes(n_groups, norm=norm, output=not config["tie_word_embeddings"])
    return write_model(folder, config, shapes, dtype=dtype, tokenizer=False)


class FalconH1(Decoder):
    def embed(self, tokens: Any) -> Floats:
        return super().embed(tokens) * self.config["embedding_multiplier"]

    def head(self, x: Floats) -> Floats:
        return super().head(x) * self.config["lm_head_multiplier"]

    def norm(self, name: str, x: Floats) -> Floats:
        return super().norm("model.final_layernorm" if name == "model.norm" else name, x)

    def layer(self, i: int, x: Floats) -> Floats:
        p, c = self.at(i), self.config
        y = self.norm(f"{p}input_layernorm", x)
        attention = self.attention(i, y * c["attention_in_multiplier"]) * c["attention_out_multiplier"]
        x = x + attention + self.mamba(f"{p}mamba.", y) * c["ssm_out_multiplier"]
        y, p = self.norm(f"{p}pre_ff_layernorm", x), f"{p}feed_forward."
        gate, down = c["mlp_multipliers"]
        y = silu(self.linear(f"{p}gate_proj", y) * gate) * self.linear(f"{p}up_proj", y)
        return x + self.linear(f"{p}down_proj", y) * down

    def qkv(self, i: int, x: Floats) -> tuple[Floats, Floats, Floats]:
        q, k, v = super().qkv(i, x)
        return q, k * self.config["key_multiplier"], v

    def mamba(self, p: str, x: Floats) -> Floats:
        c = self.config
        groups = c["mamba_n_groups"]
        heights = (INNER, INNER, groups * STATES, groups * STATES, SSM_HEADS)
        x = self.linear(f"{p}in_proj", x * c["ssm_in_multiplier"]) * np.repeat(c["ssm_multipliers"], heights)
        y = mamba2(self, p, x, n_heads=SSM_HEADS, n_groups=groups, n_states=STATES)
        return self.linear(f"{p}out_proj", y)


CASES = {
    "tiny-falcon-h1": Case(_make, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=FalconH1),
    "falcon-h1-normed": Case(
        lambda folder: _make(folder, n_groups=2, norm=True), tokenizer="smollm2", forward=FalconH1
    ),
    "falcon-h1-halves": Case(lambda folder: _make(folder, "F16"), tokenizer="smollm2"),
}
