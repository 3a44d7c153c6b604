"""The page around everything, and tables on it."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from slmkit.report.html.markup import Markup, join, raw, tag
from slmkit.report.table import Cell, Column, Table

STATES = ("ok", "noisy", "throttled", "failed")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Whatever a page says, a browser fetches nothing for it."""


def page(title: str, *body: Markup) -> str:
    """A whole document."""
    head = join(
        raw('<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'),
        raw(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'),
        tag("title", title),
        raw(f"\n<style>\n{_file('page.css')}</style>\n"),
    )
    inside = join(tag("h1", title), *(join(raw("\n"), part) for part in body))
    script = raw(f"\n<script>\n{_file('sort.js')}</script>\n")
    return f'<!doctype html>\n<html lang="en">\n{tag("head", head)}\n{tag("body", inside, script)}\n</html>\n'


def table_page(table: Table) -> str:
    """One table and its notes."""
    return page(table.title or "slmkit", sortable(table), *(tag("p", note) for note in table.notes))


def notes(table: Table) -> Markup:
    """What stands below a table, as a list."""
    return tag("ul", *(tag("li", note) for note in table.notes)) if table.notes else join()


def sortable(table: Table) -> Markup:
    """A table for people that sorts by the values behind its cells; wider than the page, it scrolls by itself."""
    table = table.for_people()
    heads = [tag("th", column.title, scope="col", class_=_side(column)) for column in table.columns]
    rows = [
        tag("tr", *(_cell(cell, column) for cell, column in zip(row, table.columns, strict=True))) for row in table.rows
    ]
    body = tag("tbody", *(join(row, raw("\n")) for row in rows))
    whole = tag("table", tag("thead", tag("tr", *heads)), raw("\n"), body, class_="sortable")
    return tag("div", whole, class_="scroll")


def _cell(cell: Cell, column: Column) -> Markup:
    kind = _side(column)
    if column.key == "state" and cell.value in STATES:
        kind = f"state {cell.value}"
    elif not column.right and len(cell.text) > 60:
        kind = "wrap"
    return tag("td", cell.text, class_=kind, data_v=_sorted_by(cell.value))


def _sorted_by(value: Any) -> str | None:
    return None if value is None or value == "" else str(int(value) if isinstance(value, bool) else value)


def _side(column: Column) -> str | None:
    return "r" if column.right else "state" if column.key == "state" else None


@cache
def _file(name: str) -> str:
    return resources.files("slmkit.report.html").joinpath(name).read_text(encoding="utf-8")
