"""The checkpoint's tensors as plain floating point numbers, whatever they are stored as."""

from __future__ import annotations

from collections.abc import Mapping

from slmkit.errors import ConvertError
from slmkit.formats.safetensors import INDEX_NAME, Tensor, read_checkpoint
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.dequantize import dequantized
from slmkit.ops.convert.encode import FLOATS
from slmkit.ops.convert.origin import described
from slmkit.ops.convert.weights import Weights


def read_weights(config: Config) -> Mapping[str, Weights]:
    """All tensors of the checkpoint, in the order of its files; reads headers only.

    Raises `SafetensorsError`, and `ConvertError` for a checkpoint without weights, with pickled ones, or with numbers
    that are no plain floating point.
    """
    folder = config.folder
    stored = read_checkpoint(folder)
    if not stored:
        pickled = next(folder.glob("*.bin"), None) or next(folder.glob("*.pth"), None)
        if pickled:
            raise ConvertError(
                f"{folder} has only pickled weights ({pickled.name}), and opening those can run any code",
                hint="look for a revision of the model with safetensors",
            )
        raise ConvertError(f"{folder} has no weights", hint=f"expected model.safetensors or {INDEX_NAME}")
    return plain(config, stored)


def plain(config: Config, stored: Mapping[str, Tensor]) -> Mapping[str, Weights]:
    """The tensors of a checkpoint as floating point, dequantized where needed; raises `ConvertError`."""
    found = dequantized(config, stored)
    for name, weights in found.items():
        if weights.dtype not in FLOATS and not name.endswith(".inv_freq"):
            raise ConvertError(
                f"{described(weights, name)} has type {weights.dtype}, which is no plain floating point",
                hint="convert the original, unquantized checkpoint",
            )
    return found
