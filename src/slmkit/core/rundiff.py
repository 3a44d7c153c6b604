"""Two runs beside each other: nothing of them is put together, and what is not the same about them is named."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slmkit.core import stats, verdict
from slmkit.core.bench import OK, BenchRow, BenchRun
from slmkit.core.history import label_of

_TESTS = ("pp", "tg", "pg")
_LENGTHS = ("n_prompt", "n_gen", "n_pg_prompt", "n_pg_gen", "prompt")


@dataclass(frozen=True)
class Differing:
    """A key of `run`, `host`, `build`, `model` or `spec` with other values in A and B; `model` has which model's."""

    where: str
    key: str
    a: Any
    b: Any
    model: str | None = None


@dataclass(frozen=True)
class Value:
    """A mean, or a median, and where there are samples its 95 % confidence interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Beside:
    """One thing in A, in B, or in both. `unit` is `tok/s`, `ns` or `bytes`.

    `settings` are those that tell it from the other values of its run. `verdict` is what B is beside A, as far as the
    samples carry: `6.1 % ± 0.8 % faster`.
    """

    model: str
    name: str
    unit: str
    a: Value | None
    b: Value | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    verdict: str | None = None

    @property
    def change(self) -> float | None:
        """B over A, less one."""
        return self.b.value / self.a.value - 1 if self.a and self.b and self.a.value else None


@dataclass(frozen=True)
class RunsDiff:
    """What differs about the runs, their values side by side, and the rows of which not to expect much."""

    differing: tuple[Differing, ...]
    values: tuple[Beside, ...]
    disturbed: tuple[str, ...] = ()


def diff(a: BenchRun, b: BenchRun) -> RunsDiff:
    """Values belong together when model, name and settings are the same; of those that are left, when A and B have one
    each of that model and name.
    """
    differing = [Differing("run", "source", a.source, b.source)] if a.source != b.source else []
    for where, one, two in (("host", a.host, b.host), ("build", a.build, b.build)):
        differing += [Differing(where, *item) for item in _unlike(one, two)]
    values = []
    cells_a, cells_b = list(_cells(a)), list(_cells(b))
    varying = _varying(cells_a) | _varying(cells_b)
    for left, right in _pairs(cells_a, cells_b):
        cell = left or right
        assert cell is not None
        if left and right:
            differing += [Differing("spec", *item, cell.model) for item in _unlike(left.settings, right.settings)]
            differing += [Differing("model", *item, cell.model) for item in _unlike(left.file, right.file)]
        settings = {key: value for key, value in cell.settings.items() if key in varying}
        value, other = left.value if left else None, right.value if right else None
        said = _verdict(left, right) if left and right else None
        values.append(Beside(cell.model, cell.name, cell.unit, value, other, settings, said))
    disturbed = tuple(
        f"{side}: {row.ref} is {row.state}" for side, run in (("A", a), ("B", b)) for row in run.rows if row.state != OK
    )
    differing = [item for i, item in enumerate(differing) if item not in differing[:i]]
    return RunsDiff(tuple(differing), tuple(values), tuple(dict.fromkeys(disturbed)))


@dataclass(frozen=True)
class _Cell:
    row: BenchRow
    what: str
    model: str
    name: str
    unit: str
    value: Value
    file: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


_KEYS: tuple[Callable[[_Cell], Hashable], ...] = (
    lambda cell: (cell.model, cell.name, *cell.file.items(), *sorted(cell.settings.items(), key=str)),
    lambda cell: (cell.model, cell.name, *sorted(cell.settings.items(), key=str)),
    lambda cell: (cell.model, cell.name),
)
"""What must be the same, the strictest first."""


def _cells(run: BenchRun) -> Iterator[_Cell]:
    sizes: list[_Cell] = []
    for row in run.rows:
        model, file = label_of(row.ref).lower(), {"digest": row.digest}
        size = _Cell(row, "size", model, "size", "bytes", Value(row.size_bytes), file)
        if row.failure is None:
            yield from _cells_of(row, model, file)
            sizes += [size] if (model, file) not in [(other.model, other.file) for other in sizes] else []
    yield from sizes


def _varying(cells: Sequence[_Cell]) -> set[str]:
    """Settings that are not the same in all of a run."""
    seen: dict[str, Any] = {}
    return {key for cell in cells for key, value in cell.settings.items() if seen.setdefault(key, value) != value}


def _cells_of(row: BenchRow, model: str, file: Mapping[str, Any]) -> Iterator[_Cell]:
    every = row.spec.conditions()
    settings = {key: value for key, value in every.items() if key not in _LENGTHS}
    for test in _TESTS:
        if rates := row.rates(test):
            value = Value(statistics.fmean(rates), *(stats.interval(rates) or ()))
            yield _Cell(row, test, model, getattr(row.spec, test), "tok/s", value, file, settings)
    if row.ttft_ns:
        value = Value(statistics.median(row.ttft_ns), *(stats.interval(row.ttft_ns, statistics.median) or ()))
        yield _Cell(row, "ttft", model, "TTFT", "ns", value, file, every)
    if row.load_ns is not None:
        yield _Cell(row, "load", model, "load", "ns", Value(row.load_ns), file, every)
    if row.memory and row.memory.peak_rss is not None:
        yield _Cell(row, "rss", model, "peak RSS", "bytes", Value(row.memory.peak_rss), file, every)


def _verdict(a: _Cell, b: _Cell) -> str | None:
    """They were not measured in turn: what two runs differ by although nothing has changed is allowed for."""
    if a.what not in verdict.MEASURES:
        return None
    one, other = (verdict.blocks(cell.row, cell.what) for cell in (b, a))
    n_processes = min(len(one.logs), len(other.logs))
    if not n_processes:  # a size that another program did not know
        return None
    text = verdict.difference(a.what, verdict.unpaired(one, other), verdict.FEW_PAIRS).text
    few = a.what != "size" and n_processes < verdict.FEW_PAIRS
    return text + (f" ({n_processes} process{'es' * (n_processes > 1)})" if few else "")


def _pairs(a: Sequence[_Cell], b: Sequence[_Cell]) -> list[tuple[_Cell | None, _Cell | None]]:
    """Each of A with that of B which it belongs to, in the order of A; then what only B has."""
    partner: dict[int, int] = {}
    for key in _KEYS:
        mine = _grouped(a, key, set(partner))
        theirs = _grouped(b, key, set(partner.values()))
        for same, left in mine.items():
            right = theirs.get(same, [])
            if len(left) == len(right) == 1 or key is not _KEYS[-1]:
                partner |= dict(zip(left, right, strict=False))
    taken = set(partner.values())
    both: list[tuple[_Cell | None, _Cell | None]] = [
        (cell, b[partner[i]] if i in partner else None) for i, cell in enumerate(a)
    ]
    return both + [(None, cell) for i, cell in enumerate(b) if i not in taken]


def _grouped(cells: Sequence[_Cell], key: Callable[[_Cell], Hashable], done: set[int]) -> dict[Hashable, list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for i, cell in enumerate(cells):
        if i not in done:
            groups.setdefault(key(cell), []).append(i)
    return groups


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(key, a.get(key), b.get(key)) for key in dict.fromkeys((*a, *b)) if a.get(key) != b.get(key)]
