"""One table over sizes, speed and memory: its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slmkit.core.bench import BenchRow, BenchSpec


@dataclass(frozen=True)
class CompareRow:
    """One artifact. `bench` is its newest measurement under the comparison's conditions, if there is one.

    `reduction` is the share of the baseline's size that this file saves: of the F16, or the BF16 where there is no F16;
    `None` without either.
    """

    ref: str
    model: str
    variant: str
    size_bytes: int
    reduction: float | None
    bpw: float | None
    bench: BenchRow | None
    is_baseline: bool = False


@dataclass(frozen=True)
class Comparison:
    """All rows, what was measured (`spec`, `None` for nothing) and on what, and the commands that fill the gaps."""

    rows: tuple[CompareRow, ...]
    spec: BenchSpec | None
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()
    host: Mapping[str, Any] = field(default_factory=dict)
    build: Mapping[str, str] = field(default_factory=dict)
