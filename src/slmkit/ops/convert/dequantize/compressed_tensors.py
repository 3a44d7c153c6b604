"""`compressed-tensors`: what llm-compressor and vLLM write.

`dequant_simple` and `dequant_packed` in conversion/base.py at llama.cpp 0c1e57098,
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/base.py. What llama.cpp's converter leaves out (one
scale for all, groups of unpacked weights, zero points of unpacked weights, one packed group for each row) follows the
library itself: https://github.com/vllm-project/compressed-tensors/tree/0.10.2/src/compressed_tensors/compressors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slmkit.errors import ConvertError
from slmkit.ops.convert.dequantize.checkpoint import ACTIVATIONS, Quantized
from slmkit.ops.convert.dequantize.sources import Packed, Scaled
from slmkit.ops.convert.encode import FLOATS

PLAIN = ("float-quantized", "int-quantized", "naive-quantized")


def compressed_tensors(checkpoint: Quantized) -> None:
    """`quant_method: compressed-tensors`."""
    scheme, layout = _scheme(checkpoint)
    checkpoint.drop(*ACTIVATIONS, ".input_zero_point")
    if layout == "pack-quantized":
        _packed(checkpoint, scheme)
    elif layout in PLAIN:
        _unpacked(checkpoint, scheme)
    else:
        raise checkpoint.refuse(f"its layout is `{layout}`, only {', '.join(PLAIN)} and pack-quantized can be read")


def _scheme(checkpoint: Quantized) -> tuple[Mapping[str, Any], str]:
    """How weights were quantized, and how they are laid out; the same for all of them."""
    match checkpoint.settings.get("sparsity_config"):
        case {"format": str(sparse)} if sparse != "dense":
            raise checkpoint.refuse(f"its weights are sparse (`{sparse}`)")
    match checkpoint.settings:
        case {"config_groups": {**groups}} if len(groups) > 1:
            raise checkpoint.refuse(f"it has {len(groups)} ways of quantizing (`config_groups`), only one can be read")
        case {"config_groups": {**groups}} if groups:
            (group,) = groups.values()
        case _:
            group = None
    match group:
        case {"weights": dict(scheme), **others}:
            return scheme, str(others.get("format") or checkpoint.settings.get("format"))
    raise checkpoint.refuse("it does not say how its weights were quantized (`config_groups`)")


def _unpacked(checkpoint: Quantized, scheme: Mapping[str, Any]) -> None:
    """8-bit numbers, each in a byte of its own."""
    match scheme.get("strategy"), scheme.get("block_structure"), scheme.get("group_size"):
        case (("tensor" | "channel"), _, _):
            block = None
        case "block", [int(rows), int(columns)], _ if rows > 0 and columns > 0:
            block = (rows, columns)
        case "group", _, int(size) if size > 0:
            block = (1, size)
        case strategy, structure, size:
            raise checkpoint.refuse(f"scales by {strategy!r} ({structure!r}, {size!r}) are not known")
    for name in checkpoint.names(".weight_scale"):
        zero = f"{name}.weight_zero_point"
        where = zero if zero in checkpoint.stored else None
        checkpoint.scale(f"{name}.weight", f"{name}.weight_scale", block, where)


def _packed(checkpoint: Quantized, scheme: Mapping[str, Any]) -> None:
    """Integers of 4 or 8 bits, packed along the rows into 32-bit ones; zero points along the columns."""
    bits, size = scheme.get("num_bits"), scheme.get("group_size")
    if scheme.get("type", "int") != "int" or bits not in (4, 8):
        raise checkpoint.refuse(f"its packed weights are {scheme.get('type')} of {bits!r} bits, not integers of 4 or 8")
    for name in checkpoint.names(".weight_packed"):
        weight = f"{name}.weight"
        if f"{weight}_g_idx" in checkpoint.stored:
            raise checkpoint.refuse(f"the inputs of `{weight}` are in the order of their activations (`g_idx`)")
        words = checkpoint.take(f"{weight}_packed", weight, ("I32",), 2)
        scale = checkpoint.take(f"{weight}_scale", weight, FLOATS, 2)
        checkpoint.take(f"{weight}_shape", weight, ("I64", "I32"), 1)
        rows, per_word = words.shape[0], 32 // bits
        match scheme.get("strategy"):
            case "group" if type(size) is int and size > 0:
                columns = scale.shape[1] * size
            case "channel":
                columns = size = words.shape[1] * per_word
            case strategy:
                raise checkpoint.refuse(f"packed weights with scales by {strategy!r} (size {size!r}) are not known")
        zero: Packed | float = float(1 << (bits - 1))
        if f"{weight}_zero_point" in checkpoint.stored:
            zeros = checkpoint.take(f"{weight}_zero_point", weight, ("I32",), 2)
            zero = Packed(zeros, bits, 0, (rows, scale.shape[1]))
            fits = zeros.shape == (-(-rows // per_word), scale.shape[1])
        else:
            fits = True
        if not fits or scale.shape != (rows, -(-columns // size)) or words.shape[1] != -(-columns // per_word):
            raise ConvertError(
                f"{words.path}: tensor `{words.name}`, {list(words.shape)}, does not go with its scales, "
                f"{list(scale.shape)}, in groups of {size}"
            )
        checkpoint.weights[weight] = Scaled(Packed(words, bits, 1, (rows, columns)), scale, (1, size), zero)
