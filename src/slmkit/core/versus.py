"""Two models held against each other, as they were measured in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from slmkit.core.bench import BenchRow, BenchRun
from slmkit.core.verdict import Difference, compare_rows


@dataclass(frozen=True)
class Versus:
    """What `subject` is beside `other`, under the same settings."""

    subject: BenchRow
    other: BenchRow
    differences: tuple[Difference, ...]


def versus(run: BenchRun, digest: str) -> Iterator[Versus]:
    """Every row beside the one of the file with this digest that was measured under the same spec."""
    others = {row.spec: row for row in run.rows if row.digest == digest}
    for row in run.rows:
        other = others.get(row.spec)
        if other and row.digest != digest and not row.failure and not other.failure:
            yield Versus(row, other, compare_rows(row, other))
