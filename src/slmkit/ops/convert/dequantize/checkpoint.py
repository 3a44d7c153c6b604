"""A quantized checkpoint taken apart: which tensors belong together, and whether their shapes agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slmkit.errors import ConvertError
from slmkit.formats.safetensors import Tensor
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.dequantize.original import refused
from slmkit.ops.convert.dequantize.sources import Decoded, Scaled
from slmkit.ops.convert.encode import FLOATS
from slmkit.ops.convert.weights import Weights

EIGHT_BITS = ("F8_E4M3", "F8_E5M2", "I8")
"""Types whose numbers are multiplied by a scale as they stand."""

ACTIVATIONS = ("activation_scale", ".input_scale", ".output_scale", ".q_scale", ".k_scale", ".v_scale")
"""How the names of tensors end that scale activations or the KV cache, not weights: llama.cpp computes those anew."""


class Quantized:
    """One checkpoint while its quantized tensors are replaced.

    `settings` is `quantization_config`, `method` its `quant_method`. `weights` starts as the stored tensors and ends as
    floating point ones.
    """

    def __init__(self, config: Config, method: str, settings: Mapping[str, Any], stored: Mapping[str, Tensor]) -> None:
        self.config, self.method, self.settings, self.stored = config, method, settings, stored
        self.weights: dict[str, Weights] = dict(stored)

    def refuse(self, reason: str) -> ConvertError:
        """The error for a checkpoint whose format is not plain."""
        return refused(self.config, self.method, reason)

    def integer(self, key: str, allowed: Sequence[int]) -> int:
        """A setting that must be one of a few numbers; raises `ConvertError`."""
        value = self.settings.get(key)
        if type(value) is not int or value not in allowed:
            raise self.refuse(f"`{key}` is {value!r}, only {', '.join(map(str, allowed))} can be read")
        return value

    def names(self, suffix: str) -> list[str]:
        """What comes before `suffix` in the names that end so, in the order of the files."""
        return [name.removesuffix(suffix) for name in self.stored if name.endswith(suffix)]

    def take(self, name: str, of: str, dtypes: Sequence[str], n_dims: int | None = None) -> Tensor:
        """A stored tensor, taken out of `weights` unless it is in the place of the weight `of` that it belongs to.

        Raises `ConvertError` when it is missing or of another kind.
        """
        tensor = self.stored.get(name)
        if tensor is None:
            raise ConvertError(f"{self.config.folder} lacks `{name}`, without which `{of}` cannot be dequantized")
        if tensor.dtype not in dtypes or (n_dims is not None and len(tensor.shape) != n_dims):
            raise ConvertError(
                f"{tensor.path}: tensor `{name}` is {tensor.dtype} {list(tensor.shape)}, which {self.method} never has"
            )
        if name != of:
            self.weights.pop(name, None)
        return tensor

    def drop(self, *suffixes: str) -> None:
        """Leave out the tensors whose names end so."""
        for name in [name for name in self.weights if name.endswith(suffixes)]:
            del self.weights[name]

    def scale(self, name: str, scale_name: str, block: tuple[int, ...] | None = None, zero: str | None = None) -> None:
        """Put codes of 8 bits times their scales in the place of tensor `name`.

        `scale_name` has one entry for each `block` (a size in each of the last dimensions); without it, one for each
        row or for all. `zero` names the zero points, where there are such. Raises `ConvertError`.
        """
        scale = self.take(scale_name, name, FLOATS)
        codes = self.take(name, name, EIGHT_BITS)
        shape = codes.shape
        sizes = _block(shape, scale.shape, block)
        zeros = Decoded(self.take(zero, name, EIGHT_BITS)) if zero else None
        if sizes is None or (zeros is not None and zeros.shape != scale.shape):
            raise ConvertError(
                f"{codes.path}: tensor `{name}`, {list(shape)}, does not go with its scales `{scale_name}`, "
                f"{list(scale.shape)}, in blocks of {list(block) if block else 'rows'}"
            )
        self.weights[name] = Scaled(Decoded(codes), scale, sizes, zeros)


def _block(shape: tuple[int, ...], scales: tuple[int, ...], block: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """For how many weights in each dimension a scale holds; `None` when the shapes do not fit together."""
    if len(shape) < 2 or 0 in shape:
        return None
    if block is not None:
        sizes = (1,) * (len(shape) - len(block)) + block
        counts = tuple(-(-n // size) for n, size in zip(shape, sizes, strict=False))
        return sizes if len(sizes) == len(shape) and counts == scales else None
    counts = scales + (1,) * (len(shape) - len(scales))
    if len(counts) != len(shape) or any(n not in (1, full) for n, full in zip(counts, shape, strict=True)):
        return None
    return tuple(1 if n == full else full for n, full in zip(counts, shape, strict=True))
