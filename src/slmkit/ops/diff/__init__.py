"""`diff`: two GGUFs, tensor by tensor and key by key."""

from __future__ import annotations

from slmkit.ops.diff.pipeline import diff

__all__ = ["diff"]
