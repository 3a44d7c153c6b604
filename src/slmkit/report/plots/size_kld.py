"""Size against mean KLD: what each MiB buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from slmkit.core.compare import CompareRow, Comparison, Judged
from slmkit.core.divergence import THRESHOLDS
from slmkit.core.history import label_of
from slmkit.core.quality import QualityRow, QualityRun
from slmkit.errors import UsageError
from slmkit.report.plots import labels, verdicts
from slmkit.report.plots.figure import MARKERS, figure, plain_ticks
from slmkit.report.plots.labels import Point
from slmkit.report.plots.size_speed import Filled

_LEAST_SHARE = 1e-3
"""On a logarithmic axis an error bar must end above 0: at this share of the value."""


def draw(comparison: Comparison, width: float = 8) -> Any:
    """The figure: a point for each row whose mean KLD is known, with its 95 % interval. The base, at 0, is not drawn.

    Raises `UsageError` when there is none, `DependencyMissingError` without matplotlib.
    """
    if not is_known(comparison):
        raise UsageError("nothing to draw: of no row is the KLD known", hint="`slmkit quality MODEL` measures it")
    drawn, (axes,) = figure(width, 0.65 * width)
    labels.place(axes, *fill(axes, comparison))
    return drawn


def of_runs(runs: Sequence[QualityRun]) -> Comparison:
    """What runs of `quality` tell of size and KLD; none of their files is marked."""
    return Comparison(tuple(_compared(row, run) for run in runs for row in run.rows), None, ())


def is_known(comparison: Comparison) -> bool:
    """Whether there is something to draw."""
    return bool(_rows(comparison))


def fill(axes: Any, comparison: Comparison) -> Filled:
    """Draw points and axes; the texts are placed when all panels are filled."""
    rows = _rows(comparison)
    marked = any(row.is_best for row in rows)
    models = list(dict.fromkeys(row.model for row in rows))
    texts: list[tuple[float, float, str]] = []
    lines: list[list[Point]] = []
    for row in rows:
        (x, y), half = _at(row), 1.96 * _error(row)
        word = verdicts.word_of(row.quality)
        hollow = {} if row.is_best or not marked else {"markerfacecolor": "none"}
        look = {"color": verdicts.colour_of(word), "marker": MARKERS[models.index(row.model) % len(MARKERS)]}
        axes.errorbar(x, y, yerr=[[min(half, y * (1 - _LEAST_SHARE))], [half]], capsize=3, **look, **hollow)
        texts.append((x, y, row.variant or row.ref))
        lines.append([(x, max(y - half, y * _LEAST_SHARE)), (x, y + half)])
    low, high = min(y for _, y, _ in texts) / 2, 2 * max(y for _, y, _ in texts)
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    axes.set_ylim(low, high)
    axes.set_xlim(0, 1.15 * max(x for x, _, _ in texts))
    for _, limit in THRESHOLDS:
        if low < limit < high:
            axes.axhline(limit, color=verdicts.UNKNOWN, linewidth=0.8, linestyle=":")
    axes.set_xlabel("size, MiB")
    axes.set_ylabel("mean KLD, nats")
    axes.set_title(f"size against KLD{' (filled: ★ in the table)' if marked else ''}", fontsize=11)
    handles = [*_markers(models), *verdicts.legend({verdicts.word_of(row.quality) for row in rows})]
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}  # inside, it covers points
    axes.legend(handles=handles, frameon=False, fontsize=9, **below)
    return texts, lines


def _compared(row: QualityRow, run: QualityRun) -> CompareRow:
    model, _, variant = row.ref.rpartition(":")
    judged = Judged.of(row, run.base_row)
    return CompareRow(row.ref, model, variant or label_of(row.ref), row.size_bytes, None, row.bpw, None, quality=judged)


def _markers(models: Sequence[str]) -> list[Any]:
    """A handle for each model, where there are several."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=verdicts.UNKNOWN, marker=MARKERS[i % len(MARKERS)], linestyle="none", label=model)
        for i, model in enumerate(models if len(models) > 1 else ())
    ]


def _rows(comparison: Comparison) -> list[CompareRow]:
    return [row for row in comparison.rows if row.quality and 0 < (row.quality.kld or 0) < math.inf]


def _at(row: CompareRow) -> Point:
    assert row.quality is not None
    return row.size_bytes / 2**20, row.quality.kld or 0.0


def _error(row: CompareRow) -> float:
    found = row.quality.scores if row.quality else None
    return (found.kld.error if found and found.kld else None) or 0.0
