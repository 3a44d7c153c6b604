"""What is made of an artifact is registered under its digest: so its files must be those bytes all the while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.errors import ChangedError, SlmkitError
from slmkit.registry.atomic import sha256

_SLACK_S = 2.0
"""`created` has whole seconds, and file systems have clocks of their own."""

_Stamp = tuple[int, int, int]


@contextmanager
def unchanged(source: Artifact) -> Iterator[None]:
    """Around all reading of `source`: raises `ChangedError` when its files are not what they were registered as,
    or change meanwhile; also in the place of an error that such a change led to.

    Sizes and times are looked at; a file that was written after it was registered is hashed.
    """
    before = _stamps(source)
    _check_late(source, before)
    try:
        yield
    except SlmkitError as error:
        if _stamps(source) != before:
            raise _changed(source, "while it was read") from error
        raise
    if _stamps(source) != before:
        raise _changed(source, "while it was read")


def check_unchanged(source: Artifact) -> None:
    """Raise `ChangedError` when its files are not what they were registered as, by the same looks as `unchanged`."""
    _check_late(source, _stamps(source))


def _stamps(source: Artifact) -> dict[Path, _Stamp | None]:
    return {source.root / file.name: _stamp(source.root / file.name) for file in source.files}


def _stamp(path: Path) -> _Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _check_late(source: Artifact, stamps: dict[Path, _Stamp | None]) -> None:
    made_s = datetime.fromisoformat(source.created).timestamp() + _SLACK_S
    for file in source.files:
        path = source.root / file.name
        stamp = stamps[path]
        if stamp is None:
            raise _changed(source, f"since it was registered: {path} is gone")
        _, size_bytes, mtime_ns = stamp
        if size_bytes != file.size_bytes or (mtime_ns > made_s * 1e9 and sha256(path) != file.sha256):
            raise _changed(source, f"since it was registered: {path} has other contents")


def _changed(source: Artifact, when: str) -> ChangedError:
    hint = "let nothing write to it, and run the same command again"
    if not source.typed:
        again = f"slmkit pull {source.model}" if source.provenance.action == "pull" else f"slmkit adopt {source.path}"
        hint = f"see `slmkit verify {source.ref}`; to register what it is now: `{again}`"
        if source.owned:
            hint = f"see `slmkit verify {source.ref}`; delete it and make it again: `slmkit rm {source.ref}`"
    return ChangedError(f"{source.ref} has changed {when}", hint=hint)
