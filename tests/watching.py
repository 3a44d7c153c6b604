"""A progress for tests that want to know what they are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from slmkit.core.progress import Task, Unit


class Watching:
    """A progress that is its own tasks, and knows what they are called."""

    label = ""

    @contextmanager
    def task(self, label: str, total: int | None, unit: Unit, *, done: int = 0) -> Iterator[Task]:
        before, self.label = self.label, label
        yield self
        self.label = before

    def advance(self, amount: int = 1) -> None:
        pass

    def set_total(self, total: int) -> None:
        pass

    def describe(self, text: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass
