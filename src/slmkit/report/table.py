"""One table, many forms: Markdown, CSV, JSON lines, HTML. The terminal's form is in `cli/output.py`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slmkit.errors import CannotWriteError, DiskFullError, UsageError, is_disk_full


@dataclass(frozen=True)
class Cell:
    """What people read, and the value behind it for machines."""

    text: str
    value: Any


@dataclass(frozen=True)
class Column:
    """`title` is for people, `key` for machines (it ends in its unit). What is not `shown` is for machines alone."""

    key: str
    title: str
    right: bool = True
    shown: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; notes stand below."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()

    def records(self) -> list[dict[str, Any]]:
        """One object for each row, keys in the order of the columns."""
        keys = [c.key for c in self.columns]
        return [dict(zip(keys, (cell.value for cell in row), strict=True)) for row in self.rows]

    def for_people(self) -> Table:
        """Without the columns that are for machines."""
        shown = [i for i, column in enumerate(self.columns) if column.shown]
        rows = tuple(tuple(row[i] for i in shown) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in shown), rows=rows)


def check_form(form: str) -> None:
    """Raise `UsageError` for a form that `render` does not know."""
    if form not in FORMS:
        raise UsageError(f"no format {form!r}", hint=f"one of {', '.join(FORMS)}")


def render(table: Table, form: str) -> str:
    """The table as text that ends in a newline; raises `UsageError` for an unknown form."""
    check_form(form)
    return FORMS[form](table)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why a report cannot be written: raises `CannotWriteError` and `DiskFullError`."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"no space left on the disk of {path.absolute().parent}") from error
        raise CannotWriteError(f"cannot write {path}: {error.strerror}") from error


def markdown(table: Table) -> str:
    """A GitHub table, its source aligned."""
    table = table.for_people()
    titles = [c.title for c in table.columns]
    texts = [[_in_a_cell(cell.text) for cell in row] for row in table.rows]
    widths = [max(3, *(len(row[i]) for row in (titles, *texts))) for i in range(len(titles))]

    def line(cells: list[str]) -> str:
        padded = (
            c.rjust(w) if column.right else c.ljust(w)
            for c, w, column in zip(cells, widths, table.columns, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        f" {'-' * (w - 1)}: " if c.right else f" {'-' * w} " for w, c in zip(widths, table.columns, strict=True)
    )
    notes = "".join(f"\n{note}\n" for note in table.notes)
    return "\n".join([line(titles), f"|{rule}|", *(line(row) for row in texts)]) + "\n" + notes


def _in_a_cell(text: str) -> str:
    """One line, though an engine's reason may have several; pipes escaped, and backslashes that stand before one."""
    return re.sub(r"(\\*)\|", r"\1\1\\|", " ".join(text.split()))


def comma_separated(table: Table) -> str:
    """RFC 4180 with the machine's keys and values; unknown is empty."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([c.key for c in table.columns])
    writer.writerows([["" if cell.value is None else cell.value for cell in row] for row in table.rows])
    return out.getvalue()


def as_json(table: Table) -> str:
    """An array of objects."""
    return json_text(table.records()) + "\n"


def json_lines(table: Table) -> str:
    """One object a line."""
    return "".join(json_text(record, indent=None) + "\n" for record in table.records())


def json_text(values: Any, *, indent: int | None = 1) -> str:
    """As JSON, which has no word for what is not a number: null in its place, wherever it is."""
    return json.dumps(_finite(values), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def html_page(table: Table) -> str:
    """A page that needs nothing else."""
    from slmkit.report.html import table_page

    return table_page(table)


FORMS: dict[str, Callable[[Table], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "json": as_json,
    "jsonl": json_lines,
    "html": html_page,
}
