"""`runs`: what was measured is kept, found again, and brought here from other machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slmkit.core.history import AnyListed, Listed, ListedQuality, ListedSensitivity, Wanted
from slmkit.core.sensitivity import Sensitivity
from slmkit.errors import FormatError, UsageError
from slmkit.formats import runs as documents
from slmkit.registry import runs
from slmkit.registry.runs import DamagedRun


@dataclass(frozen=True)
class Imported:
    """A run that came from a file; not `fresh` when it was here already."""

    id: str
    path: Path
    n_rows: int
    fresh: bool


def find(wanted: Wanted, home: Path) -> tuple[list[AnyListed], list[DamagedRun]]:
    """The runs that one looks for, the newest first, and the files that cannot be read."""
    benches, damaged = runs.every(home)
    qualities, no_qualities = runs.quality_runs(home)
    sensitivities, no_sensitivities = runs.sensitivity_runs(home)
    found: list[AnyListed] = [
        *(Listed(s, wanted.among(s.run.rows, s.run, _day(s.run))) for s in benches),
        *(ListedQuality(s, wanted.among(s.run.rows, s.run, _day(s.run))) for s in qualities),
        *(ListedSensitivity(s, wanted.groups(s.run, _day(s.run))) for s in sensitivities),
    ]
    listed = sorted((each for each in found if each.rows), key=lambda each: each.stored.id, reverse=True)
    return listed, [*damaged, *no_qualities, *no_sensitivities]


def bring(paths: Sequence[Path], home: Path) -> list[Imported]:
    """Keep the runs in files of slmkit or llama-bench, all or none; raises `UsageError`, `FormatError`."""
    found = [(path, run) for path in paths for run in _read(path)]
    kept = ((path, run, runs.keep(home, run)) for path, run in found)
    return [Imported(run_id, path, _n_rows(run), fresh) for path, run, (run_id, fresh) in kept]


def _n_rows(run: documents.Run) -> int:
    return len(run.costs if isinstance(run, Sensitivity) else run.rows)


def _day(run: documents.Run) -> date:
    return documents.moment(run).date()


def _read(path: Path) -> list[documents.Run]:
    try:
        return documents.parse_any(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="name a file with a run in it") from error
    except FormatError as error:
        raise FormatError(f"{path}: {error.message}", hint=error.hint) from error
