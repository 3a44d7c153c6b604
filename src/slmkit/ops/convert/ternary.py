"""Weights of three values, the models of BitNet b1.58: rounded from plain numbers, or unpacked four to a byte.

https://arxiv.org/abs/2402.17764; the packed layout is that of transformers (`integrations/bitnet.py`, 4.57).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from slmkit.errors import ConvertError
from slmkit.formats.safetensors import DTYPES
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.encode import FLOATS
from slmkit.ops.convert.weights import Array, Floats, Weights, floats, n_elements

_CHUNK = 1 << 20
_SCALE = ".weight_scale"
_SMALLEST_SCALE = 1e-5


@dataclass(frozen=True)
class Ternarized:
    """Each weight becomes -s, 0 or s, whichever is nearest; s is the mean of all absolute values.

    The first read goes through the whole source for s. What is rounded where is as in `BitnetModel.weight_quant` of
    conversion/bitnet.py at llama.cpp 0c1e57098, the mean aside: it is summed in double precision.
    """

    source: Weights

    @property
    def dtype(self) -> str:
        """F16 of F16, else F32."""
        return "F16" if self.source.dtype == "F16" else "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the source."""
        return self.source.shape

    @cached_property
    def scale(self) -> np.float32:
        """s, and 1e-5 when it would be less."""
        total = n_elements(self.source)
        starts = range(0, total, _CHUNK)
        parts = (floats(self.source, start, min(start + _CHUNK, total)) for start in starts)
        mean = sum(float(np.abs(part).sum(dtype=np.float64)) for part in parts) / total
        return max(np.float32(mean), np.float32(_SMALLEST_SCALE))

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        inverse = np.float32(1) / self.scale
        rounded = np.rint(floats(self.source, start, stop) * inverse)
        out: Floats = np.clip(rounded, -1, 1) / inverse
        return out.astype(DTYPES[self.dtype], copy=False)


@dataclass(frozen=True)
class Unpacked:
    """A packed matrix: the four pairs of bits of a byte are one weight in each quarter of the rows, plus 1.

    `source` is U8 and has a quarter of the rows; the one number in `scale` is what the weights -1, 0 and 1 are
    multiplied with, or divided by when `divided`.
    """

    source: Weights
    scale: Weights
    divided: bool

    dtype = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Four times the rows."""
        return (4 * self.source.shape[0], *self.source.shape[1:])

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`; raises `ConvertError` for bits that are no weight."""
        quarter, parts = n_elements(self.source), []
        for number in range(start // quarter, -(-stop // quarter)):
            first, last = max(start - number * quarter, 0), min(stop - number * quarter, quarter)
            parts.append((self.source.read(first, last) >> (2 * number)) & 3)
        bits = np.concatenate(parts)
        if (bits == 3).any():
            raise ConvertError("packed ternary weights must be -1, 0 or 1, and some are 2: the checkpoint is damaged")
        weights: Floats = bits.astype(np.float32) - np.float32(1)
        return weights / floats(self.scale) if self.divided else weights * floats(self.scale)


def unpack(config: Config, stored: Mapping[str, Weights]) -> Mapping[str, Weights]:
    """The tensors of a checkpoint whose `quantization_config` has the `quant_method` `bitnet`, as floating point.

    Activations, which such a model rounds to 8 bits, are left as they are by llama.cpp. Raises `ConvertError` for
    what is done to them otherwise, and for weights that are not what config.json says.
    """
    how: Mapping[str, Any] = config.raw["quantization_config"]
    if how.get("use_rms_norm"):
        raise ConvertError(
            f"{config.path}: the quantized layers normalize their input (`use_rms_norm`), which llama.cpp does not"
        )
    if how.get("quantization_mode") == "online":
        raise ConvertError(
            f"{config.path}: the weights are rounded to three values each time they are used "
            "(`quantization_mode` is `online`), which llama.cpp does not",
            hint="convert the packed checkpoint of the model (`offline`)",
        )
    divided = how.get("linear_class", "bitlinear") == "bitlinear"
    out: dict[str, Weights] = {}
    for name, weights in stored.items():
        scale = stored.get(f"{name}_scale")
        if name.endswith(_SCALE):
            if name.removesuffix("_scale") not in stored:
                raise ConvertError(f"{config.folder}: there is `{name}`, and no tensor whose scale it is")
        elif weights.dtype == "U8" and len(weights.shape) == 2 and scale is not None and n_elements(scale) == 1:
            out[name] = Unpacked(weights, scale, divided)
        elif weights.dtype in FLOATS and scale is None:
            out[name] = weights
        else:
            raise ConvertError(f"{config.folder}: `{name}` ({weights.dtype}) is no packed matrix with one scale")
    return out
