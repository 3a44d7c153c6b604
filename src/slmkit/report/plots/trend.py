"""What was measured over time, as a picture: one line for each model, setting and machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slmkit.core import stats
from slmkit.core.bench import BenchRow, BenchRun
from slmkit.core.history import Listed, conditions, label_of, machine_of
from slmkit.errors import UsageError
from slmkit.formats.runs import moment
from slmkit.report.plots.figure import COLOURS, check_plot, figure, save

MOST_LINES = len(COLOURS)
_TITLES = {"pp": "prompt", "tg": "generation", "pg": "prompt and generation"}
Point = tuple[BenchRun, BenchRow]


def trend(listed: Sequence[Listed], path: Path) -> None:
    """Rate against date with its 95 % confidence interval, a panel for each test. A change of the engine is marked.

    Raises `UsageError` for another suffix, nothing to draw or too many lines, `DependencyMissingError`.
    """
    check_plot(path)
    lines: dict[tuple[Any, ...], list[Point]] = {}
    for found in sorted(listed, key=lambda found: moment(found.stored.run)):
        for row in found.rows:
            if row.failure is None:
                lines.setdefault(conditions(found.stored.run, row), []).append((found.stored.run, row))
    tests = [test for test in _TITLES if any(row.samples(test) for points in lines.values() for _, row in points)]
    if not tests:
        raise UsageError("nothing to draw: no run has measured that", hint="`slmkit runs list` shows what there is")
    if len(lines) > MOST_LINES:
        raise UsageError(
            f"{len(lines)} models, settings and machines: at most {MOST_LINES} can be told apart",
            hint="look for fewer: `--model`, `--quant`, `--host`",
        )
    drawn, panels = figure(8, 1 + 3 * len(tests), n_panels=len(tests))
    from matplotlib import dates

    names = _names(list(lines.values()))
    for test, axes in zip(tests, panels, strict=True):
        for name, points in zip(names, lines.values(), strict=True):
            _draw(axes, test, name, points)
        axes.set_ylabel(f"{_TITLES[test]}, tok/s")
        axes.set_ylim(bottom=0)
        formatter: Any = dates.ConciseDateFormatter
        axes.xaxis.set_major_formatter(formatter(axes.xaxis.get_major_locator()))
    panels[0].set_title("speed over time (mean, 95 % confidence interval; ring: another engine)", fontsize=11)
    panels[-1].legend(frameon=False, fontsize=8)
    save(drawn, path)


def _draw(axes: Any, test: str, name: str, points: Sequence[Point]) -> None:
    measured = [(run, row.rates(test)) for run, row in points if row.samples(test)]
    if not measured:
        return
    means = [stats.mean(rates) or 0.0 for _, rates in measured]
    intervals = [stats.interval(rates) or (mean, mean) for (_, rates), mean in zip(measured, means, strict=True)]
    errors = [[max(0.0, mean - low), max(0.0, high - mean)] for mean, (low, high) in zip(means, intervals, strict=True)]
    times = [moment(run) for run, _ in measured]
    drawn = axes.errorbar(
        times, means, yerr=list(zip(*errors, strict=True)), fmt="o-", capsize=3, markersize=4, label=name
    )
    other = [i for i in range(1, len(measured)) if measured[i][0].build != measured[i - 1][0].build]
    axes.plot(
        [times[i] for i in other],
        [means[i] for i in other],
        "o",
        markersize=11,
        fillstyle="none",
        color=drawn[0].get_color(),
    )


def _names(lines: Sequence[Sequence[Point]]) -> list[str]:
    """What tells the lines apart: the model, and of settings and machine what is not the same in all."""
    every = [{**row.spec.conditions(), **machine_of(run), "source": run.source} for (run, row), *_ in lines]
    varying = [key for key in every[0] if len({str(values[key]) for values in every}) > 1]
    return [
        ", ".join([label_of(points[0][1].ref), *(f"{key} {values[key]}" for key in varying)])
        for points, values in zip(lines, every, strict=True)
    ]
