"""GPTQ and AWQ: integers packed into 32-bit ones, inputs down and outputs across, a scale for each group of inputs.

GPTQ: `dequant_gptq` in conversion/base.py at llama.cpp 0c1e57098,
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/base.py. AWQ, which that does not read:
`dequantize_gemm` in https://github.com/casper-hansen/AutoAWQ/blob/v0.2.8/awq/utils/packing_utils.py.
"""

from __future__ import annotations

from slmkit.errors import ConvertError
from slmkit.formats.safetensors import Tensor
from slmkit.ops.convert.dequantize.checkpoint import Quantized
from slmkit.ops.convert.dequantize.sources import InputMajor, Packed
from slmkit.ops.convert.encode import FLOATS

AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where the eight numbers of a 32-bit integer are: AutoAWQ's kernel wants them interleaved."""


def gptq(checkpoint: Quantized) -> None:
    """`quant_method: gptq`, checkpoint formats `gptq` and `gptq_v2` (which stores zero points as they are)."""
    if checkpoint.settings.get("bits") == 3:
        raise checkpoint.refuse("numbers of 3 bits lie across the borders of integers")
    bits = checkpoint.integer("bits", (2, 4, 8))
    form = checkpoint.settings.get("checkpoint_format") or "gptq"
    if form not in ("gptq", "gptq_v2"):
        raise checkpoint.refuse(f"its layout is {form!r}, only gptq and gptq_v2 can be read")
    for name in checkpoint.names(".qweight"):
        words = checkpoint.take(f"{name}.qweight", f"{name}.weight", ("I32",), 2)
        shape = (words.shape[0] * 32 // bits, words.shape[1])
        _add(checkpoint, name, words, Packed(words, bits, 0, shape), None, 1 if form == "gptq" else 0)


def awq(checkpoint: Quantized) -> None:
    """`quant_method: awq`, as AutoAWQ writes it for its `gemm` kernel."""
    checkpoint.integer("bits" if "bits" in checkpoint.settings else "w_bit", (4,))
    version = str(checkpoint.settings.get("version", "gemm")).lower()
    backend = checkpoint.settings.get("backend", "autoawq")
    if version != "gemm" or backend != "autoawq":
        raise checkpoint.refuse(f"its layout is that of {backend}'s {version} kernel, only autoawq's gemm can be read")
    for name in checkpoint.names(".qweight"):
        words = checkpoint.take(f"{name}.qweight", f"{name}.weight", ("I32",), 2)
        shape = (words.shape[0], words.shape[1] * 8)
        _add(checkpoint, name, words, Packed(words, 4, 1, shape, AWQ_ORDER), AWQ_ORDER, 0)


def _add(
    checkpoint: Quantized,
    name: str,
    words: Tensor,
    codes: Packed,
    order: tuple[int, ...] | None,
    zero_shift: int,
) -> None:
    """Put the weight after the other tensors, where llama.cpp's converter puts it."""
    weight = f"{name}.weight"
    zeros = checkpoint.take(f"{name}.qzeros", weight, ("I32",), 2)
    scales = checkpoint.take(f"{name}.scales", weight, FLOATS, 2)
    n_inputs, n_groups = codes.shape[0], scales.shape[0]
    groups = None
    if f"{name}.g_idx" in checkpoint.stored:
        groups = checkpoint.take(f"{name}.g_idx", weight, ("I32", "I64"), 1)
    per_word = 32 // codes.bits
    fits = scales.shape[1] == codes.shape[1] and zeros.shape == (n_groups, codes.shape[1] // per_word)
    fits = fits and codes.shape[1] % per_word == 0 and 0 not in codes.shape
    fits = fits and (groups.shape == (n_inputs,) if groups else n_groups > 0 and n_inputs % n_groups == 0)
    if not fits:
        raise ConvertError(
            f"{words.path}: tensor `{words.name}`, {list(words.shape)}, does not go with its scales, "
            f"{list(scales.shape)}, and zero points, {list(zeros.shape)}, at {codes.bits} bits"
        )
    checkpoint.weights[weight] = InputMajor(
        codes,
        Packed(zeros, codes.bits, 1, (n_groups, codes.shape[1]), order),
        scales,
        n_inputs // n_groups,
        groups,
        zero_shift,
    )
