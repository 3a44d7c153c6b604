"""A bench with what is searched for: before it the best number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec
from slmkit.core.progress import Progress
from slmkit.ops.bench.cell import Effort
from slmkit.ops.bench.run import bench
from slmkit.ops.bench.threads import Choice, choose
from slmkit.registry import runs
from slmkit.registry.journals import journal
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
    """`bench` with the number of threads that is best for the first model that runs; the run says what was found.

    What was found is in a journal of what was asked for, so that `resume` goes on with the same number.
    """
    named = [(artifact.digest, artifact.ref) for artifact in artifacts]
    key = ["best threads", named, [asdict(spec) for spec in specs]]
    with journal(registry.home, key, resume=resume) as kept:
        choice = next((Choice(**record) for record in kept.records), None)
        if choice is None:
            choice = choose(artifacts, specs, progress)
            kept.add(asdict(choice))
        chosen = [replace(spec, n_threads=choice.n_threads) for spec in specs]
        run = bench(
            artifacts, chosen, registry, progress, effort, resume=resume, min_ram=min_ram, unreadable=unreadable
        )
        kept.done = True
    return _amended(run, replace(run, warnings=(*run.warnings, choice.note)), registry)


def _amended(run: BenchRun, changed: BenchRun, registry: Registry) -> BenchRun:
    runs.amend(registry.home, run.document(), changed.document())
    return changed
