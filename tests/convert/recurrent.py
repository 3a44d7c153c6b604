"""Recurrent layers in plain numpy, and tiny checkpoints that have them.

Matrices keep the size of what they multiply, so that what a state carries from token to token is not lost in the
residual stream. A_log is of eighths from -1 to 1: their exponentials are the same float32 on every processor.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from slmkit.formats.safetensors import Entry, write_file
from tests.convert.forward import Decoder, Floats, rms_norm, silu, tensors_of
from tests.factories import as_dtype, write_json, write_spm


def write_model(
    folder: Path,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: str = "BF16",
    tokenizer: bool = True,
    same: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write config, weights and, unless the caller brings its own, the SentencePiece tokenizer.

    `same` maps names of tensors to the tensor whose numbers they repeat.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", dict(sorted(config.items())))
    if tokenizer:
        write_spm(folder)
    data = {name: as_dtype(numbers(same.get(name, name), shape), dtype) for name, shape in shapes.items()}
    entries = [Entry(name, dtype, shape, [data[name]]) for name, shape in shapes.items()]
    write_file(folder / "model.safetensors", entries)
    return folder


def numbers(name: str, shape: tuple[int, ...]) -> Floats:
    """Random, by the tensor's name only."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("A_log"):
        return (rng.integers(-8, 9, shape) / 8).astype(np.float32)
    x = rng.standard_normal(shape, dtype=np.float32)
    if re.search(r"(norm|norm_f|ln_\w+)\.weight$|\.D$", name):
        return 1 + 0.1 * x
    return x / np.float32(np.sqrt(shape[-1])) if len(shape) > 1 else 0.5 * x


def causal_conv(x: Floats, kernel: Floats, bias: Floats | float = 0.0) -> Floats:
    """Each channel of x (tokens, channels) with its row of the kernel (channels, 1, width) over the tokens before."""
    width = kernel.shape[-1]
    padded = np.concatenate([np.zeros((width - 1, x.shape[1]), x.dtype), x])
    seen = np.stack([padded[i : i + len(x)] * kernel[:, 0, i] for i in range(width)])
    return np.asarray(seen.sum(0) + bias)


def softplus(x: Floats) -> Floats:
    return np.logaddexp(x, 0)


def selective_scan(x: Floats, dt: Floats, a: Floats, b: Floats, c: Floats) -> Floats:
    """State-space recurrence over x (tokens, heads, channels), in its shape.

    dt is (tokens, heads), a (heads, states or 1), b and c are (tokens, heads or 1, states).
    """
    state = np.zeros((*x.shape[1:], b.shape[-1]))
    out = np.empty_like(x)
    for t in range(len(x)):
        step = dt[t][:, None]
        state = np.exp(step * a)[:, None] * state + (step * b[t])[:, None] * x[t][..., None]
        out[t] = (state * c[t][:, None]).sum(-1)
    return out


def mamba2(d: Decoder, p: str, x: Floats, *, n_heads: int, n_groups: int, n_states: int) -> Floats:
    """A Mamba2 layer without projections: x is what in_proj gives, the result is for out_proj; `p` starts its names."""
    t = d.tensors
    n_inner = (x.shape[1] - n_heads) // 2 - n_groups * n_states
    gate, x, dt = np.split(x, [n_inner, x.shape[1] - n_heads], -1)
    x = silu(causal_conv(x, t[f"{p}conv1d.weight"], t[f"{p}conv1d.bias"]))
    x, b, c = np.split(x, [n_inner, n_inner + n_groups * n_states], -1)
    b, c = (np.repeat(m.reshape(len(x), n_groups, n_states), n_heads // n_groups, 1) for m in (b, c))
    x = x.reshape(len(x), n_heads, -1)
    a = -np.exp(t[f"{p}A_log"])[:, None]
    y = selective_scan(x, softplus(dt + t[f"{p}dt_bias"]), a, b, c) + x * t[f"{p}D"][:, None]
    y = np.asarray(y.reshape(len(x), n_inner) * silu(gate))
    norm = t.get(f"{p}norm.weight")
    if norm is None:
        return y
    grouped = rms_norm(y.reshape(len(x), n_groups, -1), norm.reshape(n_groups, -1), d.eps)
    return grouped.reshape(y.shape)


class Backbone(Decoder):
    """Residual layers without attention: a subclass has `mixer`."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        self.tensors = {k.replace("embedding.", "embeddings."): v for k, v in tensors_of(folder).items()}
        self.n_layers = self.config.get("num_hidden_layers") or self.config["n_layer"]
        self.eps = self.config.get("layer_norm_epsilon", 1e-5)

    def logits(self, tokens: Any) -> Floats:
        x = self.tensors["backbone.embeddings.weight"][np.array(tokens)]
        for i in range(self.n_layers):
            p = f"backbone.layers.{i}."
            x = x + self.mixer(f"{p}mixer.", self.norm(f"{p}norm", x))
        head = self.tensors.get("lm_head.weight", self.tensors["backbone.embeddings.weight"])
        return self.norm("backbone.norm_f", x) @ head.T

    def mixer(self, p: str, x: Floats) -> Floats:
        raise NotImplementedError
