"""Settings that llama.cpp's graphs have no code for: refused, since a file made of them would load and talk garbage."""

from __future__ import annotations

from typing import Any

from slmkit.errors import ConvertError
from slmkit.ops.convert.architecture import Architecture

SILU = ("silu", "swish")
GELU = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python")
"""llama.cpp has the tanh approximation, which is within 0.0005 of the exact `gelu` everywhere."""


def limit(architecture: Architecture, **allowed: tuple[Any, ...]) -> None:
    """Raise `ConvertError` when config.json has one of these keys with a value other than the allowed ones."""
    for key, values in allowed.items():
        found = architecture.config.find(key)
        if found is not None and found not in values:
            wanted = " or ".join(repr(value) for value in values)
            raise ConvertError(
                f"{architecture.config.path}: llama.cpp runs {architecture.name} only with `{key}` {wanted}, "
                f"not {found!r}"
            )


def need_plain_heads(architecture: Architecture) -> None:
    """Raise `ConvertError` unless the query heads together are as wide as the model and divide among the kv heads."""
    a = architecture
    if a.head_dim * a.n_heads != a.n_embd or a.head_dim % 2 or a.n_heads % a.n_kv_heads:
        raise ConvertError(
            f"{a.config.path}: llama.cpp runs no {a.name} of width {a.n_embd} with {a.n_heads} heads of {a.head_dim} "
            f"({a.n_kv_heads} for k and v)"
        )
