"""Size against speed, and which files nothing beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit.core import stats
from slmkit.core.bench import BenchRow, BenchRun
from slmkit.core.compare import Comparison, Judged
from slmkit.errors import UsageError
from slmkit.report.plots import labels
from slmkit.report.plots.figure import COLOURS, MARKERS, check_plot, figure, plain_ticks, save
from slmkit.report.plots.verdicts import UNKNOWN, colour_of, legend, word_of
from slmkit.report.settings import Entries

_WIDE_RANGE = 20
"""Sizes further apart than this are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Point:
    """A file that was measured; fronts are drawn within a `group`, since another model is another quality."""

    group: str
    name: str
    row: BenchRow
    quality: Judged | None = None


Filled = tuple[list[tuple[float, float, str]], list[list[tuple[float, float]]]]
"""The texts that belong beside the points, and the lines that they should not cross."""


def pareto(source: BenchRun | Comparison, path: Path) -> None:
    """One point for each measured row; those that no other of the model beats in size and speed are filled and joined.

    Where their quality is known, the colour tells the verdict.

    Raises `UsageError` for another suffix or when nothing was measured, `DependencyMissingError` without matplotlib.
    """
    check_plot(path)
    save(draw(source if isinstance(source, Comparison) else Entries.of(source)), path)


def draw(source: Entries | Comparison, width: float = 8) -> Any:
    """The figure."""
    if not is_known(source):
        missing = source.missing if isinstance(source, Comparison) else ()
        raise UsageError("nothing to draw: no row has been measured", hint="; ".join(f"`{c}`" for c in missing) or None)
    drawn, (axes,) = figure(width, 0.65 * width)
    labels.place(axes, *fill(axes, source))
    return drawn


def is_known(source: Entries | Comparison) -> bool:
    """Whether there is something to draw."""
    return bool(_points(source))


def fill(axes: Any, source: Entries | Comparison) -> Filled:
    """Draw points, fronts and axes; the texts are placed when all panels are filled."""
    points = _points(source)
    test = "tg" if any(point.row.tg_ns for point in points) else "pp"
    points = [point for point in points if point.row.rates(test)]
    judged = any(point.quality for point in points)
    groups = list(dict.fromkeys(point.group for point in points))
    lines = []
    for i, group in enumerate(groups):
        members = [point for point in points if point.group == group]
        best = front([(_size(point), _speed(point, test)) for point in members])
        marker, colour = MARKERS[i % len(MARKERS)], UNKNOWN if judged else COLOURS[i % len(COLOURS)]
        for j, point in enumerate(members):
            own = colour_of(word_of(point.quality)) if judged else colour
            hollow = {} if j in best else {"markerfacecolor": "none"}
            spread = stats.stdev(point.row.rates(test)) or 0.0
            named = {"label": group} if j == best[0] and (not judged or len(groups) > 1) else {}
            lines.append([(_size(point), _speed(point, test) + side * spread) for side in (-1, 1)])
            look = {"color": own, "marker": marker, "linestyle": "none", **hollow, **named}
            axes.errorbar(_size(point), _speed(point, test), yerr=spread, capsize=3, **look)
        lines.append([(_size(members[j]), _speed(members[j], test)) for j in best])
        axes.plot(*zip(*lines[-1], strict=True), color=colour, linewidth=1, alpha=0.6)
    _axes(axes, points, test, lines)
    handles = axes.get_legend_handles_labels()[0]
    handles += legend({word_of(point.quality) for point in points}) if judged else []
    axes.legend(handles=handles, frameon=False, fontsize=9)
    return [(_size(point), _speed(point, test), point.name) for point in points], lines


def _axes(axes: Any, points: Sequence[Point], test: str, lines: Sequence[Sequence[tuple[float, float]]]) -> None:
    sizes = [_size(point) for point in points]
    axes.set_xlabel("size, MiB")
    if max(sizes) > _WIDE_RANGE * min(sizes):
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
        axes.set_xlim(min(sizes) / 1.3, max(sizes) * 1.6)
    else:
        axes.set_xlim(0, 1.15 * max(sizes))
    axes.set_ylim(0, 1.12 * max(y for line in lines for _, y in line))
    axes.set_ylabel(f"{getattr(points[0].row.spec, test)}, tok/s")
    axes.set_title("size against speed (filled: none is both smaller and faster)", fontsize=11)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the points that no other one beats, by growing size: smaller or as small, faster or as fast."""
    best: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not best or points[i][1] > points[best[-1]][1]:
            best.append(i)
    return best


def _points(source: Entries | Comparison) -> list[Point]:
    if isinstance(source, Comparison):
        rows = [row for row in source.rows if row.bench is not None and row.bench.failure is None]
        return [Point(row.model, row.variant or row.ref, row.bench, row.quality) for row in rows if row.bench]
    measured = [entry for entry in source.entries if entry.row.tg_ns or entry.row.pp_ns]
    return [Point(entry.model, source.label(entry, name=entry.variant), entry.row) for entry in measured]


def _size(point: Point) -> float:
    return point.row.size_bytes / 2**20


def _speed(point: Point, test: str) -> float:
    return stats.mean(point.row.rates(test)) or 0.0
