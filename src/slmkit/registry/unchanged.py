"""What is made of an artifact is registered under its digest: so its files must be those bytes all the while."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.core.quantize import ImatrixFile
from slmkit.errors import ChangedError, SlmkitError
from slmkit.registry.atomic import sha256

_SLACK_S = 2.0
"""`created` has whole seconds, and file systems have clocks of their own."""

_AGAIN = "let nothing write to it, and run the same command again"

_OF_FILE = re.compile(r"-of-[^-]+(-.*)?$")
"""In the name of a matrix: it was collected on this file of the model."""
_OWN_TEXT = re.compile(r"-[0-9a-f]{8}$")
"""Before that: it was collected on a text of the user's, which is called by its digest."""

_Stamp = tuple[int, int, int]


@contextmanager
def unchanged(source: Artifact, imatrix: ImatrixFile | None = None) -> Iterator[None]:
    """Around all reading of `source`, and of what it is weighed by: raises `ChangedError` when its files are not what
    they were registered as, or change meanwhile; also in the place of an error that such a change led to.

    Sizes and times are looked at; a file that was written after it was registered is hashed, `imatrix` always.
    """
    before = _stamps(source, imatrix)
    _check_late(source, before)
    if imatrix and (before[imatrix.path] is None or f"sha256:{sha256(imatrix.path)}" != imatrix.digest):
        raise _other_imatrix(imatrix, source, "since it was registered" if imatrix.is_own else "while it was read")
    try:
        yield
    except SlmkitError as error:
        _check_still(source, imatrix, before, error)
        raise
    _check_still(source, imatrix, before)


def check_unchanged(source: Artifact) -> None:
    """Raise `ChangedError` when its files are not what they were registered as, by the same looks as `unchanged`."""
    _check_late(source, _stamps(source))


def _stamps(source: Artifact, imatrix: ImatrixFile | None = None) -> dict[Path, _Stamp | None]:
    paths = [source.root / file.name for file in source.files] + ([imatrix.path] if imatrix else [])
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> _Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _check_still(
    source: Artifact,
    imatrix: ImatrixFile | None,
    before: dict[Path, _Stamp | None],
    cause: SlmkitError | None = None,
) -> None:
    now = _stamps(source, imatrix)
    if imatrix and now[imatrix.path] != before[imatrix.path]:
        raise _other_imatrix(imatrix, source, "while it was read") from cause
    if now != before:
        raise _changed(source, "while it was read") from cause


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


def collect_again(ref: str, label: str) -> str:
    """The hint for an importance matrix of `ref` that is not what it was; `label` is its name in the registry."""
    label = _OF_FILE.sub("", label)
    text = "--text FILE" if _OWN_TEXT.search(label) else f"--corpus {label}"
    return f"collect it again: `slmkit imatrix {ref} {text} --force`"


def _other_imatrix(imatrix: ImatrixFile, source: Artifact, when: str) -> ChangedError:
    hint = collect_again(source.ref, imatrix.name) if imatrix.is_own else _AGAIN
    return ChangedError(f"the importance matrix {imatrix.name!r} has changed {when}: {imatrix.path}", hint=hint)


def _changed(source: Artifact, when: str) -> ChangedError:
    hint = _AGAIN
    if source.provenance.action == "imatrix":
        hint = collect_again(source.provenance.parameters["source"], source.variant or "")
    elif not source.typed:
        again = f"slmkit pull {source.model}" if source.provenance.action == "pull" else f"slmkit adopt {source.path}"
        hint = f"see `slmkit verify {source.ref}`; to register what it is now: `{again}`"
        if source.owned:
            hint = f"see `slmkit verify {source.ref}`; delete it and make it again: `slmkit rm {source.ref}`"
    return ChangedError(f"{source.ref} has changed {when}", hint=hint)
