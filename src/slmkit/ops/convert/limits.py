"""Settings of config.json that llama.cpp's graphs have no counterpart for: refused before anything is written, or told.

A GGUF that leaves such a setting out loads and answers, and is another model. What each graph can do is read off
src/models/*.cpp of llama.cpp 0c1e57098, https://github.com/ggml-org/llama.cpp/tree/0c1e57098/src/models.
"""

from __future__ import annotations

from typing import Any

from slmkit.errors import ConvertError
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.rope import Rope

SILU = ("silu", "swish")
"""LLM_FFN_SILU and LLM_FFN_SWIGLU, by transformers' names."""

GELU_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
"""LLM_FFN_GELU: the approximation by tanh, not the exact function that transformers calls `gelu`."""

GELU = (*GELU_TANH, "gelu")
"""For models that were trained with the exact function: the approximation is within 0.0005 of it everywhere, and what
llama.cpp has always run them with."""


def only(config: Config, model: str, key: str, *known: Any) -> None:
    """Raise `ConvertError` when `key` is there with another value than llama.cpp's graph of `model` assumes."""
    value = config.find(key)
    if value is not None and value not in known:
        assumed = " or ".join(f"`{k}`" if isinstance(k, str) else repr(k) for k in known)
        raise ConvertError(f"{config.path}: `{key}` is {value!r}, and llama.cpp runs {model} only with {assumed}")


def whole_rotary(config: Config, model: str, rope: Rope) -> None:
    """Raise `ConvertError` when only a part of each head is rotated."""
    if rope.partial_factor not in (None, 1.0):
        raise ConvertError(
            f"{config.path}: `partial_rotary_factor` is {rope.partial_factor}, and llama.cpp rotates whole heads "
            f"in {model}"
        )


def whole_heads(config: Config, n_heads: int, n_kv_heads: int, head_dim: int) -> None:
    """Raise `ConvertError` when heads cannot be halved for the rotary embedding, or shared out among those of k."""
    if head_dim % 2 or n_heads % n_kv_heads:
        raise ConvertError(f"{config.path}: {n_heads} heads of {head_dim} for {n_kv_heads} of k make no sense")


def heads_of_width(config: Config, model: str, n_heads: int, head_dim: int, n_embd: int) -> None:
    """Raise `ConvertError` when the heads together are not as wide as the embedding."""
    if head_dim * n_heads != n_embd:
        raise ConvertError(
            f"{config.path}: llama.cpp runs no {model} of width {n_embd} with {n_heads} heads of {head_dim}"
        )


def full_width(config: Config, model: str, n_embd: int, n_heads: int, n_kv_heads: int, head_dim: int) -> None:
    """`whole_heads` and `heads_of_width`."""
    whole_heads(config, n_heads, n_kv_heads, head_dim)
    heads_of_width(config, model, n_heads, head_dim, n_embd)


def rotated(config: Config, rope: Rope, n_heads: int, n_embd: int) -> int:
    """Dimensions of each head that are rotated, where it may be a part.

    Raises `ConvertError` when llama.cpp's converter and transformers would not count the same, or for an odd number.
    """
    share = 1.0 if rope.partial_factor is None else rope.partial_factor
    found = int(share * n_embd) // n_heads
    if found < 2 or found % 2 or found != int(share * (n_embd // n_heads)):
        raise ConvertError(f"{config.path}: a `partial_rotary_factor` of {share} splits no head")
    return found


def without_window(config: Config, window: Any) -> list[str]:
    """The remark that a sliding window of so many tokens is not applied, when that makes a difference."""
    if type(window) is not int or not 0 < window < config.integer("max_position_embeddings"):
        return []
    return [f"llama.cpp attends to everything: the sliding window of {window} tokens is not applied"]
