"""Sizes, and size against speed, as pictures. The door of matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slmkit.core import stats, units
from slmkit.core.compare import Comparison
from slmkit.core.plan import ModelPlan
from slmkit.errors import DependencyMissingError, UsageError
from slmkit.report.table import writing

FORMATS = (".svg", ".png")


def size_against_speed(comparison: Comparison, path: Path) -> None:
    """One point for each measured row, the lines of a model joined by colour; the upper left is where one wants to be.

    Raises `UsageError` for another suffix or when nothing was measured, `DependencyMissingError` without matplotlib.
    """
    check_plot(path)
    rows = [row for row in comparison.rows if row.bench is not None]
    spec = comparison.spec
    if not rows or spec is None:
        commands = "; ".join(f"`{c}`" for c in comparison.missing)
        raise UsageError("nothing to draw: no row has been measured", hint=commands or None)
    figure, axes = _figure(height=5)
    rates = "tg" if spec.n_gen else "pp"
    for model in dict.fromkeys(row.model for row in rows):
        points = []
        for row in (r for r in rows if r.model == model):
            assert row.bench is not None
            values = row.bench.tg_rates if rates == "tg" else row.bench.pp_rates
            points.append((row.size_bytes / 2**20, stats.mean(values) or 0.0, stats.stdev(values) or 0.0, row.variant))
        axes.errorbar(
            [p[0] for p in points],
            [p[1] for p in points],
            yerr=[p[2] for p in points],
            fmt="o",
            capsize=3,
            label=model,
        )
        for size_mib, speed, _, variant in points:
            axes.annotate(variant, (size_mib, speed), textcoords="offset points", xytext=(7, 5), fontsize=9)
    axes.set_xlabel("size, MiB")
    axes.set_ylabel(f"{spec.tg if rates == 'tg' else spec.pp}, tok/s")
    axes.set_title("size against speed (mean ± standard deviation)", fontsize=11)
    axes.set_xlim(0, 1.15 * max(row.size_bytes for row in rows) / 2**20)  # room for the last label
    axes.set_ylim(bottom=0)
    axes.margins(0.1)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def sizes_of_types(plan: ModelPlan, path: Path) -> None:
    """A bar for each type that can be made, with its size, and the RAM where it is near enough to be seen.

    Raises `UsageError` for another suffix or nothing to draw, `DependencyMissingError` without matplotlib.
    """
    check_plot(path)
    rows = [(row.variant, row.size_bytes / 2**20, row.reduction) for row in plan.types if row.size_bytes is not None]
    if not rows:
        raise UsageError("nothing to draw: none of the types can be made")
    figure, axes = _figure(height=1.2 + 0.25 * len(rows))
    names, sizes, reductions = zip(*rows, strict=True)
    bars = axes.barh(names, sizes)
    texts = [
        f"{units.size(size * 2**20)}" + ("" if not reduction else f", {-reduction:+.1%}")
        for size, reduction in zip(sizes, reductions, strict=True)
    ]
    axes.bar_label(bars, texts, padding=4, fontsize=8)
    ram = plan.ram_bytes / 2**20
    if ram < 1.2 * max(sizes):
        axes.axvline(ram, color="C3", linewidth=1)
        axes.annotate("RAM", (ram, -0.5), color="C3", fontsize=9, xytext=(3, 0), textcoords="offset points")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(sizes))  # room for the longest label
    axes.set_xlabel("size, MiB")
    axes.set_title(f"{plan.ref}: planned size of each type, change from F16", fontsize=11)
    axes.margins(y=0.01)
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def check_plot(path: Path) -> None:
    """Raise `UsageError` for a file that cannot be drawn by its suffix: before the work, not after it."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"cannot draw {path.name}", hint=f"name a file that ends in {' or '.join(FORMATS)}")


def _figure(*, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyMissingError("drawing needs matplotlib", hint="`pip install 'slmkit[plot]'`") from error
    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Any, path: Path) -> None:
    """No date and no random ids in the file: the same numbers give the same bytes."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "slmkit"}), writing(path):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
