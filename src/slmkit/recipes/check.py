"""`check`: what a baseline has is measured again, as often as it takes to say yes or no, and held against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec
from slmkit.core.check import INCONCLUSIVE, REGRESSION, Check, Limits
from slmkit.core.refs import ModelRef
from slmkit.errors import UsageError
from slmkit.ops import bench as bench_op
from slmkit.ops import check as check_op
from slmkit.ops.bench import PER_CHILD
from slmkit.recipes import verbs
from slmkit.recipes.session import Session

ROUNDS = (5, 5, 10)
"""Children of each row: the first ones, and how many more as long as the answer is neither yes nor no. One criterion
that does not hold is an answer."""


def check(
    refs: Sequence[ModelRef],
    baseline: BenchRun,
    limits: Limits,
    session: Session,
    *,
    measured: BenchRun | None = None,
    rounds: Sequence[int] = ROUNDS,
) -> Check:
    """Judge `measured`, or measure the models (without any: those of the baseline) under the baseline's own settings.

    Raises `UsageError` where the baseline has nothing of them, and what measuring raises.
    """
    rows = [row for row in baseline.rows if not row.failure]
    if not rows:
        raise UsageError("the baseline is empty: it has no row that was measured", hint=HOW)
    found = verbs.artifacts(refs, session)
    if measured is not None:
        return check_op.judge(_of(found, baseline), _only(found, measured), limits)
    if not refs:
        found = verbs.artifacts([ModelRef.parse(ref) for ref in dict.fromkeys(row.ref for row in rows)], session)
    todo = [(artifact, _specs(artifact, rows)) for artifact in found]
    if missing := [artifact.ref for artifact, specs in todo if not specs]:
        there = ", ".join(dict.fromkeys(row.ref for row in rows))
        raise UsageError(f"the baseline has no {', '.join(missing)}: it has {there}", hint=HOW)
    now: BenchRun | None = None
    baseline = _of(found, baseline)
    for n_rounds in rounds:
        now = _measure(todo, n_rounds, now, session)
        answer = check_op.judge(baseline, now, limits)
        undecided = {judgement.ref for judgement in answer.with_verdict(INCONCLUSIVE)}
        undecided -= {judgement.ref for judgement in answer.with_verdict(REGRESSION)}
        undecided -= {row.ref for row in now.rows if row.failure}
        todo = [(artifact, specs) for artifact, specs in todo if artifact.ref in undecided]
        if not todo:
            break
        session.progress.say(f"undecided: {', '.join(sorted(undecided))}")
    return answer


HOW = "make one: `slmkit bench REF --json > baseline.json`"


def _only(artifacts: Sequence[Artifact], run: BenchRun) -> BenchRun:
    """The rows of a run that are of these; all when there are none."""
    names = {check_op.name(artifact.ref) for artifact in artifacts}
    rows = tuple(row for row in run.rows if not names or check_op.name(row.ref) in names)
    if not rows:
        there = ", ".join(dict.fromkeys(row.ref for row in run.rows)) or "no rows"
        raise UsageError(f"the run has no {', '.join(sorted(names))}: it has {there}", hint="`slmkit runs list`")
    return replace(run, rows=rows)


def _of(artifacts: Sequence[Artifact], baseline: BenchRun) -> BenchRun:
    """What the baseline has of these; all of it when there are none."""
    names = {check_op.name(artifact.ref) for artifact in artifacts}
    rows = (row for row in baseline.rows if not names or check_op.name(row.ref) in names)
    return replace(baseline, rows=tuple(rows))


def _specs(artifact: Artifact, rows: Sequence[BenchRow]) -> tuple[BenchSpec, ...]:
    return tuple(row.spec for row in rows if check_op.name(row.ref) == check_op.name(artifact.ref))


def _measure(
    todo: Sequence[tuple[Artifact, tuple[BenchSpec, ...]]], n_rounds: int, before: BenchRun | None, session: Session
) -> BenchRun:
    """So many more children of each, added to what is there. Those with the same settings take turns."""
    effort = bench_op.Effort(precision=0.0, max_time_s=math.inf, least_children=n_rounds)
    for specs in dict.fromkeys(specs for _, specs in todo):
        together = [artifact for artifact, own in todo if own == specs]
        wanted = [replace(spec, repetitions=n_rounds * PER_CHILD) for spec in specs]
        run = bench_op.bench(together, wanted, session.registry, session.progress, effort)
        before = run if before is None else check_op.joined(before, run)
    assert before is not None
    return before
