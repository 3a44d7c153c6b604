"""A time that is given to several verbs together: what still runs when it is over is stopped as by Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from slmkit.core.progress import Progress, Task, Unit
from slmkit.core.units import duration
from slmkit.errors import EngineTimeoutError


class Deadline:
    """`budget_s` from now on."""

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._ends = time.monotonic() + budget_s

    @property
    def left_s(self) -> float:
        """0 when it is over."""
        return max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        """Raise `EngineTimeoutError` when it is over."""
        if not self.left_s:
            raise EngineTimeoutError(f"the time is over: {duration(self._budget_s)}")


@dataclass(frozen=True)
class Watched:
    """A progress whose tasks `check` the deadline when they move on: a listener that raises stops the work, a child is
    killed, and nothing half made is left.
    """

    inner: Progress
    deadline: Deadline

    @contextmanager
    def task(self, label: str, total: int | None, unit: Unit, *, done: int = 0) -> Iterator[Task]:
        """See `Progress`."""
        with self.inner.task(label, total, unit, done=done) as task:
            yield _Task(task, self.deadline)

    def say(self, text: str) -> None:
        """See `Progress`."""
        self.inner.say(text)

    def warn(self, text: str) -> None:
        """See `Progress`."""
        self.inner.warn(text)


@dataclass(frozen=True)
class _Task:
    inner: Task
    deadline: Deadline

    def advance(self, amount: int = 1) -> None:
        self.inner.advance(amount)
        self.deadline.check()

    def set_total(self, total: int) -> None:
        self.inner.set_total(total)

    def describe(self, text: str) -> None:
        self.inner.describe(text)
