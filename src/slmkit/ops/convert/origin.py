"""Which tensors of the checkpoint a source's numbers come from: errors and warnings name those, not GGUF's."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from slmkit.formats.safetensors import Tensor


def origins(weights: Any) -> list[Tensor]:
    """The stored tensors behind a source, each once; none for values that no file holds."""
    if isinstance(weights, Tensor):
        return [weights]
    if isinstance(weights, list | tuple):
        inner = list(weights)
    elif is_dataclass(weights):
        inner = [getattr(weights, field.name) for field in fields(weights)]
    else:
        return []
    return list({tensor.name: tensor for part in inner for tensor in origins(part)}.values())


def described(weights: Any, otherwise: str) -> str:
    """File and name of the tensor behind a source, for messages; `otherwise` when there is none."""
    found = origins(weights)
    if not found:
        return otherwise
    first = found[0]
    return f"{first.path}: tensor `{first.name}`"
