"""Pictures of tables. matplotlib is imported when something is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slmkit.core.bench import BenchRun
from slmkit.core.compare import Comparison
from slmkit.core.quality import QualityRun
from slmkit.report.plots import labels, scaling, size_kld, size_speed
from slmkit.report.plots.figure import FORMATS, check_plot, figure, save
from slmkit.report.plots.memory import memory_stack
from slmkit.report.plots.scaling import against_depth, against_threads
from slmkit.report.plots.sensitivity import sensitivity_bars
from slmkit.report.plots.size_speed import pareto
from slmkit.report.plots.sizes import sizes_of_types
from slmkit.report.settings import Entries

__all__ = [
    "FORMATS",
    "against_depth",
    "against_threads",
    "check_plot",
    "memory_stack",
    "of_comparison",
    "of_quality",
    "of_run",
    "pareto",
    "sensitivity_bars",
    "sizes_of_types",
]


def of_run(run: BenchRun, path: Path) -> None:
    """Draw what varies: threads, else depth, else files by size and speed; of a single row its memory.

    Raises as the picture that it is.
    """
    entries = Entries.of(run)
    if scaling.varies(entries, "n_threads"):
        against_threads(run, path)
    elif scaling.varies(entries, "depth"):
        against_depth(run, path)
    elif len(run.rows) > 1:
        pareto(run, path)
    else:
        memory_stack(run, path)


def of_quality(runs: Sequence[QualityRun], path: Path) -> None:
    """Draw size against KLD; raises as it does."""
    check_plot(path)
    save(size_kld.draw(size_kld.of_runs(runs)), path)


def of_comparison(comparison: Comparison, path: Path) -> None:
    """Draw what was measured: size against speed, size against KLD, or one under the other.

    Raises as these do.
    """
    check_plot(path)
    if not size_kld.is_known(comparison):
        pareto(comparison, path)
    elif not size_speed.is_known(comparison):
        save(size_kld.draw(comparison), path)
    else:
        drawn, (above, below) = figure(8, 10.4, n_panels=2)
        for axes, filled in (
            (above, size_speed.fill(above, comparison)),
            (below, size_kld.fill(below, comparison)),
        ):
            labels.place(axes, *filled)
        save(drawn, path)
