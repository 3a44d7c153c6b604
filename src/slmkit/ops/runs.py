"""`runs`: what was measured is kept, found again, and brought here from other machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slmkit.core.bench import BenchRun
from slmkit.core.history import Listed, ListedQuality, Wanted
from slmkit.core.quality import QualityRun
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


def find(wanted: Wanted, home: Path) -> tuple[list[Listed | ListedQuality], list[DamagedRun]]:
    """The runs that one looks for, the newest first, and the files that cannot be read."""
    benches, damaged = runs.every(home)
    qualities, also_damaged = runs.quality_runs(home)
    found: list[Listed | ListedQuality] = [
        *(Listed(s, wanted.among(s.run.rows, s.run, documents.moment(s.run).date())) for s in benches),
        *(ListedQuality(s, wanted.among(s.run.rows, s.run, documents.moment(s.run).date())) for s in qualities),
    ]
    listed = sorted((each for each in found if each.rows), key=lambda each: each.stored.id, reverse=True)
    return listed, [*damaged, *also_damaged]


def bring(paths: Sequence[Path], home: Path) -> list[Imported]:
    """Keep the runs in files of slmkit or llama-bench, all or none; raises `UsageError`, `FormatError`."""
    found = [(path, run) for path in paths for run in _read(path)]
    kept = ((path, run, runs.keep(home, run)) for path, run in found)
    return [Imported(run_id, path, len(run.rows), fresh) for path, run, (run_id, fresh) in kept]


def _read(path: Path) -> list[BenchRun | QualityRun]:
    try:
        return documents.parse_any(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="name a file with a run in it") from error
    except FormatError as error:
        raise FormatError(f"{path}: {error.message}", hint=error.hint) from error
