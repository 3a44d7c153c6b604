"""The best mix of types for a given size."""

from slmkit.ops.target.plan import Plan, find, float_headers, plan

__all__ = ["Plan", "find", "float_headers", "plan"]
