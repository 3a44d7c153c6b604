"""All of `check`: speed, memory and size against a baseline, and quality against limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from slmkit.core import units
from slmkit.core.bench import BenchRun
from slmkit.core.check import Check, Limits
from slmkit.core.quality import Corpus, QualityRun, QualitySpec
from slmkit.core.refs import ModelRef
from slmkit.core.sensitivity import Sensitivity
from slmkit.errors import FormatError, UsageError
from slmkit.formats import runs as documents
from slmkit.ops import check as check_op
from slmkit.ops import check_quality
from slmkit.recipes import quality, verbs
from slmkit.recipes.check import HOW, check
from slmkit.recipes.session import Session
from slmkit.registry import runs

_SUFFIXES = (".json", ".jsonl")
"""Of files with runs; an id has a dot in it, too."""
Run = TypeVar("Run", bound=documents.Run)


def gate(
    refs: Sequence[ModelRef],
    limits: Limits,
    session: Session,
    *,
    baseline: BenchRun | None = None,
    measured: BenchRun | QualityRun | None = None,
    corpus: Callable[[], Corpus],
    spec: QualitySpec,
) -> Check:
    """What the limits ask for: against a baseline if there is one, and on a text if there is a limit of quality.

    `measured` is judged instead of measuring now, and must be of the kind that is judged. Without `refs` the models are
    those of the baseline. Raises `UsageError` for what does not go together, and what measuring raises.
    """
    if baseline is None and not limits.on_quality:
        raise UsageError("no baseline given", hint="`slmkit bench REF --json > baseline.json`, then `--baseline FILE`")
    if isinstance(measured, QualityRun):
        if baseline or not limits.on_quality:
            raise UsageError("the run is of `quality`", hint="judge it by `--max-kld`, and without `--baseline`")
        return check_quality.judge(_only(refs, measured, session), limits)
    if measured is not None:
        if limits.on_quality or baseline is None:
            raise UsageError("the run is of `bench`: it has no quality", hint="judge quality without `--run`, or apart")
        return check(refs, baseline, limits, session, measured=measured)
    found = Check(())
    if baseline is not None:
        found += check(refs, baseline, limits, session)
        refs = refs or [ModelRef.parse(ref) for ref in dict.fromkeys(row.ref for row in baseline.rows)]
    if limits.on_quality:
        for run in quality.quality(refs, corpus(), spec, session):
            found += check_quality.judge(run, limits)
    if not found.judgements:
        raise UsageError("only float files: there is nothing to hold against a limit", hint="name a quant, too")
    return found


def read_baseline(text: str) -> BenchRun:
    """The one bench run in a file; raises `UsageError` for what is none."""
    return _one(text, "--baseline", documents.parse)


def read_run(text: str, session: Session, *, kind: str) -> BenchRun | QualityRun:
    """The one run in a file, or the one that an id names; `latest` is the newest of that kind.

    Raises `UsageError` for neither.
    """
    path = Path(text).expanduser()
    if not path.exists() and path.suffix.lower() not in _SUFFIXES and path.name == text:
        home = session.registry.home
        run = runs.read_any(home, text, *((kind,) if text == runs.LATEST else ())).run
    else:
        run = _one(text, "--run", documents.parse_any)
    if isinstance(run, Sensitivity):
        what = "a run of `quality --sensitivity`, which no limit is about"
        raise UsageError(f"--run {text} is {what}", hint="`slmkit runs list`")
    return run


def _one(text: str, option: str, parse: Callable[[bytes], list[Run]]) -> Run:
    try:
        found = parse(Path(text).expanduser().read_bytes())
    except OSError as error:
        raise UsageError(f"{option} {text}: {error.strerror}", hint=HOW) from error
    except FormatError as error:
        raise UsageError(f"{option} {text}: {error.message}", hint=error.hint or HOW) from error
    if len(found) != 1:
        raise UsageError(f"{option} {text}: {units.several(len(found), 'run')} in it, one is wanted", hint=HOW)
    return found[0]


def _only(refs: Sequence[ModelRef], run: QualityRun, session: Session) -> QualityRun:
    """The base, and the rows of a run that are of these; all when there are none."""
    names = {check_op.name(artifact.ref) for artifact in verbs.artifacts(refs, session)}
    rows = tuple(row for row in run.rows if row.is_base or not names or check_op.name(row.ref) in names)
    if all(row.is_base for row in rows):
        there = ", ".join(row.ref for row in run.rows if not row.is_base) or "only its base"
        what = ", ".join(sorted(names)) or "quant"
        raise UsageError(f"the run has no {what}: it has {there}", hint="`slmkit runs list`")
    return replace(run, rows=rows)
