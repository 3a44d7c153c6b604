"""What an interrupted measurement has so far: a line for each child that is done, safe on the disk.

A journal belongs to the settings it was begun with, and is locked while someone writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slmkit.core.progress import Progress
from slmkit.errors import EngineTimeoutError, UsageError, is_disk_full
from slmkit.registry import atomic


class Journal:
    """One that is being written. `records` are those of the run that is continued."""

    def __init__(self, path: Path, records: list[dict[str, Any]], resume: bool | None) -> None:
        self._path, self._resume = path, resume
        self.records = records
        self.done = False

    @property
    def is_empty(self) -> bool:
        """Whether there would be nothing to go on with."""
        return not self._path.exists()

    @contextmanager
    def told(self, how: str, progress: Progress) -> Iterator[None]:
        """Around the work: who interrupts it learns that what is `how` ("measured") is kept, if anything is, and how to
        go on.
        """
        try:
            yield
        except KeyboardInterrupt:
            if not self.is_empty:
                progress.say(f"what is {how} is kept: {self._command} goes on")
            raise

    def late(self, how: str, timeout_s: float | None, error: EngineTimeoutError) -> EngineTimeoutError:
        """The error for a time that is over for all, which is no fault of the file whose turn it was."""
        said = f"it took more than {timeout_s or 0:g} s and was stopped"
        if self.is_empty:
            return EngineTimeoutError(f"{said}: nothing is {how} yet", hint="more: `--timeout`", log=error.log)
        hint = f"{self._command} goes on, with another `--timeout` as well"
        return EngineTimeoutError(f"{said}: what is {how} is kept", hint=hint, log=error.log)

    @property
    def _command(self) -> str:
        return "the same command" if self._resume is None else "the same command with `--resume`"

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a line, and see it safe on the disk; raises `DiskFullError`."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if is_disk_full(error):
                raise atomic.disk_full(self._path) from error
            raise


@contextmanager
def journal(home: Path, key: Any, *, resume: bool | None) -> Iterator[Journal]:
    """The journal of `key`; deleted in the end when it is `done`. `resume`: an old one is continued, begun anew
    (`False`), or continued if there is one (`None`).

    Raises `UsageError` when there is nothing to resume, or when another process is measuring the same.
    """
    from filelock import FileLock, Timeout  # 5 ms, which looking need not wait for

    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = home / "journals" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError("another slmkit is measuring just this", hint="wait until it is done") from error
    try:
        if resume and not path.exists():
            raise UsageError("nothing to resume: no interrupted run has these models and settings")
        if resume is False:
            path.unlink(missing_ok=True)
        made = Journal(path, list(_lines(path)) if path.exists() else [], resume)
        yield made
        if made.done:
            path.unlink(missing_ok=True)
    finally:
        lock.release()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Those that were written whole."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # the last one, when the machine stopped in its middle
            return
        yield record
