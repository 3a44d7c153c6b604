"""Cells that several tables have."""

from __future__ import annotations

import math
from collections.abc import Iterator

from slmkit.core import units
from slmkit.core.stats import Estimate
from slmkit.report.table import Cell, Column

BEST = "★"
BASE = "base"
FAILED = "failed"


def time_cell(elapsed_ns: float | None) -> Cell:
    """Milliseconds."""
    return Cell(units.milliseconds(elapsed_ns), None if elapsed_ns is None else elapsed_ns / 1e6)


def size_cell(size_bytes: int | None) -> Cell:
    """Bytes."""
    return Cell(units.size(size_bytes), size_bytes)


def estimate_cell(estimate: Estimate | None, digits: int, *, percent: bool = False) -> Cell:
    """A value ± its standard error."""
    if estimate is None:
        return Cell(units.DASH, None)
    scale, sign = (100, " %") if percent else (1, "")
    error = "" if estimate.error is None else f" ± {estimate.error * scale:.{digits}f}"
    value = estimate.value if math.isfinite(estimate.value) else None  # JSON has no word for what is not a number
    return Cell(f"{estimate.value * scale:z.{digits}f}{error}{sign}", value)  # z: no "-0.0000"


def estimate_cells(estimate: Estimate | None, digits: int, *, percent: bool = False) -> Iterator[Cell]:
    """The same, and the error by itself for machines."""
    yield estimate_cell(estimate, digits, percent=percent)
    error = estimate.error if estimate else None
    yield Cell(units.number(error, digits), error)


def estimate_columns(key: str, title: str, *, shown: bool = True) -> tuple[Column, Column]:
    """Of these."""
    return Column(key, title, shown=shown), Column(f"{key}_error", f"{title} error", shown=False)
