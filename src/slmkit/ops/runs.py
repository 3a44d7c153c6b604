"""`runs`: what was measured is kept, found again, and brought here from other machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slmkit.core.bench import BenchRun
from slmkit.core.history import Listed, Wanted
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


def find(wanted: Wanted, home: Path) -> tuple[list[Listed], list[DamagedRun]]:
    """The runs that one looks for, the newest first, and the files that cannot be read."""
    whole, damaged = runs.every(home)
    rows = ((stored, wanted.rows(stored.run, documents.moment(stored.run).date())) for stored in whole)
    return [Listed(stored, found) for stored, found in rows if found], damaged


def bring(paths: Sequence[Path], home: Path) -> list[Imported]:
    """Keep the runs in files of slmkit or llama-bench, all or none; raises `UsageError`, `FormatError`."""
    found = [(path, run) for path in paths for run in _read(path)]
    kept = ((path, run, runs.keep(home, run)) for path, run in found)
    return [Imported(run_id, path, len(run.rows), fresh) for path, run, (run_id, fresh) in kept]


def _read(path: Path) -> list[BenchRun]:
    try:
        return documents.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="name a file with a run in it") from error
    except FormatError as error:
        raise FormatError(f"{path}: {error.message}", hint=error.hint) from error
