"""How long work reports that it moves on, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

Unit = Literal["bytes", "tensors", "steps"]


class Task(Protocol):
    """One running piece of work."""

    def advance(self, amount: int = 1) -> None:
        """`amount` more units are done."""

    def set_total(self, total: int) -> None:
        """The total has become known, or is another."""

    def describe(self, text: str) -> None:
        """What it is at just now, instead of its label."""


class Progress(Protocol):
    """Where work reports to. Library code gets one passed in and never prints."""

    def task(self, label: str, total: int | None, unit: Unit, *, done: int = 0) -> AbstractContextManager[Task]:
        """Begin a piece of work of `total` units (`None`: unknown), `done` of them from an earlier run."""

    def say(self, text: str) -> None:
        """A remark that the user should read once, such as "pulling first"."""

    def warn(self, text: str) -> None:
        """A remark that the user should heed."""


class _SilentTask:
    def advance(self, amount: int = 1) -> None:
        pass

    def set_total(self, total: int) -> None:
        pass

    def describe(self, text: str) -> None:
        pass


class _Silent:
    @contextmanager
    def task(self, label: str, total: int | None, unit: Unit, *, done: int = 0) -> Iterator[Task]:
        yield _SilentTask()

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


SILENT: Progress = _Silent()
