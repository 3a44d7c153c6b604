"""Ternary weights of BitNet (b1.58): four in a byte.

Row `r` of the stored matrix holds, from the lowest bits up, rows `r`, `r + n`, `r + 2n` and `r + 3n` of the real one,
each as -1, 0 or 1 plus one. transformers' `BitLinear` divides by `weight_scale`, its `AutoBitLinear` multiplies:
https://github.com/huggingface/transformers/blob/v4.57.6/src/transformers/integrations/bitnet.py. llama.cpp's converter
(`dequant_bitnet` in conversion/base.py at 0c1e57098) divides always.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from slmkit.ops.convert.dequantize.checkpoint import Quantized
from slmkit.ops.convert.encode import FLOATS
from slmkit.ops.convert.weights import Array, Weights, floats


@dataclass(frozen=True)
class Ternary:
    """The weights of one matrix; `scale` has one element."""

    words: Weights
    scale: Weights
    divides: bool
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Four times the rows."""
        return (4 * self.words.shape[0], *self.words.shape[1:])

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        n = math.prod(self.words.shape)
        parts = []
        for place in range(4):
            first, last = max(start - place * n, 0), min(stop - place * n, n)
            if first < last:
                parts.append(self.words.read(first, last).view(np.uint8) >> np.uint8(2 * place) & np.uint8(3))
        values = np.concatenate(parts).astype(np.float32) - np.float32(1)
        scale = floats(self.scale)[0]
        out: Array = values / scale if self.divides else values * scale
        return out


def bitnet(checkpoint: Quantized) -> None:
    """`quant_method: bitnet`."""
    kind = checkpoint.settings.get("linear_class") or "bitlinear"
    if kind not in ("bitlinear", "autobitlinear"):
        raise checkpoint.refuse(f"its layers are {kind!r}, only bitlinear and autobitlinear are known")
    if checkpoint.settings.get("quantization_mode") == "online" and kind == "autobitlinear":
        raise checkpoint.refuse("its weights are those before they are made ternary (`online`)")
    for name in checkpoint.names(".weight_scale"):
        weight = f"{name}.weight"
        scale = checkpoint.take(f"{weight}_scale", weight, FLOATS)
        words = checkpoint.take(weight, weight, ("U8", "I8"), 2)
        if scale.n_elements != 1:
            raise checkpoint.refuse(f"`{scale.name}` has {scale.n_elements} elements instead of one")
        checkpoint.weights[weight] = Ternary(words, scale, divides=kind == "bitlinear")
