"""Rotary position embedding: how config.json's `rope_scaling` is said in GGUF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.formats.gguf.writer import Value, f32, string, u32


def rope_parameters(config: Mapping[str, Any], rope_theta: float) -> dict[str, Any]:
    """`rope_parameters` (transformers 5) or `rope_scaling` (before), with `rope_theta` and `rope_type` filled in."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found.setdefault("rope_theta", rope_theta)
    if found.get("rope_type") is None:
        found["rope_type"] = found.get("type")
    return found


def scaling_metadata(arch: str, rope: Mapping[str, Any], context: int) -> dict[str, Value]:
    """Keys for linear and YaRN scaling; llama3 scaling is a tensor instead (`llama3_factors`)."""
    kind, factor = rope.get("rope_type"), rope.get("factor")
    if factor is None or kind not in ("linear", "yarn"):
        return {}
    p = f"{arch}.rope.scaling."
    out = {p + "type": string(kind), p + "factor": f32(factor)}
    if kind == "linear":
        return out
    out[p + "original_context_length"] = u32(rope.get("original_max_position_embeddings") or context)
    optional = {
        "yarn_ext_factor": rope.get("extrapolation_factor"),
        "yarn_attn_factor": rope.get("attention_factor", rope.get("attn_factor")),
        "yarn_beta_fast": rope.get("beta_fast"),
        "yarn_beta_slow": rope.get("beta_slow"),
    }
    return out | {p + key: f32(value) for key, value in optional.items() if value is not None}


def llama3_factors(rope: Mapping[str, Any], head_dim: int) -> npt.NDArray[np.float32]:
    """By what each of the `head_dim / 2` frequencies is divided in Llama 3.1's scaling.

    Long wavelengths are stretched by `factor`, short ones stay, those between are blended. All in float32, as
    `LlamaModel.generate_extra_tensors` in conversion/llama.py at llama.cpp 0c1e57098 computes it.
    """
    one = np.float32(1)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = one / np.power(np.float32(rope["rope_theta"]), exponents)
    factor = rope.get("factor", 8.0)
    low, high = rope.get("low_freq_factor", 1.0), rope.get("high_freq_factor", 4.0)
    context = rope.get("original_max_position_embeddings", 8192)
    out = []
    for frequency in frequencies:
        wavelength = np.float32(2 * math.pi) / frequency
        if wavelength < context / high:
            out.append(one)
        elif wavelength > context / low:
            out.append(np.float32(factor))
        else:
            smooth = (np.float32(context) / wavelength - np.float32(low)) / np.float32(high - low)
            out.append(one / ((one - smooth) / np.float32(factor) + smooth))
    return np.array(out, dtype=np.float32)
