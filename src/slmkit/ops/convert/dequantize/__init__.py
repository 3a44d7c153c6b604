"""Checkpoints that are quantized already: read back as floating point where the format is plain, else refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from slmkit.errors import ConvertError, TokenizerError
from slmkit.formats.safetensors import Tensor
from slmkit.formats.tokenizer_json import read_json
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.dequantize.bitsandbytes import bitsandbytes
from slmkit.ops.convert.dequantize.checkpoint import Quantized
from slmkit.ops.convert.dequantize.compressed_tensors import compressed_tensors
from slmkit.ops.convert.dequantize.fp8 import fp8, modelopt
from slmkit.ops.convert.dequantize.gptq import awq, gptq
from slmkit.ops.convert.dequantize.original import refused
from slmkit.ops.convert.dequantize.sources import Decoded
from slmkit.ops.convert.ternary import unpack
from slmkit.ops.convert.weights import Weights

METHODS: Mapping[str, Callable[[Quantized], None]] = MappingProxyType(
    {
        "awq": awq,
        "bitsandbytes": bitsandbytes,
        "compressed-tensors": compressed_tensors,
        "fp8": fp8,
        "gptq": gptq,
        "modelopt": modelopt,
    }
)
"""What can be dequantized, by `quant_method`."""

TERNARY = "bitnet"
"""Weights that were trained to have three values: packing them lost nothing."""


def dequantized(config: Config, stored: Mapping[str, Tensor]) -> Mapping[str, Weights]:
    """The tensors of a checkpoint with quantized ones as float32; all others as they are, all in upstream's order.

    Reads headers, and of bitsandbytes' tensors a few that describe others. Raises `ConvertError` for a format that is
    not plain, and for parts that are missing or do not fit together.
    """
    method, settings = quantization(config)
    if method is None:
        return {name: Decoded(t) if t.dtype.startswith("F8") else t for name, t in stored.items()}
    if method == TERNARY:
        return unpack(config, stored)
    if method not in METHODS:
        known = ", ".join(sorted([*METHODS, TERNARY]))
        raise refused(config, method, f"only {known} can be read")
    checkpoint = Quantized(config, method, settings, stored)
    METHODS[method](checkpoint)
    for name, weights in checkpoint.weights.items():
        if weights.dtype.startswith("F8"):
            raise ConvertError(f"{stored[name].path}: tensor `{name}` is {weights.dtype} and has no scales")
    return checkpoint.weights


def quantization(config: Config) -> tuple[str | None, Mapping[str, Any]]:
    """How the checkpoint is quantized, and the settings; `None` when it is not.

    Raises `ConvertError` for a config.json that does not make it clear.
    """
    settings = config.find("quantization_config")
    if settings is None:
        settings = _modelopt(config)
    match settings:
        case None:
            return None, {}
        case {"quant_method": str(method)}:
            return method, settings
        case {"load_in_8bit": True} | {"load_in_4bit": True}:
            return "bitsandbytes", settings
    raise refused(config, "in some way", "`quantization_config` does not name a `quant_method`")


def remarks(config: Config) -> tuple[str, ...]:
    """What the user should know about a checkpoint that was dequantized."""
    method, _ = quantization(config)
    if method in (None, TERNARY):
        return ()
    return (f"the checkpoint is quantized ({method}): it is dequantized, and what quantizing lost stays lost",)


def _modelopt(config: Config) -> Mapping[str, Any] | None:
    """ModelOpt keeps its settings in a file of their own."""
    try:
        found = read_json(config.folder / "hf_quant_config.json").get("quantization")
    except TokenizerError as error:
        raise ConvertError(error.message, hint=error.hint) from error
    return {"quant_method": "modelopt", **found} if isinstance(found, dict) else None
