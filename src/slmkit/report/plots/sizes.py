"""The size of every type of a plan."""

from __future__ import annotations

from pathlib import Path

from slmkit.core import units
from slmkit.core.plan import ModelPlan
from slmkit.errors import UsageError
from slmkit.report.plots.figure import COLOURS, check_plot, figure, save


def sizes_of_types(plan: ModelPlan, path: Path) -> None:
    """A bar for each type that can be made, with its size, and the RAM where it is near enough to be seen.

    Raises `UsageError` for another suffix or nothing to draw, `DependencyMissingError` without matplotlib.
    """
    check_plot(path)
    rows = [(row.variant, row.size_bytes / 2**20, row.reduction) for row in plan.types if row.size_bytes is not None]
    if not rows:
        raise UsageError("nothing to draw: none of the types can be made")
    drawn, (axes,) = figure(8, 1.2 + 0.25 * len(rows))
    names, sizes, reductions = zip(*rows, strict=True)
    bars = axes.barh(names, sizes, color=COLOURS[0])
    texts = [
        f"{units.size(size * 2**20)}" + ("" if not reduction else f", {-reduction:+.1%}")
        for size, reduction in zip(sizes, reductions, strict=True)
    ]
    axes.bar_label(bars, texts, padding=4, fontsize=8)
    ram = plan.ram_bytes / 2**20
    if ram < 1.2 * max(sizes):
        axes.axvline(ram, color=COLOURS[3], linewidth=1)
        axes.annotate("RAM", (ram, -0.5), color=COLOURS[3], fontsize=9, xytext=(3, 0), textcoords="offset points")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(sizes))  # room for the longest label
    axes.set_xlabel("size, MiB")
    axes.set_title(f"{plan.ref}: planned size of each type, change from F16", fontsize=11)
    axes.margins(y=0.01)
    axes.grid(visible=False, axis="y")
    save(drawn, path)
