"""Reports as files: the suffix decides between a page, a picture and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slmkit.core.bench import BenchRun
from slmkit.core.compare import Comparison
from slmkit.core.versus import Versus
from slmkit.errors import UsageError
from slmkit.report import plots
from slmkit.report.bench import bench_table
from slmkit.report.table import FORMS, Table, render, writing
from slmkit.report.tables import compare_table

PAGE = ".html"


def write_bench(run: BenchRun, path: Path, against: Sequence[Versus] = ()) -> None:
    """Write a run as .html, .svg, .png, .md, .csv, .json or .jsonl, with what its models are beside another where the
    form has notes; raises `UsageError` and `CannotWriteError`.
    """
    from slmkit.report.html import bench_page

    if path.suffix.lower() == PAGE:
        _write(bench_page(run, against=against), path)
    elif path.suffix.lower() in plots.FORMATS:
        plots.of_run(run, path)
    else:
        write_table(bench_table(run, against=against), path)


def write_comparison(comparison: Comparison, path: Path, title: str = "") -> None:
    """The same for a comparison; without a title it has the name of its model."""
    from slmkit.report.html import compare_page

    table = compare_table(comparison)
    if path.suffix.lower() == PAGE:
        _write(compare_page(comparison, title), path)
    elif path.suffix.lower() in plots.FORMATS:
        plots.of_comparison(comparison, path)
    else:
        write_table(replace(table, title=title or table.title), path)


def check_report(path: Path) -> None:
    """Raise `UsageError` for a suffix that none of these can write: before the work, not after it."""
    known = (*(f".{form}" for form in FORMS), *plots.FORMATS)
    if path.suffix.lower() not in known:
        raise UsageError(f"cannot write {path.name}", hint=f"name a file that ends in {', '.join(known)}")


def write_table(table: Table, path: Path) -> None:
    """Write a table in the form of the suffix; raises `UsageError` and `CannotWriteError`."""
    _write(render(table, path.suffix.lower().lstrip(".")), path)


def _write(text: str, path: Path) -> None:
    with writing(path):
        path.write_text(text, encoding="utf-8")
