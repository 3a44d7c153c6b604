"""Size against speed as a picture. The door of matplotlib."""

from __future__ import annotations

from pathlib import Path

from slmkit.core import stats
from slmkit.core.compare import Comparison
from slmkit.errors import DependencyMissingError, UsageError
from slmkit.report.table import writing

FORMATS = (".svg", ".png")


def size_against_speed(comparison: Comparison, path: Path) -> None:
    """One point for each measured row, the lines of a model joined by colour; the upper left is where one wants to be.

    Raises `UsageError` for another suffix or when nothing was measured, `DependencyMissingError` without matplotlib.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"cannot draw {path.name}", hint=f"name a file that ends in {' or '.join(FORMATS)}")
    rows = [row for row in comparison.rows if row.bench is not None]
    spec = comparison.spec
    if not rows or spec is None:
        commands = "; ".join(f"`{c}`" for c in comparison.missing)
        raise UsageError("nothing to draw: no row has been measured", hint=commands or None)
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyMissingError("drawing needs matplotlib", hint="`pip install 'slmkit[plot]'`") from error

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
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
    # No date and no random ids in the file: the same numbers give the same bytes.
    with rc_context({"svg.hashsalt": "slmkit"}), writing(path):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
