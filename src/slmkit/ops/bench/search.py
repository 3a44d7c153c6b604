"""A bench with what is searched for: before it the best number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec
from slmkit.core.progress import Progress
from slmkit.ops.bench.cell import Effort
from slmkit.ops.bench.run import bench
from slmkit.ops.bench.threads import choose
from slmkit.registry import runs
from slmkit.registry.store import Registry


def bench_with_best_threads(
    artifacts: Sequence[Artifact],
    specs: Sequence[BenchSpec],
    registry: Registry,
    progress: Progress,
    effort: Effort,
    *,
    resume: bool = False,
    min_ram: bool = False,
    unreadable: Sequence[BenchRow] = (),
) -> BenchRun:
    """`bench` with the number of threads that is best for the first model that runs; the run says what was found."""
    choice = choose(artifacts, specs, progress)
    chosen = [replace(spec, n_threads=choice.n_threads) for spec in specs]
    run = bench(artifacts, chosen, registry, progress, effort, resume=resume, min_ram=min_ram, unreadable=unreadable)
    return _amended(run, replace(run, warnings=(*run.warnings, choice.note)), registry)


def _amended(run: BenchRun, changed: BenchRun, registry: Registry) -> BenchRun:
    runs.amend(registry.home, run.document(), changed.document())
    return changed
