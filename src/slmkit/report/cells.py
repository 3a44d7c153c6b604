"""Cells that several tables have."""

from __future__ import annotations

import math
from typing import Any

from slmkit.core import units
from slmkit.report.table import Cell


def time_cell(elapsed_ns: float | None) -> Cell:
    """Milliseconds."""
    return Cell(units.milliseconds(elapsed_ns), None if elapsed_ns is None else elapsed_ns / 1e6)


def size_cell(size_bytes: int | None) -> Cell:
    """Bytes."""
    return Cell(units.size(size_bytes), size_bytes)


def finite(value: Any) -> Any:
    """As JSON, which has no word for what is not a number: `None` in its place, wherever it is."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
