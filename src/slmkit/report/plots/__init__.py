"""Pictures of tables. matplotlib is imported when something is drawn."""

from __future__ import annotations

from pathlib import Path

from slmkit.core.bench import BenchRun
from slmkit.report.plots import scaling
from slmkit.report.plots.figure import FORMATS, check_plot
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
