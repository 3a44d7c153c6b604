"""`inspect`: what a GGUF truly is, read off the file itself."""

from __future__ import annotations

from slmkit.ops.inspect.pipeline import Inspection, inspect, inspect_unmade

__all__ = ["Inspection", "inspect", "inspect_unmade"]
