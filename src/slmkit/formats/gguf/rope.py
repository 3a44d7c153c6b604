"""Llama 3.1's rope scaling, which GGUF holds as a tensor (`rope_freqs.weight`) and config.json as four numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


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


def llama3_scaling(factors: npt.NDArray[np.float32], rope_theta: float) -> dict[str, Any] | None:
    """The numbers behind `factors`, if they are those of Llama 3.1 and 3.2; `None` for any other scaling."""
    scaling = {
        "factor": float(factors[-1]),
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    same = np.allclose(factors, llama3_factors({"rope_theta": rope_theta, **scaling}, 2 * len(factors)), rtol=1e-5)
    return scaling if same else None
