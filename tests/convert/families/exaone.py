"""EXAONE 3.5: Llama's parts under GPT-2's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.convert.families import Case
from tests.convert.families.llama import Llama3
from tests.factories import LLAMA3_ROPE, tensor_shapes, write_checkpoint

CONFIG: dict[str, Any] = {
    "architectures": ["ExaoneForCausalLM"],
    "model_type": "exaone",
    "activation_function": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 16,
    "hidden_size": 64,
    "intermediate_size": 128,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_layers": 2,
    "rope_scaling": {**LLAMA3_ROPE, "factor": 8.0},
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "vocab_size": 49160,
}
NAMES = {
    "model.layers.": "transformer.h.",
    "model.embed_tokens": "transformer.wte",
    "model.norm": "transformer.ln_f",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.o_proj": "attn.attention.out_proj",
    "self_attn.": "attn.attention.",
    "mlp.gate_proj": "mlp.c_fc_0",
    "mlp.up_proj": "mlp.c_fc_1",
    "mlp.down_proj": "mlp.c_proj",
}


def _renamed(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(old, new)
    return name


def _exaone(folder: Path, **config: Any) -> Path:
    c = {**CONFIG, **config}
    shapes = tensor_shapes({**c, "num_hidden_layers": c["num_layers"]})
    return write_checkpoint(
        folder, c, {_renamed(name, NAMES): shape for name, shape in shapes.items()}, tokenizer=False
    )


class Exaone(Llama3):
    """The tensors by Llama's names."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        old = {
            _renamed(name, NAMES): name for name in tensor_shapes({**self.config, "num_hidden_layers": self.n_layers})
        }
        self.tensors = {old[name]: tensor for name, tensor in self.tensors.items()}
        self.eps = self.config["layer_norm_epsilon"]


CASES = {
    # llama.cpp reads the epsilon of an RMS norm; its converter does not write it unless it is called `rms_norm_eps`.
    "tiny-exaone": Case(_exaone, (), tokenizer="smollm2", forward=Exaone),
    "tiny-exaone-eps": Case(
        lambda folder: _exaone(folder, rms_norm_eps=1e-5), ("f16", "q8_0"), tokenizer="smollm2", forward=Exaone
    ),
}
