"""Mamba2: tied and with one group of heads, and with more groups in the words of Codestral."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.convert.families import Case
from tests.convert.forward import Floats
from tests.convert.recurrent import Backbone, mamba2, write_model

HIDDEN, STATES, HEADS, LAYERS = 64, 16, 8, 2
INNER = 2 * HIDDEN


def _shapes(n_groups: int, prefix: str = "", *, output: bool = False) -> dict[str, tuple[int, ...]]:
    conv = INNER + 2 * n_groups * STATES
    out: dict[str, tuple[int, ...]] = {f"{prefix}backbone.embeddings.weight": (512, HIDDEN)}
    for i in range(LAYERS):
        p = f"{prefix}backbone.layers.{i}."
        out |= {
            f"{p}mixer.A_log": (HEADS,),
            f"{p}mixer.D": (HEADS,),
            f"{p}mixer.conv1d.bias": (conv,),
            f"{p}mixer.conv1d.weight": (conv, 1, 4),
            f"{p}mixer.dt_bias": (HEADS,),
            f"{p}mixer.in_proj.weight": (INNER + conv + HEADS, HIDDEN),
            f"{p}mixer.norm.weight": (INNER,),
            f"{p}mixer.out_proj.weight": (HIDDEN, INNER),
            f"{p}norm.weight": (HIDDEN,),
        }
    out[f"{prefix}backbone.norm_f.weight"] = (HIDDEN,)
    return out | ({f"{prefix}lm_head.weight": (512, HIDDEN)} if output else {})


def _config(**more: Any) -> dict[str, Any]:
    return {
        "architectures": ["Mamba2ForCausalLM"],
        "bos_token_id": 1,
        "conv_kernel": 4,
        "eos_token_id": 2,
        "expand": 2,
        "head_dim": INNER // HEADS,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "layer_norm_epsilon": 1e-5,
        "model_type": "mamba2",
        "n_groups": 1,
        "num_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "state_size": STATES,
        "tie_word_embeddings": True,
        "time_step_limit": [0.0, float("inf")],
        "use_bias": False,
        "use_conv_bias": True,
        "vocab_size": 512,
        **more,
    }


def _codestral(folder: Path) -> Path:
    shapes = _shapes(4, "model.", output=True)
    return write_model(folder, _config(n_groups=4, tie_word_embeddings=False), shapes, dtype="F16")


class Mamba2(Backbone):
    """`torch_forward` of transformers for one group, mamba_ssm's norm for more."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tensors = {name.removeprefix("model."): values for name, values in self.tensors.items()}

    def mixer(self, p: str, x: Floats) -> Floats:
        sizes = {"n_heads": HEADS, "n_groups": self.config["n_groups"], "n_states": STATES}
        return self.linear(f"{p}out_proj", mamba2(self, p, self.linear(f"{p}in_proj", x), **sizes))


CASES = {
    "tiny-mamba2": Case(lambda folder: write_model(folder, _config(), _shapes(1)), ("f16", "q8_0"), forward=Mamba2),
    "codestral-mamba": Case(_codestral, ("f16", "f32"), forward=Mamba2),
}
