"""Progress on the terminal. Into a file or a pipe it is one line for each finished piece of work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from slmkit.cli.output import Output
from slmkit.core import units
from slmkit.core.progress import SILENT, Progress, Task, Unit

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

WORTH_A_LINE_S = 0.5


def reporter(output: Output) -> Progress:
    """The progress that fits how this call speaks."""
    return SILENT if output.quiet or output.as_json else TerminalProgress(output)


class TerminalProgress:
    """Implements `core.progress.Progress` with rich, on stderr. Tasks of several threads share one display."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._display: RichProgress | None = None
        self._n_running = 0

    @contextmanager
    def task(self, label: str, total: int | None, unit: Unit, *, done: int = 0) -> Iterator[Task]:
        """A bar with rate and ETA while the block runs."""
        started = time.monotonic()
        if not self._output.draws:
            yield _Quiet()
        else:
            # Benchmarks advance in steps: the bar is then drawn only when something has happened, because a bar that
            # moves by itself takes time from what is being measured.
            still = unit == "steps" and total is not None
            display = self._begin(still)
            task = display.add_task(label, total=total, completed=done, unit=unit)
            try:
                display.refresh()
                yield _Bar(display, task, still)
            finally:
                self._end(display, task)
        elapsed_s = time.monotonic() - started
        if elapsed_s >= WORTH_A_LINE_S:
            self._output.say(f"{label}: {units.duration(elapsed_s)}")

    def say(self, text: str) -> None:
        """A remark."""
        self._output.say(text)

    def warn(self, text: str) -> None:
        """A warning."""
        self._output.warn(text)

    def _begin(self, still: bool) -> RichProgress:
        """The display that is running, or a new one."""
        with self._lock:
            self._n_running += 1
            if self._display is None:
                self._display = _display(self._output, still)
                self._display.start()
            return self._display

    def _end(self, display: RichProgress, task: TaskID) -> None:
        with self._lock:
            self._n_running -= 1
            display.remove_task(task)
            if not self._n_running:
                display.stop()
                self._display = None


class _Bar:
    def __init__(self, display: RichProgress, task: TaskID, still: bool) -> None:
        self._display, self._task, self._still = display, task, still

    def advance(self, amount: int = 1) -> None:
        self._display.advance(self._task, amount)
        if self._still:
            self._display.refresh()

    def set_total(self, total: int) -> None:
        self._display.update(self._task, total=total)

    def describe(self, text: str) -> None:
        self._display.update(self._task, description=text, refresh=self._still)


class _Quiet:
    def advance(self, amount: int = 1) -> None:
        pass

    def set_total(self, total: int) -> None:
        pass

    def describe(self, text: str) -> None:
        pass


def _display(output: Output, still: bool) -> RichProgress:
    """Columns that show each task in its own unit."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Task as RichTask
    from rich.text import Text

    class ByUnit(ProgressColumn):
        """Another column for each unit; nothing for units that are not named."""

        max_refresh = None

        def __init__(self, **columns: ProgressColumn) -> None:
            super().__init__()
            self._columns = columns

        def render(self, task: RichTask) -> RenderableType:
            column = self._columns.get(task.fields["unit"])
            return column.render(task) if column else Text("")

    class Left(TimeRemainingColumn):
        """`0:02:10 left`; how long it has taken where nobody knows."""

        def render(self, task: RichTask) -> Text:
            return elapsed.render(task) if task.total is None else super().render(task).append(" left")

    counted, left, elapsed = MofNCompleteColumn(), TimeRemainingColumn(), TimeElapsedColumn()
    return Progress(
        ByUnit(steps=SpinnerColumn()),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        ByUnit(bytes=DownloadColumn(binary_units=True), tensors=counted, steps=counted),
        ByUnit(bytes=TransferSpeedColumn()),
        ByUnit(bytes=left, tensors=left, steps=Left()),
        console=output.errors,
        transient=True,
        auto_refresh=not still,
        refresh_per_second=5,
        speed_estimate_period=3600 if still else 30,  # a step may take minutes
    )
