"""Speed against one setting: threads, depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slmkit.core import stats
from slmkit.core.bench import BenchRow, BenchRun
from slmkit.errors import UsageError
from slmkit.report.plots.figure import COLOURS, MARKERS, check_plot, figure, save
from slmkit.report.settings import Entries

_TITLES = {"n_threads": "threads", "depth": "tokens in the context before"}


def against_threads(run: BenchRun, path: Path) -> None:
    """tok/s of prompt and generation for each number of threads, a line for each model and type.

    Ringed are the fewest threads that are as fast as any, within the confidence interval.

    Raises `UsageError` for another suffix or when nothing was measured, `DependencyMissingError` without matplotlib.
    """
    check_plot(path)
    save(draw(Entries.of(run), "n_threads"), path)


def against_depth(run: BenchRun, path: Path) -> None:
    """The same for each depth."""
    check_plot(path)
    save(draw(Entries.of(run), "depth"), path)


def lines(entries: Entries, key: str) -> dict[str, list[BenchRow]]:
    """The rows that differ only in this setting, by what they have in common; `key` is that of the setting."""
    found: dict[str, list[BenchRow]] = {}
    for entry in entries.entries:
        if entry.row.failure is None and getattr(entry.row.spec, key) is not None:
            found.setdefault(entries.label(entry, without=key), []).append(entry.row)
    return found


def varies(entries: Entries, key: str) -> bool:
    """Whether there is a line to draw, of more than one point."""
    return any(len({getattr(row.spec, key) for row in rows}) > 1 for rows in lines(entries, key).values())


def draw(entries: Entries, key: str, width: float = 8) -> Any:
    """The figure: a panel for each test."""
    drawn_lines = lines(entries, key)
    rows = [row for each in drawn_lines.values() for row in each]
    tests = [test for test in ("pp", "tg", "pg") if any(row.rates(test) for row in rows)]
    if not tests:
        raise UsageError("nothing to draw: no row has been measured")
    drawn, panels = figure(width, 0.25 * width + 0.38 * width * len(tests), n_panels=len(tests))
    for axes, test in zip(panels, tests, strict=True):
        for i, (name, line) in enumerate(drawn_lines.items()):
            of_test = sorted((row for row in line if row.rates(test)), key=lambda row: getattr(row.spec, key))
            _line(axes, of_test, key, test, name, i)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"{_title(test, rows)}, tok/s")
        values = sorted({getattr(row.spec, key) for row in rows})
        axes.set_xticks(values, [f"{value:,}" for value in values])
    panels[-1].set_xlabel(_TITLES[key])
    drawn.suptitle(f"{entries.model + ': ' if entries.model else ''}tok/s against {_TITLES[key]}", fontsize=11)
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return drawn


def _line(axes: Any, rows: list[BenchRow], key: str, test: str, name: str, i: int) -> None:
    if not rows:
        return
    x = [getattr(row.spec, key) for row in rows]
    speeds = [stats.mean(row.rates(test)) or 0.0 for row in rows]
    spreads = [stats.stdev(row.rates(test)) or 0.0 for row in rows]
    colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
    axes.errorbar(x, speeds, spreads, color=colour, marker=marker, markersize=5, capsize=3, linewidth=1.5, label=name)
    if key == "n_threads" and len(rows) > 1:
        at = _enough([row.rates(test) for row in rows])
        axes.plot(x[at], speeds[at], "o", markersize=12, markerfacecolor="none", markeredgecolor=colour)


def _enough(rates: list[list[float]]) -> int:
    """The first that is as fast as the fastest, as far as that one's samples tell."""
    means = [stats.mean(each) or 0.0 for each in rates]
    fastest = max(range(len(rates)), key=means.__getitem__)
    low, _ = stats.interval(rates[fastest]) or (means[fastest], None)
    return next(i for i, mean in enumerate(means) if mean >= low)


def _title(test: str, rows: list[BenchRow]) -> str:
    """`tg128` where all of them generate as many."""
    names = {getattr(row.spec, test).partition(" @")[0] for row in rows if row.rates(test)}
    return names.pop() if len(names) == 1 else test
