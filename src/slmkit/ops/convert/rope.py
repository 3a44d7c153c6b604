"""Rotary position embedding: how config.json's `rope_scaling` is said in GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slmkit.formats.gguf.writer import Value, f32, string, u32


def rope_parameters(config: Mapping[str, Any], rope_theta: float) -> dict[str, Any]:
    """`rope_parameters` (transformers 5) or `rope_scaling` (before), with `rope_theta` and `rope_type` filled in."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found.setdefault("rope_theta", rope_theta)
    if found.get("rope_type") is None:
        found["rope_type"] = found.get("type")
    return found


def scaling_metadata(arch: str, rope: Mapping[str, Any], context: int) -> dict[str, Value]:
    """Keys for linear and YaRN scaling; llama3 scaling is a tensor instead (`formats.gguf.rope`)."""
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
