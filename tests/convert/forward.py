"""A plain forward pass in numpy over a checkpoint, as transformers defines it: what the converted file must compute.

`Decoder` is Llama; a family overrides what it does differently. Everything is float32 over the checkpoint's own
tensors, one sequence, no cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.formats.safetensors import read_checkpoint

Floats = npt.NDArray[Any]


def tensors_of(folder: Path) -> dict[str, Floats]:
    """All floating point tensors of a checkpoint as float32."""
    out: dict[str, Floats] = {}
    for name, tensor in read_checkpoint(folder).items():
        flat = tensor.read(0, tensor.n_elements)
        values = (flat.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == "BF16" else flat.astype(np.float32)
        out[name] = values.reshape(tensor.shape)
    return out


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * weight


def layer_norm(x: Floats, weight: Floats, bias: Floats | float, eps: float) -> Floats:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, -1, keepdims=True) + eps) * weight + bias


def silu(x: Floats) -> Floats:
    return x / (1 + np.exp(-x))


def gelu(x: Floats) -> Floats:
    return 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def gelu_tanh(x: Floats) -> Floats:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x: Floats) -> Floats:
    e: Floats = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def inverse_frequencies(n: int, theta: float) -> Floats:
    """For a rotary embedding of `n` dimensions, shape (n / 2,)."""
    return theta ** (-np.arange(0, n, 2, dtype=np.float64) / n)


def rotate(x: Floats, inv_freq: Floats, *, neighbours: bool = False, scale: float = 1.0) -> Floats:
    """Rotary embedding of x (tokens, heads, head_dim); dimensions beyond 2 * len(inv_freq) stay as they are.

    Pairs are the two halves (transformers' usual way), or with `neighbours` dimensions 0 and 1, 2 and 3, ...
    """
    n = len(inv_freq)
    angles = np.arange(len(x))[:, None, None] * inv_freq
    cos, sin = np.cos(angles) * scale, np.sin(angles) * scale
    a, b = (x[..., 0 : 2 * n : 2], x[..., 1 : 2 * n : 2]) if neighbours else (x[..., :n], x[..., n : 2 * n])
    turned = (a * cos - b * sin, b * cos + a * sin)
    first = np.stack(turned, -1).reshape(*x.shape[:-1], 2 * n) if neighbours else np.concatenate(turned, -1)
    return np.concatenate([first, x[..., 2 * n :]], -1)


def attend(q: Floats, k: Floats, v: Floats, scale: float, *, window: int = 0, softcap: float = 0.0) -> Floats:
    """Causal attention; q (tokens, heads, d), k and v (tokens, kv heads, d); shape (tokens, heads * d)."""
    n = len(q)
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = np.einsum("thd,shd->hts", q, k) * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    behind = np.arange(n)[:, None] - np.arange(n)
    seen = (behind >= 0) & ((behind < window) if window else True)
    mixed = np.einsum("hts,shd->thd", softmax(np.where(seen, scores, -np.inf)), v)
    return mixed.reshape(n, -1)


class Decoder:
    """Llama. Subclasses override the parts; `prefix`, `block` and `final_norm` say how tensors are called."""

    prefix = "model."
    block = "layers"
    final_norm = "norm"

    def __init__(self, folder: Path) -> None:
        raw: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        self.config: dict[str, Any] = {**raw, **(raw.get("text_config") or {})}
        self.tensors = tensors_of(folder)
        c = self.config
        self.n_layers = c.get("num_hidden_layers") or c.get("n_layer") or c["num_layers"]
        self.n_heads = c.get("num_attention_heads") or c["n_head"]
        self.n_kv_heads = c.get("num_key_value_heads") or self.n_heads
        self.head_dim = c.get("head_dim") or (c.get("hidden_size") or c["n_embd"]) // self.n_heads
        self.eps = c.get("rms_norm_eps", 1e-6)

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Shape (tokens, vocabulary)."""
        x = self.embed(np.array(tokens))
        for i in range(self.n_layers):
            x = self.layer(i, x)
        return self.head(self.norm(self.prefix + self.final_norm, x))

    def embed(self, tokens: npt.NDArray[np.int64]) -> Floats:
        return self.tensors[f"{self.prefix}embed_tokens.weight"][tokens]

    def head(self, x: Floats) -> Floats:
        table = self.tensors.get("lm_head.weight")
        return x @ (self.tensors[f"{self.prefix}embed_tokens.weight"] if table is None else table).T

    def layer(self, i: int, x: Floats) -> Floats:
        p = self.at(i)
        x = x + self.attention(i, self.norm(f"{p}input_layernorm", x))
        return x + self.mlp(i, self.norm(f"{p}post_attention_layernorm", x))

    def attention(self, i: int, x: Floats) -> Floats:
        q, k, v = self.qkv(i, x)
        q, k = self.position(i, q), self.position(i, k)
        return self.linear(f"{self.at(i)}self_attn.o_proj", self.attend(i, q, k, v))

    def attend(self, i: int, q: Floats, k: Floats, v: Floats) -> Floats:
        return attend(q, k, v, self.head_dim**-0.5)

    def qkv(self, i: int, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Each (tokens, heads, head_dim)."""
        p = f"{self.at(i)}self_attn."
        q, k, v = (self.linear(f"{p}{n}_proj", x).reshape(len(x), -1, self.head_dim) for n in "qkv")
        return q, k, v

    def position(self, i: int, x: Floats) -> Floats:
        return rotate(x, inverse_frequencies(self.head_dim, self.config.get("rope_theta", 10000.0)))

    def mlp(self, i: int, x: Floats) -> Floats:
        p = f"{self.at(i)}mlp."
        gate, up = self.linear(f"{p}gate_proj", x), self.linear(f"{p}up_proj", x)
        return self.linear(f"{p}down_proj", silu(gate) * up)

    def at(self, i: int) -> str:
        """How the names of a layer's tensors begin."""
        return f"{self.prefix}{self.block}.{i}."

    def norm(self, name: str, x: Floats) -> Floats:
        return rms_norm(x, self.tensors[f"{name}.weight"], self.eps)

    def linear(self, name: str, x: Floats) -> Floats:
        out = x @ self.tensors[f"{name}.weight"].T
        bias = self.tensors.get(f"{name}.bias")
        return out if bias is None else out + bias
