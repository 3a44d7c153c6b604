"""StarCoder 2: layer norms and biases everywhere, an MLP without gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, gelu_tanh, layer_norm
from tests.factories import tensor_shapes, write_checkpoint

CONFIG: dict[str, Any] = {
    "architectures": ["Starcoder2ForCausalLM"],
    "model_type": "starcoder2",
    "attention_bias": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 64,
    "intermediate_size": 256,
    "max_position_embeddings": 16384,
    "mlp_bias": True,
    "norm_epsilon": 1e-5,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rope_theta": 999999.4420358813,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
    "use_bias": True,
    "vocab_size": 49152,
}


def _starcoder2(folder: Path, **config: Any) -> Path:
    c = {**CONFIG, **config}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in tensor_shapes(c).items():
        if "gate_proj" in name:
            continue
        shapes[name.replace("up_proj", "c_fc").replace("down_proj", "c_proj")] = shape
        if name.endswith("norm.weight"):
            shapes[name.replace("weight", "bias")] = shape
    return write_checkpoint(folder, c, shapes, tokenizer=False)


class StarCoder2(Decoder):
    """Everything has a bias."""

    def norm(self, name: str, x: Floats) -> Floats:
        t = self.tensors
        return layer_norm(x, t[f"{name}.weight"], t[f"{name}.bias"], self.config["norm_epsilon"])

    def mlp(self, i: int, x: Floats) -> Floats:
        return self.linear(f"{self.at(i)}mlp.c_proj", gelu_tanh(self.linear(f"{self.at(i)}mlp.c_fc", x)))


CASES = {
    "tiny-starcoder2": Case(
        _starcoder2, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=StarCoder2, tolerance=5e-3
    ),
    "tiny-starcoder2-untied": Case(
        lambda folder: _starcoder2(folder, tie_word_embeddings=False, sliding_window=None), tokenizer="smollm2"
    ),
}
