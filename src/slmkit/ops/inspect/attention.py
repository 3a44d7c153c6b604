"""Context, heads, RoPE, and what a token costs in the KV cache."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slmkit.formats.gguf.model import GgufModel

_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
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
    """By the metadata; `llama_hparams` of llama.cpp 0c1e57098 has the defaults."""
    header = model.first
    n_embd, n_head = header.hyper("embedding_length"), header.hyper("attention.head_count")
    n_head_kv = header.hyper("attention.head_count_kv")
    if n_head_kv is None:
        n_head_kv = n_head
    head_dim = header.hyper("attention.key_length")
    if head_dim is None and _is_count(n_embd) and _is_count(n_head):
        head_dim = n_embd // n_head
    prefix = f"{model.architecture}.rope."
    return Attention(
        context_length=header.hyper("context_length"),
        n_layers=header.hyper("block_count"),
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        sliding_window=header.hyper("attention.sliding_window") or None,
        kv_bytes_per_token=_kv_bytes(model, n_head_kv, head_dim),
        rope={k.removeprefix(prefix): v for k, v in model.metadata.items() if k.startswith(prefix)},
        rope_factors=_factors(model),
    )


def _kv_bytes(model: GgufModel, n_head_kv: Any, head_dim: Any) -> int | None:
    """Heads of all layers that have a cache of their own, times the length of a key and a value."""
    header = model.first
    n_layers, shared = header.hyper("block_count"), header.hyper("attention.shared_kv_layers") or 0
    value_dim = header.hyper("attention.value_length")
    value_dim = head_dim if value_dim is None else value_dim
    if header.hyper("attention.kv_lora_rank") or not (_is_count(n_layers) and _is_count(head_dim)):
        return None
    heads = n_head_kv if isinstance(n_head_kv, list) else [n_head_kv] * n_layers
    if not all(isinstance(n, int) for n in (*heads, value_dim, shared)) or len(heads) < n_layers:
        return None
    return int(sum(heads[: n_layers - shared]) * (head_dim + value_dim) * _F16_BYTES)


def _factors(model: GgufModel) -> dict[str, tuple[float, float]]:
    found = {}
    for tensor in model.tensors:
        name = tensor.name.split(".", 2)[-1] if tensor.name.startswith("blk.") else tensor.name
        if name in _FACTORS and tensor.info.type.name == "F32" and name not in found and tensor.info.n_elements:
            values = struct.unpack(f"<{tensor.info.n_elements}f", tensor.read(0, tensor.info.size_bytes))
            found[name] = (min(values), max(values))
    return found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0
