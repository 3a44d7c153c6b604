"""Progress on the terminal. Into a file or a pipe it is one line for each finished piece of work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from slmkit.cli.output import Output
from slmkit.core import units
from slmkit.core.progress import SILENT, Progress, Task, Unit

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, TaskID

WORTH_A_LINE_S = 0.5


def reporter(output: Output) -> Progress:
    """The progress that fits how this call speaks."""
    return SILENT if output.quiet or output.as_json else TerminalProgress(output)


class TerminalProgress:
    """Implements `core.progress.Progress` with rich, on stderr."""

    def __init__(self, output: Output) -> None:
        self._output = output

    @contextmanager
    def task(self, label: str, total: int | None, unit: Unit, *, done: int = 0) -> Iterator[Task]:
        """A bar with rate and ETA while the block runs."""
        started = time.monotonic()
        if not self._output.draws:
            yield _Quiet()
        else:
            from rich.progress import Progress as RichProgress

            # Benchmarks advance in steps: the bar is then drawn only when something has happened, because a bar that
            # moves by itself takes time from what is being measured.
            still = unit == "steps" and total is not None
            bar = RichProgress(
                *_columns(unit),
                console=self._output.errors,
                transient=True,
                auto_refresh=not still,
                refresh_per_second=5,
            )
            with bar:
                task = bar.add_task(label, total=total, completed=done)
                bar.refresh()
                yield _Bar(bar, task, still)
        elapsed_s = time.monotonic() - started
        if elapsed_s >= WORTH_A_LINE_S:
            self._output.say(f"{label}: {units.duration(elapsed_s)}")

    def say(self, text: str) -> None:
        """A remark."""
        self._output.say(text)

    def warn(self, text: str) -> None:
        """A warning."""
        self._output.warn(text)


class _Bar:
    def __init__(self, bar: RichProgress, task: TaskID, still: bool) -> None:
        self._bar, self._task, self._still = bar, task, still

    def advance(self, amount: int = 1) -> None:
        self._bar.advance(self._task, amount)
        if self._still:
            self._bar.refresh()

    def set_total(self, total: int) -> None:
        self._bar.update(self._task, total=total)


class _Quiet:
    def advance(self, amount: int = 1) -> None:
        pass

    def set_total(self, total: int) -> None:
        pass


def _columns(unit: Unit) -> list[ProgressColumn]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    label = TextColumn("{task.description}")
    if unit == "bytes":
        return [label, BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn()]
    if unit == "tensors":
        return [label, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return [SpinnerColumn(), label, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
