"""`inspect`: what a GGUF truly is, read off the file itself."""

from __future__ import annotations

from slmkit.ops.inspect.attention import ROPE_FACTORS
from slmkit.ops.inspect.pipeline import Inspection, inspect, inspect_unmade

__all__ = ["ROPE_FACTORS", "Inspection", "inspect", "inspect_unmade"]
