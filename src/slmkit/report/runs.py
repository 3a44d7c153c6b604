"""The tables of `runs`: what was measured when, one run, and two beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from slmkit.core import stats, units
from slmkit.core.bench import OK, BenchRun
from slmkit.core.divergence import scores
from slmkit.core.history import (
    AnyListed,
    Listed,
    ListedQuality,
    ListedSensitivity,
    Stored,
    StoredQuality,
    StoredRun,
    StoredSensitivity,
    host_name,
    label_of,
)
from slmkit.core.quality import QualityRun
from slmkit.core.rundiff import Beside, Differing, RunsDiff, Value
from slmkit.core.sensitivity import Sensitivity
from slmkit.report.bench import bench_table
from slmkit.report.cells import estimate_cell
from slmkit.report.quality import quality_record, quality_table
from slmkit.report.sensitivity import sensitivity_record, sensitivity_table
from slmkit.report.table import Cell, Column, Table

_TESTS = ("pp", "tg", "pg")
_FEW = 3
_KINDS = {Listed: "bench", ListedQuality: "quality", ListedSensitivity: "sensitivity"}


def runs_table(listed: Sequence[AnyListed]) -> Table:
    """One row for each run, the newest first; its speed or its mean KLD, too, when it is one row of each run that was
    looked for. Which kind it is of is said where there are others than of `bench`.
    """
    kinds = {not isinstance(found, Listed) for found in listed}
    hosts = len({host_name(found.stored.run) for found in listed}) > 1
    single = bool(listed) and all(len(found.rows) == 1 or isinstance(found, ListedSensitivity) for found in listed)
    columns = [Column("id", "run", right=False), Column("kind", "kind", right=False, shown=True in kinds)]
    columns += [Column("created", "created, UTC", right=False)]
    columns += [Column("models", "models", right=False), Column("tests", "tests", right=False)]
    columns += [Column("n_rows", "rows"), Column("n_failed", "failed"), Column("state", "state", right=False)]
    columns += [Column("host", "host", right=False)] if hosts else []
    columns += [Column("build", "engine", right=False)]
    speed, kld = single and False in kinds, single and True in kinds
    columns += [Column("pp_tok_per_s", "pp tok/s"), Column("tg_tok_per_s", "tg tok/s")] if speed else []
    columns += [Column("kld", "KLD")] if kld else []
    rows = []
    for found in listed:
        cells = [*_listed_cells(found, hosts)]
        cells += [_rate(found, "pp"), _rate(found, "tg")] if speed else []
        cells += [_kld(found)] if kld else []
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows), "runs")


def run_table(*several: StoredRun, wide: bool = False) -> Table:
    """The bench's own table, of several runs side by side; below it when, where and by what each was measured."""
    table = bench_table(*(stored.run for stored in several), wide=wide)
    facts = [fact for stored in several for fact in _origin(stored)]
    return replace(table, title=" ".join(stored.id for stored in several), notes=(*table.notes, *facts))


def quality_run_table(*several: StoredQuality, wide: bool = False) -> Table:
    """The same for runs of `quality`."""
    table = quality_table([stored.run for stored in several], wide=wide)
    facts = [fact for stored in several for fact in _origin(stored)]
    return replace(table, title=" ".join(stored.id for stored in several), notes=(*table.notes, *facts))


def record(stored: Stored) -> dict[str, Any]:
    """A run as JSON: its figures beside what they are computed from, and its id."""
    run = stored.run
    if isinstance(run, QualityRun):
        return {"id": stored.id, **quality_record(run)}
    return {"id": stored.id, **(sensitivity_record(run) if isinstance(run, Sensitivity) else run.document())}


def sensitivity_run_table(stored: StoredSensitivity) -> Table:
    """The same for a run of `quality --sensitivity`."""
    table = sensitivity_table(stored.run)
    return replace(table, notes=(*table.notes, *_origin(stored)))


def diff_table(a: str, b: str, difference: RunsDiff) -> Table:
    """Run A and run B beside each other, and below what is not the same about them."""
    settings = any(value.settings for value in difference.values)
    columns = [Column("model", "model", right=False)]
    columns += [Column("settings", "settings", right=False)] if settings else []
    columns += [Column("test", "test", right=False), Column("unit", "unit", right=False)]
    columns += [Column("a", f"A {a}"), Column("a_low", "95 %", right=False), Column("b", f"B {b}")]
    columns += [Column("b_low", "95 %", right=False), Column("change", "change")]
    columns += [Column("verdict", "B beside A", right=False)]
    rows = tuple(_beside_cells(value, settings) for value in difference.values)
    notes = [f"{_where(item)}: A {_plain(item.a)}, B {_plain(item.b)}" for item in difference.differing]
    if notes:
        notes.insert(0, "not the same about A and B:")
    return Table(tuple(columns), rows, f"{a} {b}", (*notes, *difference.disturbed))


def _listed_cells(found: AnyListed, hosts: bool) -> Iterator[Cell]:
    run, rows = found.stored.run, found.rows
    n_failed = sum(row.failure is not None for row in rows)
    build = " ".join(str(run.build.get(name)) for name in ("engine", "llama.cpp") if run.build.get(name))
    kind = _KINDS[type(found)]
    yield from (Cell(found.stored.short, found.stored.id), Cell(kind, kind))
    yield Cell(run.created[:16].replace("T", " "), run.created)
    yield _some(_models(found))
    yield _some(_tests(found))
    yield from (Cell(str(len(rows)), len(rows)), Cell(str(n_failed or ""), n_failed))
    states = _states(found)
    yield Cell(" ".join(states) or (OK if n_failed < len(rows) else units.DASH), states)
    if hosts:
        yield Cell(host_name(run), host_name(run))
    yield Cell(build, build)


def _models(found: AnyListed) -> list[str]:
    if isinstance(found, ListedSensitivity):
        return [f"{label_of(found.stored.run.ref)} in {found.stored.run.type}"]
    return list(dict.fromkeys(label_of(row.ref) for row in found.rows))


def _tests(found: AnyListed) -> list[str]:
    if not isinstance(found, Listed):
        run = found.stored.run
        return [f"{'KLD' if run.base else 'PPL'} at {run.spec.n_ctx} of {run.corpus_name}"]
    return list(dict.fromkeys(getattr(row.spec, t) for row in found.rows for t in _TESTS if row.samples(t)))


def _states(found: AnyListed) -> list[str]:
    """What is not as it should be: disturbed, or broken whatever it scores."""
    if isinstance(found, ListedSensitivity):
        return []
    if isinstance(found, ListedQuality):
        return ["broken"] if any(row.defect for row in found.rows) else []
    return [state for state in dict.fromkeys(row.state for row in found.rows if not row.failure) if state != OK]


def _some(names: list[str]) -> Cell:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return Cell(", ".join(names[:_FEW]) + more, names)


def _rate(found: AnyListed, test: str) -> Cell:
    if not isinstance(found, Listed):
        return Cell(units.DASH, None)
    rates = found.rows[0].rates(test)
    half = stats.relative_interval(rates)
    mean = stats.mean(rates)
    return Cell(units.number(mean) + (f" ± {half * 100:.1f} %" if half is not None else ""), mean)


def _kld(found: AnyListed) -> Cell:
    if isinstance(found, Listed):
        return Cell(units.DASH, None)
    if isinstance(found, ListedSensitivity):
        return estimate_cell(found.stored.run.together.kld, 4)
    known = scores(found.rows[0], found.stored.run.base_row)
    return estimate_cell(known.kld if known else None, 4)


def _origin(stored: Stored) -> tuple[str, ...]:
    run = stored.run
    by = f"{run.source if isinstance(run, BenchRun) else 'slmkit'} {run.slmkit}".rstrip()
    return (f"{stored.id}: {run.created}, by {by}", _facts("machine", run.host), _facts("engine", run.build))


def _facts(name: str, values: Any) -> str:
    known = {key: value for key, value in values.items() if value is not None}
    return f"{name}: " + (", ".join(f"{key} {_plain(value)}" for key, value in known.items()) or "unknown")


def _where(item: Differing) -> str:
    return f"{item.where}.{item.key}" + (f" of {item.model}" if item.model else "")


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "unknown" if value is None or value == "" else str(value)


def _beside_cells(value: Beside, settings: bool) -> tuple[Cell, ...]:
    chosen = " ".join(f"{key}={_plain(setting)}" for key, setting in value.settings.items())
    change = units.DASH if value.change is None else f"{value.change * 100:+.1f} %".replace("-0.0", "+0.0")
    return (
        Cell(value.model, value.model),
        *((Cell(chosen, dict(value.settings)),) if settings else ()),
        Cell(value.name, value.name),
        Cell("" if value.unit in ("ns", "bytes") else value.unit, value.unit),
        *_value_cells(value.a, value.unit),
        *_value_cells(value.b, value.unit),
        Cell(change, value.change),
        Cell(value.verdict or "", value.verdict),
    )


def _value_cells(value: Value | None, unit: str) -> tuple[Cell, Cell]:
    shown = {"ns": units.milliseconds, "bytes": units.size}.get(unit, units.number)
    if value is None:
        return Cell(units.DASH, None), Cell("", None)
    if value.low is None or value.high is None:
        return Cell(shown(value.value), value.value), Cell("", None)
    return Cell(shown(value.value), value.value), Cell(
        f"{shown(value.low)} to {shown(value.high)}", [value.low, value.high]
    )
