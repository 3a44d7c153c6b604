"""The page of kept runs, whatever kind they are of."""

from __future__ import annotations

from collections.abc import Sequence

from slmkit.core.bench import BenchRun
from slmkit.core.quality import QualityRun
from slmkit.core.sensitivity import Sensitivity
from slmkit.formats.runs import Run
from slmkit.report.html.bench import bench_page
from slmkit.report.html.quality import quality_page
from slmkit.report.html.sensitivity import sensitivity_page


def runs_page(runs: Sequence[Run]) -> str:
    """Runs of one kind, side by side."""
    if qualities := [run for run in runs if isinstance(run, QualityRun)]:
        return quality_page(*qualities)
    if sensitivities := [run for run in runs if isinstance(run, Sensitivity)]:
        return sensitivity_page(*sensitivities)
    return bench_page(*(run for run in runs if isinstance(run, BenchRun)))
