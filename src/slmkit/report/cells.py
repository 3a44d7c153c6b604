"""Cells that several tables have."""

from __future__ import annotations

from slmkit.core import units
from slmkit.report.table import Cell


def time_cell(elapsed_ns: float | None) -> Cell:
    """Milliseconds."""
    return Cell(units.milliseconds(elapsed_ns), None if elapsed_ns is None else elapsed_ns / 1e6)


def size_cell(size_bytes: int | None) -> Cell:
    """Bytes."""
    return Cell(units.size(size_bytes), size_bytes)
