"""The one sink for results: people, `--json` or `--quiet`. Results go to stdout, everything else to stderr.

Rich draws tables and colours; it is loaded when there is something to draw.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from slmkit.errors import EngineError, SlmkitError
from slmkit.report.table import Table, check_form, json_text, render

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

_WIDE = 400
"""Columns of a table that goes to a file or a pipe: wide enough for any, so that nothing is cut."""


_FORCED = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""Variables by which Rich treats a pipe as a terminal."""


def _console(**options: Any) -> Console:
    from rich.console import Console

    class Leaving(Console):
        """Says that the reader of a pipe has left instead of leaving itself: `app.py` decides what that means."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "the reader of the pipe has left")

    return Leaving(highlight=False, **options)


def _plain(stream: TextIO) -> bool:
    """Whether text goes there as it is."""
    return not stream.isatty() and not any(os.environ.get(name) for name in _FORCED)


class Output:
    """How this call of the program speaks. `form` is the form of tables, `None` for people."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, form: str | None = None) -> None:
        self.as_json, self.quiet, self.form = as_json, quiet, "json" if as_json else form
        self._n_tables = 0

    @cached_property
    def _out(self) -> Console:
        return _console(width=None if sys.stdout.isatty() else _WIDE)

    @cached_property
    def errors(self) -> Console:
        """Where progress and remarks go."""
        return _console(stderr=True, soft_wrap=True)

    @property
    def draws(self) -> bool:
        """Whether stderr can show something that moves."""
        return not _plain(sys.stderr) and self.errors.is_terminal

    @property
    def takes_several(self) -> bool:
        """Whether tables may stand below each other; the other forms are of one."""
        return self.form in (None, "md")

    def table(self, table: Table) -> None:
        """Print a table in the form asked for."""
        if self.form:
            if self._n_tables and self.takes_several:
                sys.stdout.write("\n")
            self._n_tables += 1
            sys.stdout.write(render(table, self.form))
        elif not table.rows:
            return
        else:
            if self._n_tables:
                self._print(sys.stdout, ("", ""))
            self._n_tables += 1
            self._out.print(_rich_table(table))
            for note in table.notes:
                self._print(sys.stdout, (note, "dim"))

    def document(self, text: str) -> None:
        """Print a whole document, such as a page, as it is."""
        sys.stdout.write(text)

    def lines(self, text: str) -> None:
        """Print a paragraph of lines; in Markdown as they are."""
        self._print(sys.stdout, (f"\n```\n{text}\n```" if self.form else f"\n{text}", ""))

    def record(self, values: dict[str, Any] | list[dict[str, Any]], text: str) -> None:
        """Print a result: `values` for machines, `text` for people."""
        if self.as_json:
            sys.stdout.write(json_text(values) + "\n")
        else:
            self._print(sys.stdout, (text, ""))

    def say(self, text: str) -> None:
        """A remark on stderr."""
        if not self.quiet and not self.as_json:
            self._print(sys.stderr, (text, "dim"))

    def hint(self, text: str) -> None:
        """What to type next."""
        if not self.quiet and not self.as_json:
            self._label("hint:", "cyan", text)

    def warn(self, text: str) -> None:
        """A remark that is to be heeded."""
        if not self.as_json:
            self._label("warning:", "yellow", text)

    def error(self, error: SlmkitError) -> None:
        """One line and a hint; with `--json` one object."""
        if self.as_json:
            values: dict[str, Any] = {"error": error.code, "message": error.message, "hint": error.hint}
            if isinstance(error, EngineError) and error.log:
                values["log"] = list(error.log)
            sys.stderr.write(json.dumps(values, ensure_ascii=False) + "\n")
            return
        self._label("error:", "bold red", error.message)
        if error.hint:
            self._label("hint:", "cyan", error.hint)

    def _label(self, label: str, style: str, text: str) -> None:
        self._print(sys.stderr, (label, style), (f" {text}", ""))

    def _print(self, stream: TextIO, *parts: tuple[str, str]) -> None:
        """One line of texts with their styles, however long."""
        if _plain(stream):
            stream.write("".join(_harmless(text) for text, _ in parts) + "\n")
            return
        from rich.text import Text

        console = self._out if stream is sys.stdout else self.errors
        console.print(Text.assemble(*((_harmless(text), style) for text, style in parts)), soft_wrap=True)


def _harmless(text: str) -> str:
    """With names and values of other people's files escaped, lest they command the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _rich_table(table: Table) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table = table.for_people()
    for column in table.columns:
        rich.add_column(Text(column.title), justify="right" if column.right else "left", overflow="fold")
    for row in table.rows:
        rich.add_row(*(Text(cell.text) for cell in row))
    return rich


_current = Output()


def open_output(*, as_json: bool = False, quiet: bool = False, form: str | None = None) -> Output:
    """Decide how this call speaks; every command does so first, and errors then follow it.

    Raises `UsageError` for an unknown form of tables: before the work, not after it.
    """
    global _current
    _current = Output(as_json=as_json, quiet=quiet, form=form)
    if form is not None:
        check_form(form)
    return _current


def current() -> Output:
    """How this call speaks."""
    return _current
