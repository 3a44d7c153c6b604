"""Checkpoints that are quantized already, in each format that llama.cpp's converter reads: a Llama's seven matrices.

Codes, scales and zero points are random, so that each of them matters; what they stand for is another matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.formats.safetensors import Entry, read_checkpoint, write_file
from tests.convert.families import Case
from tests.factories import as_dtype, make_checkpoint, write_json

Array = npt.NDArray[Any]
Parts = dict[str, tuple[str, Array]]
"""What a matrix is stored as: end of the name -> dtype and data."""

SHAPE = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 1}


def make_quantized(
    folder: Path, settings: Mapping[str, Any], parts: Callable[[tuple[int, ...], np.random.Generator], Parts]
) -> Path:
    """A Llama whose `_proj` matrices are `parts(shape, rng)`; what these end in replaces `weight`."""
    make_checkpoint(folder, "LlamaForCausalLM", "llama", {**SHAPE, "attention_bias": True}, dtype="F16")
    rng = np.random.default_rng(7)
    entries: list[Entry] = []
    for tensor in read_checkpoint(folder).values():
        if not tensor.name.endswith("_proj.weight"):
            entries.append(Entry(tensor.name, tensor.dtype, tensor.shape, list(tensor.chunks())))
            continue
        base = tensor.name.removesuffix("weight")
        made = parts(tensor.shape, rng).items()
        entries += [Entry(base + suffix, dtype, data.shape, [data]) for suffix, (dtype, data) in made]
    write_file(folder / "model.safetensors", entries)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    write_json(path, {**config, "quantization_config": dict(settings)} if settings else config)
    return folder


def small(rng: np.random.Generator, *shape: int, dtype: str = "F16") -> tuple[str, Array]:
    """Positive scales around 0.01."""
    return dtype, as_dtype(rng.uniform(0.002, 0.02, shape).astype(np.float32), dtype)


def words(rng: np.random.Generator, *shape: int) -> tuple[str, Array]:
    """All bits of 32-bit integers."""
    return "I32", rng.integers(-(1 << 31), 1 << 31, shape, np.int64).astype(np.int32)


def float8(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "F8_E4M3") -> tuple[str, Array]:
    """Every byte that is a finite number."""
    limit = 0x7E if dtype == "F8_E4M3" else 0x7B
    signs = rng.integers(0, 2, shape, np.uint8) << np.uint8(7)
    return dtype, rng.integers(0, limit + 1, shape, np.uint8) | signs


def int8(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[str, Array]:
    return "I8", rng.integers(-128, 128, shape, np.int8)


def blocks(shape: tuple[int, ...], *block: int) -> tuple[int, ...]:
    return tuple(-(-n // size) for n, size in zip(shape, block, strict=True))


def fp8_blocks(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
    """As DeepSeek and Qwen publish it; blocks that do not divide the matrix."""
    return {"weight": float8(rng, shape), "weight_scale_inv": small(rng, *blocks(shape, 64, 64), dtype="BF16")}


def fp8_static(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
    """As Mistral publishes it: one scale, and one for the activations."""
    one = small(rng, dtype="BF16")
    return {"weight": float8(rng, shape), "weight_scale_inv": one, "activation_scale": one}


def fp8_channel(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
    return {"weight": float8(rng, shape), "weight_scale": small(rng, shape[0], 1, dtype="BF16")}


def int8_channel(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
    return {"weight": int8(rng, shape), "weight_scale": small(rng, shape[0], 1)}


def fp8_compressed_blocks(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
    return {"weight": float8(rng, shape), "weight_scale": small(rng, *blocks(shape, 32, 64), dtype="F32")}


def packed(bits: int, zeros: bool) -> Callable[[tuple[int, ...], np.random.Generator], Parts]:
    """compressed-tensors' integers in groups of 32."""

    def parts(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
        rows, columns = shape
        out = {
            "weight_packed": words(rng, rows, columns * bits // 32),
            "weight_scale": small(rng, rows, columns // 32),
            "weight_shape": ("I64", np.array(shape, np.int64)),
        }
        if zeros:
            out["weight_zero_point"] = words(rng, rows * bits // 32, columns // 32)
        return out

    return parts


def gptq(bits: int, ordered: bool) -> Callable[[tuple[int, ...], np.random.Generator], Parts]:
    """Groups of 32 inputs, in the order of the inputs or in any."""

    def parts(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
        rows, columns = shape
        groups = (np.arange(columns) // 32).astype(np.int32)
        return {
            "g_idx": ("I32", groups if ordered else rng.permutation(groups)),
            "qweight": words(rng, columns * bits // 32, rows),
            "qzeros": words(rng, columns // 32, rows * bits // 32),
            "scales": small(rng, columns // 32, rows),
        }

    return parts


def modelopt(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
    """One scale, F32; `k_scale` and `v_scale` would be for the KV cache."""
    return {
        "weight": float8(rng, shape),
        "weight_scale": small(rng, dtype="F32"),
        "input_scale": small(rng, dtype="F32"),
        "k_scale": small(rng, dtype="F32"),
    }


def plain_float8(dtype: str) -> Callable[[tuple[int, ...], np.random.Generator], Parts]:
    return lambda shape, rng: {"weight": float8(rng, shape, dtype)}


def doubles(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
    return {"weight": ("F64", rng.standard_normal(shape))}


def compressed(form: str, **weights: object) -> dict[str, object]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}}


def _case(
    settings: Mapping[str, Any],
    parts: Callable[[tuple[int, ...], np.random.Generator], Parts],
    *outtypes: str,
) -> Case:
    return Case(lambda folder: make_quantized(folder, settings, parts), outtypes or ("f16",))


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
GPTQ = {"quant_method": "gptq", "group_size": 32}
FLOATS8 = {"num_bits": 8, "type": "float", "symmetric": True}
INTS = {"type": "int", "group_size": 32}

CASES = {
    "fp8-blocks": _case({**FP8, "weight_block_size": [64, 64]}, fp8_blocks, "f16", "bf16", "q8_0", "auto"),
    "fp8-static": _case({**FP8, "activation_scheme": "static", "weight_block_size": None}, fp8_static),
    "fp8-e4m3-plain": _case({}, plain_float8("F8_E4M3")),
    "fp8-e5m2-plain": _case({}, plain_float8("F8_E5M2")),
    "fp8-modelopt": _case({"quant_method": "modelopt", "quant_algo": "FP8"}, modelopt),
    "ct-fp8-channel": _case(compressed("float-quantized", strategy="channel", **FLOATS8), fp8_channel),
    "ct-fp8-blocks": _case(
        compressed("naive-quantized", strategy="block", block_structure=[32, 64], **FLOATS8), fp8_compressed_blocks
    ),
    "ct-int8-channel": _case(
        compressed("int-quantized", strategy="channel", num_bits=8, type="int", symmetric=True), int8_channel
    ),
    "ct-int4-zeros": _case(compressed("pack-quantized", strategy="group", num_bits=4, **INTS), packed(4, True)),
    "ct-int4": _case(compressed("pack-quantized", strategy="group", num_bits=4, **INTS), packed(4, False)),
    "ct-int8-zeros": _case(compressed("pack-quantized", strategy="group", num_bits=8, **INTS), packed(8, True)),
    "gptq-4bit": _case({**GPTQ, "bits": 4, "desc_act": True}, gptq(4, False), "f16", "auto"),
    "gptq-8bit": _case({**GPTQ, "bits": 8, "checkpoint_format": "gptq"}, gptq(8, True)),
    "gptq-2bit-v2": _case({**GPTQ, "bits": 2, "checkpoint_format": "gptq_v2"}, gptq(2, True)),
    "doubles": _case({}, doubles, "f16", "f32"),
}
