"""Reports as files: the suffix decides between a page, a picture and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from slmkit.core.bench import BenchRun
from slmkit.core.compare import Comparison
from slmkit.core.quality import QualityRun
from slmkit.core.sensitivity import Sensitivity
from slmkit.core.versus import Versus
from slmkit.errors import UsageError
from slmkit.formats.runs import Run
from slmkit.report import plots
from slmkit.report.bench import bench_table
from slmkit.report.quality import quality_markdown, quality_table
from slmkit.report.sensitivity import sensitivity_table
from slmkit.report.table import FORMS, Table, render, writing
from slmkit.report.tables import compare_table

PAGE, MARKDOWN = ".html", ".md"
One = TypeVar("One", BenchRun, Sensitivity)


def write_bench(run: BenchRun, path: Path, against: Sequence[Versus] = ()) -> None:
    """Write a run as .html, .svg, .png, .md, .csv, .json or .jsonl, with what its models are beside another where the
    form has notes; raises `UsageError` and `CannotWriteError`.
    """
    from slmkit.report.html import bench_page

    if path.suffix.lower() == PAGE:
        _write(bench_page(run, against=against), path)
    else:
        _write_benches([run], path, against)


def write_runs(runs: Sequence[Run], path: Path) -> None:
    """The same for runs of one kind. Of several there is no picture but that of `quality`; only .html and .md have room
    for more than the first table of `quality`.
    """
    from slmkit.report.html import runs_page

    if path.suffix.lower() == PAGE:
        _write(runs_page(runs), path)
    elif benches := [run for run in runs if isinstance(run, BenchRun)]:
        _write_benches(benches, path)
    elif qualities := [run for run in runs if isinstance(run, QualityRun)]:
        _write_qualities(qualities, path)
    else:
        _write_sensitivity(_only([run for run in runs if isinstance(run, Sensitivity)], path), path)


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


def takes_several(path: Path) -> bool:
    """Whether there is room for more than one table."""
    return path.suffix.lower() in (PAGE, MARKDOWN)


def check_report(path: Path) -> None:
    """Raise `UsageError` for a suffix that none can write, or no such folder: before the work, not after it."""
    known = (*(f".{form}" for form in FORMS), *plots.FORMATS)
    if path.suffix.lower() not in known:
        raise UsageError(f"cannot write {path.name}", hint=f"name a file that ends in {', '.join(known)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"no such folder: {path.parent}", hint=f"make it: `mkdir -p {path.parent}`")


def write_table(table: Table, path: Path) -> None:
    """Write a table in the form of the suffix; raises `UsageError` and `CannotWriteError`."""
    _write(render(table, path.suffix.lower().lstrip(".")), path)


def _write_benches(runs: Sequence[BenchRun], path: Path, against: Sequence[Versus] = ()) -> None:
    if path.suffix.lower() in plots.FORMATS:
        plots.of_run(_only(runs, path), path)
    else:
        write_table(bench_table(*runs, against=against), path)


def _write_qualities(runs: Sequence[QualityRun], path: Path) -> None:
    if path.suffix.lower() in plots.FORMATS:
        plots.of_quality(runs, path)
    elif path.suffix.lower() == MARKDOWN:
        _write(quality_markdown(runs), path)
    else:
        write_table(quality_table(runs), path)


def _write_sensitivity(found: Sensitivity, path: Path) -> None:
    if path.suffix.lower() in plots.FORMATS:
        plots.sensitivity_bars(found, path)
    else:
        write_table(sensitivity_table(found), path)


def _only(runs: Sequence[One], path: Path) -> One:
    if len(runs) > 1:
        raise UsageError(
            f"{path.name} has room for one run, not for {len(runs)}", hint=f"name a file {PAGE}, or one run"
        )
    return runs[0]


def _write(text: str, path: Path) -> None:
    with writing(path):
        path.write_text(text, encoding="utf-8")
