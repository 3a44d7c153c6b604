"""Mamba in transformers' words and in those of the first releases, and Falcon-Mamba with its norms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.families import Case
from tests.convert.forward import Floats, rms_norm, silu
from tests.convert.recurrent import Backbone, causal_conv, selective_scan, softplus, write_model

HIDDEN, STATES, RANK, LAYERS = 64, 16, 4, 2


def _shapes(vocab: int, embedding: str = "embeddings", *, output: bool = False) -> dict[str, tuple[int, ...]]:
    inner = 2 * HIDDEN
    out: dict[str, tuple[int, ...]] = {f"backbone.{embedding}.weight": (vocab, HIDDEN)}
    for i in range(LAYERS):
        p = f"backbone.layers.{i}."
        out |= {
            f"{p}mixer.A_log": (inner, STATES),
            f"{p}mixer.D": (inner,),
            f"{p}mixer.conv1d.bias": (inner,),
            f"{p}mixer.conv1d.weight": (inner, 1, 4),
            f"{p}mixer.dt_proj.bias": (inner,),
            f"{p}mixer.dt_proj.weight": (inner, RANK),
            f"{p}mixer.in_proj.weight": (2 * inner, HIDDEN),
            f"{p}mixer.out_proj.weight": (HIDDEN, inner),
            f"{p}mixer.x_proj.weight": (RANK + 2 * STATES, inner),
            f"{p}norm.weight": (HIDDEN,),
        }
    out["backbone.norm_f.weight"] = (HIDDEN,)
    return out | ({"lm_head.weight": (vocab, HIDDEN)} if output else {})


def _config(architecture: str, model_type: str, **more: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "bos_token_id": 1,
        "conv_kernel": 4,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "layer_norm_epsilon": 1e-5,
        "model_type": model_type,
        "num_hidden_layers": LAYERS,
        "state_size": STATES,
        "time_step_rank": RANK,
        "use_bias": False,
        "use_conv_bias": True,
        "vocab_size": 512,
        **more,
    }


def _mamba(folder: Path) -> Path:
    return write_model(folder, _config("MambaForCausalLM", "mamba"), _shapes(512))


def _halves(folder: Path) -> Path:
    """Computed in half precision, as upstream does; the tied output is there a second time."""
    same = {"lm_head.weight": "backbone.embeddings.weight"}
    config = _config("MambaForCausalLM", "mamba", tie_word_embeddings=True)
    return write_model(folder, config, _shapes(512, output=True), dtype="F16", same=same)


def _first(folder: Path) -> Path:
    """A first release: other words, a vocabulary to be rounded up, float32, a byte-level tokenizer."""
    config = {"architectures": ["MambaLMHeadModel"], "d_model": HIDDEN, "n_layer": LAYERS, "vocab_size": 49150}
    config |= {"model_type": "mamba", "pad_vocab_size_multiple": 16, "rms_norm": True, "ssm_cfg": {}}
    return write_model(folder, config, _shapes(49152, "embedding"), dtype="F32", tokenizer=False)


def _falcon(folder: Path) -> Path:
    more = {"mixer_rms_eps": 1e-5, "tie_word_embeddings": False, "expand": 16}
    config = _config("FalconMambaForCausalLM", "falcon_mamba", **more)
    return write_model(folder, config, _shapes(512, output=True))


class Mamba(Backbone):
    """`slow_forward` of transformers."""

    def mixer(self, p: str, x: Floats) -> Floats:
        t = self.tensors
        x, gate = np.split(self.linear(f"{p}in_proj", x), 2, -1)
        x = silu(causal_conv(x, t[f"{p}conv1d.weight"], t[f"{p}conv1d.bias"]))
        dt, b, c = np.split(self.linear(f"{p}x_proj", x), [RANK, RANK + STATES], -1)
        if self.config["model_type"] == "falcon_mamba":
            ones, eps = np.ones(1, np.float32), self.config["mixer_rms_eps"]
            dt, b, c = (rms_norm(part, ones, eps) for part in (dt, b, c))
        dt = softplus(self.linear(f"{p}dt_proj", dt))
        y = selective_scan(x[..., None], dt, -np.exp(t[f"{p}A_log"]), b[:, None], c[:, None])[..., 0]
        return self.linear(f"{p}out_proj", (y + x * t[f"{p}D"]) * silu(gate))


CASES = {
    "tiny-mamba": Case(_mamba, ("f16", "bf16", "q8_0"), forward=Mamba),
    "mamba-halves": Case(_halves, ("auto", "bf16")),
    "mamba-first": Case(_first, ("f16", "f32"), tokenizer="smollm2", forward=Mamba),
    "falcon-mamba": Case(_falcon, ("auto",), forward=Mamba),
}
