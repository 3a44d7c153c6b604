"""Runs of `bench`, `quality` and its `--sensitivity`: one JSON document each, raw samples and all. A run's id is the
stem of its file.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slmkit.core.history import Stored, StoredQuality, StoredRun, StoredSensitivity, short
from slmkit.core.quality import QualityRun
from slmkit.core.sensitivity import Sensitivity
from slmkit.errors import FormatError, NotInRegistryError, RegistryError, UsageError
from slmkit.formats import runs as documents
from slmkit.registry.atomic import write_text

BENCH, QUALITY, SENSITIVITY = "bench", "quality", "sensitivity"
KINDS = (BENCH, QUALITY, SENSITIVITY)
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


def amend(home: Path, document: dict[str, Any], amended: dict[str, Any]) -> None:
    """Write `amended` in place of the run that is `document`; one that was deleted meanwhile stays away."""
    known = json.dumps(document)  # as text: what is no number equals itself
    for path in _paths(home, document["kind"]):
        with suppress(OSError, ValueError):  # another one, which is damaged
            if json.dumps(json.loads(path.read_text(encoding="utf-8"))) == known:
                write_text(path, json.dumps(amended, indent=1, ensure_ascii=False) + "\n")
                return


def load(home: Path, kind: str) -> Iterator[dict[str, Any]]:
    """All runs of a kind, the newest first; raises `RegistryError` for a damaged one."""
    for path in _paths(home, kind):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        yield document


def every(home: Path) -> tuple[list[StoredRun], list[DamagedRun]]:
    """All benches, the newest first, and beside them the files that cannot be read."""
    whole, damaged = _whole(home, BENCH)
    return [stored for stored in whole if isinstance(stored, StoredRun)], damaged


def quality_runs(home: Path) -> tuple[list[StoredQuality], list[DamagedRun]]:
    """The same of `quality`."""
    whole, damaged = _whole(home, QUALITY)
    return [stored for stored in whole if isinstance(stored, StoredQuality)], damaged


def sensitivity_runs(home: Path) -> tuple[list[StoredSensitivity], list[DamagedRun]]:
    """The same of `quality --sensitivity`."""
    whole, damaged = _whole(home, SENSITIVITY)
    return [stored for stored in whole if isinstance(stored, StoredSensitivity)], damaged


def read(home: Path, text: str) -> StoredRun:
    """The bench that an id names; see `find`.

    Raises `RegistryError` for a damaged one, `UsageError` for a run of another kind.
    """
    try:
        path = find(home, text, BENCH)
    except NotInRegistryError:
        kind = next((kind for kind in KINDS if _named(home, text, kind)), None)
        if kind is None:
            raise
        raise UsageError(f"{text} is a run of `{kind}`: one of `bench` is wanted", hint="`slmkit runs list`") from None
    stored = _read(path)
    assert isinstance(stored, StoredRun)
    return stored


def read_any(home: Path, text: str, *kinds: str) -> Stored:
    """The run of any kind that an id names; see `find`; raises `RegistryError` for a damaged one."""
    return _read(find(home, text, *kinds))


def find(home: Path, text: str, *kinds: str) -> Path:
    """The file of a run, which is not read: by its id, what only its id begins with, the same of the last part of the
    id, or `latest`. Without `kinds` it may be of any.

    Raises `NotInRegistryError` for none, `UsageError` for several.
    """
    found = _named(home, text, *(kinds or KINDS))
    if not found:
        raise NotInRegistryError(f"no run {text!r}", hint="`slmkit runs list` shows them; `latest` is the newest")
    if len(found) > 1:
        some = ", ".join(p.stem for p in found[:3]) + (", ..." if len(found) > 3 else "")
        raise UsageError(f"{len(found)} runs are {text!r}: {some}", hint="type more of the id")
    return found[0]


def keep(home: Path, run: documents.Run) -> tuple[str, bool]:
    """Keep a run from elsewhere under the time when it was made; gives its id, and whether it was not here before."""
    document = documents.plain(run)
    kind = kind_of(run)
    for stored in _whole(home, kind)[0]:
        if documents.plain(stored.run) == document:
            return stored.id, False
    return save(home, kind, document, documents.moment(run)).stem, True


def _named(home: Path, text: str, *kinds: str) -> list[Path]:
    paths = _paths(home, *kinds)
    if text == LATEST:
        return paths[:1]
    found = [p for p in paths if p.stem == text]
    return found or [p for p in paths if text and (p.stem.startswith(text) or short(p.stem).startswith(text))]


def _whole(home: Path, kind: str) -> tuple[list[Stored], list[DamagedRun]]:
    whole: list[Stored] = []
    damaged: list[DamagedRun] = []
    for path in _paths(home, kind):
        try:
            whole.append(_stored(path))
        except (OSError, FormatError) as error:
            damaged.append(DamagedRun(path, str(error)))
    return whole, damaged


def _read(path: Path) -> Stored:
    try:
        return _stored(path)
    except (OSError, FormatError) as error:
        raise _damaged(path, str(error)) from error


def _stored(path: Path) -> Stored:
    """What is in a file; raises `OSError`, and `FormatError` also where it is of another kind than its name says."""
    found = documents.parse_any(path.read_bytes())
    if len(found) != 1:
        raise FormatError("one run is wanted in a file")
    run = found[0]
    if f"-{kind_of(run)}-" not in path.stem:
        raise FormatError("it is a run of another kind than its name says")
    if isinstance(run, QualityRun):
        return StoredQuality(path.stem, run)
    return StoredSensitivity(path.stem, run) if isinstance(run, Sensitivity) else StoredRun(path.stem, run)


def kind_of(run: documents.Run) -> str:
    """What it is called in the names of files."""
    if isinstance(run, QualityRun):
        return QUALITY
    return SENSITIVITY if isinstance(run, Sensitivity) else BENCH


def _paths(home: Path, *kinds: str) -> list[Path]:
    return sorted((p for kind in kinds for p in (home / "runs").glob(f"[!.]*-{kind}-*.json")), reverse=True)


def _damaged(path: Path, reason: str) -> RegistryError:
    return RegistryError(f"the run {path} is damaged: {reason}", hint=f"delete it: `slmkit runs rm {path.stem}`")
