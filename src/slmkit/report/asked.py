"""Which columns answers have: questions with choices, and what models write after prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from slmkit.core import units
from slmkit.core.behaviour import Behaviour, BehaviourReport
from slmkit.core.history import label_of
from slmkit.core.proportion import Paired, Proportion
from slmkit.core.quality import QualityRun
from slmkit.core.tasks import TaskResult
from slmkit.report.table import Cell, Column, Table


def tasks_table(runs: Sequence[QualityRun]) -> Table | None:
    """Accuracy with its 95 % interval, and beside the first, the base, what changed; `None` of no answers."""
    results = [result for run in runs for result in run.tasks]
    if not results:
        return None
    columns = (
        Column("ref", f"{results[0].task} ({results[0].measure})", right=False),
        Column("accuracy", "right"),
        Column("accuracy_low", "low", shown=False),
        Column("accuracy_high", "high", shown=False),
        Column("n_questions", "questions"),
        Column("difference", "beside the base"),
        Column("p_value", "p (McNemar)"),
        Column("n_changed", "other answers"),
    )
    rows = tuple(tuple(_answered(result, run)) for run in runs for result in run.tasks)
    chance = next((result.chance for result in results if result.chance is not None), None)
    notes = [f"guessing would be right in {units.percent(chance)}; beside each accuracy its 95 % interval"]
    notes += [
        f"{label_of(r.ref)}: {r.n_cut} questions were too long: their beginnings are left out"
        for r in results
        if r.n_cut
    ]
    notes += [f"{label_of(r.ref)}: {r.failure.message}" for r in results if r.failure]
    return Table(columns, rows, "tasks", tuple(notes))


def behaviour_table(runs: Sequence[QualityRun]) -> Table | None:
    """Where each leaves the base's path, how often it is caught in a loop, and valid JSON; `None` of no answers."""
    reports = [run.behaviour for run in runs if run.behaviour]
    if not reports:
        return None
    columns = (
        Column("ref", "greedy answers", right=False),
        Column("median_tokens", "leaves the path after"),
        Column("same", "same answers"),
        Column("loops", "loops"),
        Column("json", "valid JSON"),
        Column("json_keys", "with its keys"),
        Column("json_grammar", "with a grammar"),
    )
    rows = [tuple(_written(each, report)) for report in reports for each in (report.reference, *report.rows)]
    first = reports[0].reference
    how = "in the model's chat template" if first.is_chat else "without a chat template: the model has none"
    asked, most = units.several(len(first.answers), "prompt"), units.several(first.n_gen, "token")
    notes = [f"{asked} {how}, {most} at most; the likeliest token each time"]
    every = [each for report in reports for each in (report.reference, *report.rows)]
    notes += [f"{label_of(each.ref)}: {each.failure.message}" for each in every if each.failure]
    return Table(columns, tuple(rows), "behaviour", tuple(notes))


def task_figures(result: TaskResult, run: QualityRun) -> dict[str, Any]:
    """What the table shows of one model, as JSON."""
    accuracy, beside = result.accuracy(), _beside_base(result, run)
    paired, n_changed = beside or (None, None)
    return {
        "accuracy": accuracy.share,
        "interval": accuracy.interval,
        "n_questions": accuracy.n,
        "chance": result.chance,
        "difference": paired.difference if paired else None,
        "p_value": paired.p_value if paired else None,
        "n_changed": n_changed,
    }


def behaviour_figures(report: BehaviourReport) -> list[dict[str, Any]]:
    """What the table shows of each, the reference first, as JSON."""
    return [_figures(each, report) for each in (report.reference, *report.rows)]


def _figures(row: Behaviour, report: BehaviourReport) -> dict[str, Any]:
    is_reference = row is report.reference
    agreement = None if is_reference else report.agreement(row)
    return {
        "ref": row.ref,
        "is_reference": is_reference,
        "n_prompts": row.loops.n,
        "median_tokens": agreement.median_tokens if agreement else None,
        "is_censored": agreement.is_censored if agreement else None,
        "same": agreement.same.share if agreement else None,
        "loops": row.loops.share,
        "n_json_prompts": row.valid_json().n,
        "valid_json": row.valid_json().share,
        "valid_json_with_keys": row.valid_json(with_keys=True).share,
        "valid_json_with_grammar": row.valid_json(constrained=True).share,
    }


def _beside_base(result: TaskResult, run: QualityRun) -> tuple[Paired, int] | None:
    """Its answers beside the base's, and how many are others; `None` of the base, and where one has none."""
    base = run.tasks[0] if run.base and run.tasks[0].digest == run.base else None
    if base is None or base is result or base.failure or result.failure:
        return None
    return result.against(base), result.n_changed(base)


def _answered(result: TaskResult, run: QualityRun) -> Iterator[Cell]:
    accuracy = result.accuracy()
    yield Cell(result.ref, result.ref)
    low, high = accuracy.interval or (None, None)
    share = accuracy.share
    between = "" if low is None or high is None else f" ({low * 100:.1f} to {high * 100:.1f})"
    yield Cell(units.DASH if share is None else f"{share * 100:.1f} %{between}", share)
    yield Cell(units.percent(low), low)
    yield Cell(units.percent(high), high)
    yield Cell(str(accuracy.n), accuracy.n)
    beside = _beside_base(result, run)
    if beside is None:
        yield from (Cell(units.DASH, None) for _ in range(3))
        return
    paired, n_changed = beside
    difference = paired.difference
    yield Cell(units.DASH if difference is None else f"{difference * 100:+.1f} %", difference)
    yield Cell(f"{paired.p_value:.2f}", paired.p_value)
    yield Cell(str(n_changed), n_changed)


def _written(row: Behaviour, report: BehaviourReport) -> Iterator[Cell]:
    yield Cell(row.ref, row.ref)
    agreement = None if row is report.reference else report.agreement(row)
    if agreement is None or agreement.median_tokens is None:
        yield Cell(units.DASH, None)
        yield Cell(units.DASH, None)
    else:
        at_least = "≥ " if agreement.is_censored else ""
        yield Cell(f"{at_least}{agreement.median_tokens:g} tokens", agreement.median_tokens)
        yield _share(agreement.same)
    answered = [row.loops, row.valid_json(), row.valid_json(with_keys=True), row.valid_json(constrained=True)]
    yield from (Cell(units.DASH, None) if row.failure else _share(each) for each in answered)


def _share(found: Proportion) -> Cell:
    return Cell(units.DASH if not found.n else f"{found.n_yes} of {found.n}", found.share)
