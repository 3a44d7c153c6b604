"""FP8 weights with their scales, of `fp8` (transformers, DeepSeek, AutoFP8) and `modelopt`.

A weight is its 8-bit float times `weight_scale_inv` or `weight_scale`: one for all, for each row, or for each block of
`weight_block_size`. `dequant_model` in conversion/base.py at llama.cpp 0c1e57098,
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/base.py; `weight_scale` under `fp8` is AutoFP8's name
for it, https://github.com/vllm-project/vllm/blob/v0.6.0/vllm/model_executor/layers/quantization/fp8.py.
"""

from __future__ import annotations

from slmkit.ops.convert.dequantize.checkpoint import ACTIVATIONS, Quantized


def fp8(checkpoint: Quantized) -> None:
    """`quant_method: fp8`."""
    match checkpoint.settings.get("weight_block_size"):
        case None:
            block = None
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            block = (rows, columns)
        case other:
            raise checkpoint.refuse(f"`weight_block_size` is {other!r}, not two sizes")
    _scale(checkpoint, block)


def modelopt(checkpoint: Quantized) -> None:
    """`quant_method: modelopt`, of which only FP8 is plain."""
    algorithm = checkpoint.settings.get("quant_algo")
    if algorithm != "FP8":
        raise checkpoint.refuse(f"its weights are {algorithm}, only FP8 can be read")
    _scale(checkpoint, None)


def _scale(checkpoint: Quantized, block: tuple[int, int] | None) -> None:
    checkpoint.drop(*ACTIVATIONS)
    for name in checkpoint.names("_scale_inv"):
        checkpoint.scale(name, f"{name}_scale_inv", block)
    for name in checkpoint.names(".weight_scale"):
        checkpoint.scale(f"{name}.weight", f"{name}.weight_scale", block)
