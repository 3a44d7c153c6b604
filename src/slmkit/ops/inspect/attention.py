"""Context, heads, RoPE, and what a token costs in the KV cache."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slmkit.formats.gguf.model import GgufModel

ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_F16_BYTES = 2


@dataclass(frozen=True)
class Attention:
    """`None` where the file does not say. Heads are one number, or one for each layer.

    `rope` has the keys below `rope.` as they stand in the file, `rope_factors` the least and the largest divisor of
    frequencies in each tensor of them (Llama 3's and Phi's scaling). `kv_bytes_per_token` is that of an F16 cache with
    every layer's K and V; a layer with a sliding window stops at `sliding_window` tokens. It is unknown for
    architectures that keep something else than K and V.
    """

    context_length: int | None
    n_layers: int | None
    n_embd: int | None
    n_head: int | list[int] | None
    n_head_kv: int | list[int] | None
    head_dim: int | None
    sliding_window: int | None
    kv_bytes_per_token: int | None
    rope: Mapping[str, Any]
    rope_factors: Mapping[str, tuple[float, float]]

    @property
    def grouping(self) -> str | None:
        """MHA, GQA (with the number of query heads to one of keys and values) or MQA."""
        if not isinstance(self.n_head, int) or not isinstance(self.n_head_kv, int) or not self.n_head_kv:
            return None
        if self.n_head_kv == self.n_head:
            return "MHA"
        return "MQA" if self.n_head_kv == 1 else f"GQA {self.n_head / self.n_head_kv:g}:1"


def read_attention(model: GgufModel) -> Attention:
    """By the metadata; `llama_hparams` of llama.cpp 0c1e57098 has the defaults. What is no count there is unknown."""
    header = model.first

    def count(key: str) -> int | None:
        return _count(header.hyper(key))

    n_embd, n_head = count("embedding_length"), _counts(header.hyper("attention.head_count"))
    n_head_kv = _counts(header.hyper("attention.head_count_kv"))
    head_dim = count("attention.key_length")
    if head_dim is None and n_embd and isinstance(n_head, int) and n_head:
        head_dim = n_embd // n_head
    prefix = f"{model.architecture}.rope."
    return Attention(
        context_length=count("context_length"),
        n_layers=count("block_count"),
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=n_head if n_head_kv is None else n_head_kv,
        head_dim=head_dim,
        sliding_window=count("attention.sliding_window") or None,
        kv_bytes_per_token=_kv_bytes(model, n_head if n_head_kv is None else n_head_kv, head_dim),
        rope={k.removeprefix(prefix): v for k, v in model.metadata.items() if k.startswith(prefix)},
        rope_factors=_factors(model),
    )


def _kv_bytes(model: GgufModel, n_head_kv: int | list[int] | None, head_dim: int | None) -> int | None:
    """Heads of all layers that have a cache of their own, times the length of a key and a value."""
    header = model.first
    n_layers, shared = _count(header.hyper("block_count")), _count(header.hyper("attention.shared_kv_layers")) or 0
    value_dim = _count(header.hyper("attention.value_length"))
    value_dim = head_dim if value_dim is None else value_dim
    if not n_layers or n_head_kv is None or head_dim is None or value_dim is None:
        return None
    heads = n_head_kv if isinstance(n_head_kv, list) else [n_head_kv]
    if header.hyper("attention.kv_lora_rank") or len(heads) not in (1, n_layers):
        return None
    n_heads = sum(heads[: n_layers - shared]) if len(heads) == n_layers else heads[0] * (n_layers - shared)
    return n_heads * (head_dim + value_dim) * _F16_BYTES


def _factors(model: GgufModel) -> dict[str, tuple[float, float]]:
    found = {}
    for tensor in model.tensors:
        name = tensor.name.split(".", 2)[-1] if tensor.name.startswith("blk.") else tensor.name
        if name in ROPE_FACTORS and tensor.info.type.name == "F32" and name not in found and tensor.info.n_elements:
            values = struct.unpack(f"<{tensor.info.n_elements}f", tensor.read(0, tensor.info.size_bytes))
            found[name] = (min(values), max(values))
    return found


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _counts(value: Any) -> int | list[int] | None:
    """A number, or one for each layer."""
    if isinstance(value, list) and value and all(_count(item) is not None for item in value):
        return value
    return _count(value)
