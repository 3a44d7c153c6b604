"""Ternary models: BitNet b1.58 with weights yet to be rounded, and a Llama whose weights come packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from slmkit.formats.safetensors import read_checkpoint
from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, silu
from tests.convert.tensors import standard, write_tensors
from tests.factories import Array, make_checkpoint, tensor_shapes

SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "tie_word_embeddings": True,
}


def make_bitnet(folder: Path, *, dtype: str = "BF16") -> Path:
    c = {**SMALL, "weight_bits": 1, "input_bits": 8}
    h, f = c["hidden_size"], c["intermediate_size"]
    layer = {
        "input_layernorm.weight": (h,),
        "mlp.down_proj.weight": (h, f),
        "mlp.ffn_layernorm.weight": (f,),
        "mlp.gate_proj.weight": (f, h),
        "mlp.up_proj.weight": (f, h),
        "post_attention_layernorm.weight": (h,),
        "self_attn.inner_attn_ln.weight": (h,),
        "self_attn.k_proj.weight": (h // 2, h),
        "self_attn.o_proj.weight": (h, h),
        "self_attn.q_proj.weight": (h, h),
        "self_attn.v_proj.weight": (h // 2, h),
    }
    make_checkpoint(folder, "BitnetForCausalLM", "llama", c)
    return write_tensors(folder, standard(c, layer), dtype=dtype)


def make_packed(folder: Path, **how: Any) -> Path:
    """A Llama of ternary matrices, four rows to a byte; a scale of each matrix beside it."""
    c = {**SMALL, "model_type": "llama", "quantization_config": {"quant_method": "bitnet", **how}}
    make_checkpoint(folder, "LlamaForCausalLM", "llama", c)
    shapes, ready = {}, {}
    for number, (name, shape) in enumerate(tensor_shapes(c).items()):
        if not name.endswith("_proj.weight"):
            shapes[name] = shape
            continue
        rng = np.random.default_rng(number)
        ready[name] = pack(rng.integers(-1, 2, shape))
        ready[f"{name}_scale"] = np.array([17 + number], np.float32)
    return write_tensors(folder, shapes, ready=ready)


def pack(x: Array) -> Array:
    """The first quarter of the rows in the low bits, the last one in the high ones."""
    first, second, third, fourth = np.split((x + 1).astype(np.uint8), 4)
    out: Array = first | second << 2 | third << 4 | fourth << 6
    return out


class Bitnet(Decoder):
    """The weights of a layer's matrices are rounded to three values, and two norms come between.

    What the model does beyond that, rounding activations to 8 bits, llama.cpp does not do in f32.
    """

    def attention(self, i: int, x: Floats) -> Floats:
        q, k, v = self.qkv(i, x)
        p = f"{self.at(i)}self_attn."
        mixed = self.attend(i, self.position(i, q), self.position(i, k), v)
        return self.linear(f"{p}o_proj", self.norm(f"{p}inner_attn_ln", mixed))

    def mlp(self, i: int, x: Floats) -> Floats:
        p = f"{self.at(i)}mlp."
        inner = silu(self.linear(f"{p}gate_proj", x)) * self.linear(f"{p}up_proj", x)
        return self.linear(f"{p}down_proj", self.norm(f"{p}ffn_layernorm", inner))

    def linear(self, name: str, x: Floats) -> Floats:
        weight = self.tensors[f"{name}.weight"]
        scale = np.abs(weight).mean()
        return x @ (np.clip(np.round(weight / scale), -1, 1) * scale).T


class Packed(Decoder):
    """The four quarters of the rows are unpacked and divided by the scale."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name, tensor in read_checkpoint(folder).items():
            if tensor.dtype == "U8":
                packed = tensor.read(0, tensor.n_elements).reshape(tensor.shape)
                rows = np.concatenate([packed >> shift & 3 for shift in (0, 2, 4, 6)]).astype(np.float32) - 1
                self.tensors[name] = rows / self.tensors[f"{name}_scale"]


TERNARY = ("f16", "tq1_0", "tq2_0")
CASES = {
    "tiny-bitnet": Case(make_bitnet, (*TERNARY, "bf16", "q8_0"), forward=Bitnet),
    "tiny-bitnet-halves": Case(lambda folder: make_bitnet(folder, dtype="F16"), TERNARY),
    # Without the option llama.cpp's converter dies of two devices in one sum (torch 2.13).
    "tiny-packed": Case(make_packed, (*TERNARY, "f32"), forward=Packed, upstream=("--no-lazy",)),
}
