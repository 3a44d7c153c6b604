"""Bench runs: one JSON document each, raw samples and all. A run's id is the stem of its file."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slmkit.core.bench import BenchRun
from slmkit.core.history import StoredRun, short
from slmkit.errors import FormatError, NotInRegistryError, RegistryError, UsageError
from slmkit.formats import runs as documents
from slmkit.registry.atomic import write_text

KIND = "bench"
LATEST = "latest"


@dataclass(frozen=True)
class DamagedRun:
    """A file in `runs/` that is no run, and why."""

    path: Path
    reason: str


def save(home: Path, kind: str, document: dict[str, Any], moment: datetime | None = None) -> Path:
    """Write one run and return its path. File names sort by time: now, or `moment`."""
    stamp = (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    path = home / "runs" / f"{stamp}-{kind}-{secrets.token_hex(3)}.json"
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


def load(home: Path, kind: str) -> Iterator[dict[str, Any]]:
    """All runs of a kind, the newest first; raises `RegistryError` for a damaged one."""
    for path in _paths(home, kind):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        yield document


def every(home: Path) -> tuple[list[StoredRun], list[DamagedRun]]:
    """All runs, the newest first, and beside them the files that cannot be read."""
    whole, damaged = [], []
    for path in _paths(home, KIND):
        try:
            whole.append(StoredRun(path.stem, _read(path)))
        except (OSError, FormatError) as error:
            damaged.append(DamagedRun(path, str(error)))
    return whole, damaged


def read(home: Path, text: str) -> StoredRun:
    """The run that an id names; see `find`; raises `RegistryError` for a damaged one."""
    path = find(home, text)
    try:
        return StoredRun(path.stem, _read(path))
    except (OSError, FormatError) as error:
        raise _damaged(path, str(error)) from error


def find(home: Path, text: str) -> Path:
    """The file of a run, which is not read: by its id, what only its id begins with, the same of the last part of the
    id, or `latest`.

    Raises `NotInRegistryError` for none, `UsageError` for several.
    """
    paths = _paths(home, KIND)
    if text == LATEST and paths:
        return paths[0]
    found = [p for p in paths if p.stem == text]
    found = found or [p for p in paths if text and (p.stem.startswith(text) or short(p.stem).startswith(text))]
    if not found:
        raise NotInRegistryError(f"no run {text!r}", hint="`slmkit runs list` shows them; `latest` is the newest")
    if len(found) > 1:
        some = ", ".join(p.stem for p in found[:3]) + (", ..." if len(found) > 3 else "")
        raise UsageError(f"{len(found)} runs are {text!r}: {some}", hint="type more of the id")
    return found[0]


def keep(home: Path, run: BenchRun) -> tuple[str, bool]:
    """Keep a run from elsewhere under the time when it was made; gives its id, and whether it was not here before."""
    document = documents.plain(run)
    for stored in every(home)[0]:
        if documents.plain(stored.run) == document:
            return stored.id, False
    return save(home, KIND, document, documents.moment(run)).stem, True


def _read(path: Path) -> BenchRun:
    found = documents.parse(path.read_bytes())
    if len(found) != 1:
        raise FormatError("one run is wanted in a file")
    return found[0]


def _paths(home: Path, kind: str) -> list[Path]:
    return sorted((home / "runs").glob(f"[!.]*-{kind}-*.json"), reverse=True)


def _damaged(path: Path, reason: str) -> RegistryError:
    return RegistryError(f"the run {path} is damaged: {reason}", hint=f"delete it: `slmkit runs rm {path.stem}`")
