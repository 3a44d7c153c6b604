"""Weights of tiny checkpoints whose tensors are not Llama's: other names and shapes, packed numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slmkit.formats.safetensors import Entry, write_file
from tests.factories import Array, weights

Shapes = dict[str, tuple[int, ...]]


def write_tensors(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: str = "BF16",
    ready: Mapping[str, Array] | None = None,
) -> Path:
    """Give the checkpoint these random weights instead of those it has; those in `ready` (U8 or F32) as they are."""
    entries = [Entry(name, dtype, shape, weights(name, shape, dtype, 1)) for name, shape in shapes.items()]
    kinds = {np.dtype(np.uint8): "U8", np.dtype(np.float32): "F32"}
    entries += [Entry(name, kinds[a.dtype], a.shape, [a]) for name, a in (ready or {}).items()]
    write_file(folder / "model.safetensors", entries)
    return folder


def standard(c: Mapping[str, Any], layer: Shapes) -> Shapes:
    """Embedding, `layer` for each layer under its prefix, norm, and unless tied the head."""
    h, v = c["hidden_size"], c["vocab_size"]
    out: Shapes = {"model.embed_tokens.weight": (v, h)}
    for i in range(c["num_hidden_layers"]):
        out |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    out["model.norm.weight"] = (h,)
    return out if c["tie_word_embeddings"] else out | {"lm_head.weight": (v, h)}
