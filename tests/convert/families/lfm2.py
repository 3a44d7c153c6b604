"""LFM2: convolutions and attention by turns, in the keys of the first checkpoints and in today's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, rms_norm, silu
from tests.convert.recurrent import causal_conv, write_model

HIDDEN, HEADS, KV, VOCAB = 64, 4, 2, 49152
FULL = [1, 2]


def _shapes(n_layers: int, n_ff: int, width: int, *, output: bool = False) -> dict[str, tuple[int, ...]]:
    kv = HIDDEN // HEADS * KV
    out: dict[str, tuple[int, ...]] = {"lm_head.weight": (VOCAB, HIDDEN)} if output else {}
    out |= {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.embedding_norm.weight": (HIDDEN,)}
    for i in range(n_layers):
        p = f"model.layers.{i}."
        out |= {
            f"{p}feed_forward.w1.weight": (n_ff, HIDDEN),
            f"{p}feed_forward.w2.weight": (HIDDEN, n_ff),
            f"{p}feed_forward.w3.weight": (n_ff, HIDDEN),
            f"{p}ffn_norm.weight": (HIDDEN,),
            f"{p}operator_norm.weight": (HIDDEN,),
        }
        if i not in FULL:
            out |= {
                f"{p}conv.conv.weight": (HIDDEN, 1, width),
                f"{p}conv.in_proj.weight": (3 * HIDDEN, HIDDEN),
                f"{p}conv.out_proj.weight": (HIDDEN, HIDDEN),
            }
            continue
        out |= {
            f"{p}self_attn.k_layernorm.weight": (HIDDEN // HEADS,),
            f"{p}self_attn.k_proj.weight": (kv, HIDDEN),
            f"{p}self_attn.out_proj.weight": (HIDDEN, HIDDEN),
            f"{p}self_attn.q_layernorm.weight": (HIDDEN // HEADS,),
            f"{p}self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{p}self_attn.v_proj.weight": (kv, HIDDEN),
        }
    return out


def _config(**more: Any) -> dict[str, Any]:
    return {
        "architectures": ["Lfm2ForCausalLM"],
        "block_auto_adjust_ff_dim": True,
        "block_ffn_dim_multiplier": 1.0,
        "block_multiple_of": 32,
        "bos_token_id": 1,
        "conv_L_cache": 3,
        "conv_bias": False,
        "eos_token_id": 2,
        "hidden_size": HIDDEN,
        "max_position_embeddings": 2048,
        "model_type": "lfm2",
        "norm_eps": 1e-5,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "vocab_size": VOCAB,
        **more,
    }


def _tied(folder: Path) -> Path:
    """As LFM2-1.2B: which layers attend is a list, some keys have older names, the MLP is two thirds as wide."""
    config = _config(block_dim=HIDDEN, block_ff_dim=200, full_attn_idxs=FULL, theta=1000000.0, num_hidden_layers=4)
    config |= {"num_heads": HEADS, "rope_theta": 1000000.0, "tie_embedding": True, "use_pos_enc": True}
    return write_model(folder, config, _shapes(4, 160, 3), tokenizer=False)


def _untied(folder: Path) -> Path:
    """As transformers writes it now."""
    kinds = ["full_attention" if i in FULL else "conv" for i in range(3)]
    config = _config(intermediate_size=96, block_auto_adjust_ff_dim=False, layer_types=kinds, num_hidden_layers=3)
    config |= {"conv_L_cache": 4, "rope_theta": 50000.0, "tie_word_embeddings": False}
    return write_model(folder, config, _shapes(3, 96, 4, output=True), dtype="F16", tokenizer=False)


class Lfm2(Decoder):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.eps = self.config["norm_eps"]

    def norm(self, name: str, x: Floats) -> Floats:
        return super().norm("model.embedding_norm" if name == "model.norm" else name, x)

    def layer(self, i: int, x: Floats) -> Floats:
        p = self.at(i)
        y = self.norm(f"{p}operator_norm", x)
        x = x + (self.attention(i, y) if i in FULL else self.conv(f"{p}conv.", y))
        y, p = self.norm(f"{p}ffn_norm", x), f"{p}feed_forward."
        return x + self.linear(f"{p}w2", silu(self.linear(f"{p}w1", y)) * self.linear(f"{p}w3", y))

    def conv(self, p: str, x: Floats) -> Floats:
        b, c, x = np.split(self.linear(f"{p}in_proj", x), 3, -1)
        return self.linear(f"{p}out_proj", c * causal_conv(b * x, self.tensors[f"{p}conv.weight"]))

    def attention(self, i: int, x: Floats) -> Floats:
        q, k, v = self.qkv(i, x)
        q, k = (
            self.position(i, rms_norm(m, self.tensors[f"{self.at(i)}self_attn.{n}_layernorm.weight"], self.eps))
            for n, m in (("q", q), ("k", k))
        )
        return self.linear(f"{self.at(i)}self_attn.out_proj", self.attend(i, q, k, v))


CASES = {
    "tiny-lfm2": Case(_tied, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=Lfm2),
    "lfm2-untied": Case(_untied, ("f16",), tokenizer="smollm2", forward=Lfm2),
}
