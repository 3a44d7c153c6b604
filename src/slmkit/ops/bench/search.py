"""A bench with what is searched for: before it the best number of threads, after it the least memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec
from slmkit.core.progress import Progress
from slmkit.ops.bench.cell import Effort
from slmkit.ops.bench.least_memory import with_least_memory
from slmkit.ops.bench.run import bench
from slmkit.ops.bench.threads import Choice, choose
from slmkit.registry import runs
from slmkit.registry.journals import journal
from slmkit.registry.store import Registry


def bench_and_search(
    artifacts: Sequence[Artifact],
    specs: Sequence[BenchSpec],
    registry: Registry,
    progress: Progress,
    effort: Effort,
    *,
    best_threads: bool = False,
    min_ram: bool = False,
    resume: bool = False,
    unreadable: Sequence[BenchRow] = (),
) -> BenchRun:
    """`bench`, with `best_threads` under the number that is best for the first model that runs, and with `min_ram` the
    least memory in which each row runs at speed. The run says what was found, or why nothing was.

    The run is saved before memory is searched for, and again after each row.
    """
    if best_threads and artifacts:
        run = _with_best_threads(artifacts, specs, registry, progress, effort, resume=resume, unreadable=unreadable)
    else:
        run = bench(artifacts, specs, registry, progress, effort, resume=resume, unreadable=unreadable)
    if min_ram:
        known = {artifact.digest: artifact for artifact in artifacts}
        for n, row in enumerate(run.rows):
            if not row.failure:
                found = with_least_memory(known[row.digest], row, progress)
                run = _amended(run, replace(run, rows=(*run.rows[:n], found, *run.rows[n + 1 :])), registry)
    return run


def _with_best_threads(
    artifacts: Sequence[Artifact],
    specs: Sequence[BenchSpec],
    registry: Registry,
    progress: Progress,
    effort: Effort,
    *,
    resume: bool,
    unreadable: Sequence[BenchRow],
) -> BenchRun:
    """What was found is in a journal of what was asked for, so that `resume` goes on with the same number."""
    named = [(artifact.digest, artifact.ref) for artifact in artifacts]
    key = ["best threads", named, [asdict(spec) for spec in specs]]
    with journal(registry.home, key, resume=resume) as kept:
        choice = next((Choice(**record) for record in kept.records), None)
        if choice is None:
            choice = choose(artifacts, specs, progress)
            kept.add(asdict(choice))
        chosen = [replace(spec, n_threads=choice.n_threads) for spec in specs]
        run = bench(artifacts, chosen, registry, progress, effort, resume=resume, unreadable=unreadable)
        kept.done = True
    return _amended(run, replace(run, warnings=(*run.warnings, choice.note)), registry)


def _amended(run: BenchRun, changed: BenchRun, registry: Registry) -> BenchRun:
    """The same run, changed here and on the disk."""
    runs.amend(registry.home, run.document(), changed.document())
    return changed
