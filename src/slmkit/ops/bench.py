"""`bench`: speed, time to first token and memory, each model in a child process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from slmkit._version import __version__
from slmkit.backends.llamacpp import child, engine
from slmkit.core import stats
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec, Block, Failure, Memory
from slmkit.core.progress import Progress
from slmkit.errors import EngineError, EngineMissingError, UsageError
from slmkit.host import memory, probe
from slmkit.ops.describe import now
from slmkit.registry import runs
from slmkit.registry.store import Registry

UNSTABLE_SHARE = 0.05
"""A standard deviation above this share of the mean is worth a warning."""


def bench(
    artifacts: Sequence[Artifact],
    spec: BenchSpec,
    registry: Registry,
    progress: Progress,
) -> BenchRun:
    """Measure each artifact and save the run. One that fails becomes a row with its reason; the others still run.

    When it is interrupted, the rows that are finished are saved.

    Raises only what concerns all of them: `EngineMissingError`, or `UsageError` for nothing to measure.
    """
    if not artifacts:
        raise UsageError("nothing to bench", hint="make something first: `slmkit quantize smollm2-135m -t Q4_0`")
    child.require_engine()
    spec = replace(spec, n_threads=spec.n_threads or probe.physical_cores())
    busy = probe.busy_share()
    warnings = []
    if busy > probe.BUSY_SHARE:
        warnings.append(f"the machine was busy before the start ({busy:.0%} of all cores): the rates may be too low")
        progress.warn(warnings[-1])
    rows: list[BenchRow] = []
    build: Mapping[str, str] = {}
    try:
        for artifact in artifacts:
            context = artifact.facts.get("context_length")
            if context and spec.depth + spec.n_prompt + spec.n_gen > context:
                progress.warn(f"{artifact.ref} was made for {context:,} tokens: this is more")
            row, seen = _measure(artifact, spec, progress)
            build = build or seen
            rows.append(row)
    finally:
        run = BenchRun(now(), probe.host().document(), dict(build), tuple(rows), __version__, tuple(warnings))
        if rows:
            runs.save(registry.home, "bench", run.document())
    return run


def _measure(artifact: Artifact, spec: BenchSpec, progress: Progress) -> tuple[BenchRow, Mapping[str, str]]:
    row = BenchRow(artifact.ref, artifact.digest, artifact.size_bytes, spec)
    tests = (2 if spec.n_prompt else 0) + (1 if spec.n_gen else 0)
    try:
        with progress.task(f"bench {artifact.ref}", tests * spec.repetitions, "steps") as task:
            result = engine.speed(artifact.path, spec, memory.of_process, lambda _: task.advance())
    except EngineMissingError:
        raise
    except EngineError as error:
        return replace(row, failure=Failure(error.code, error.message, error.hint, error.log)), {}
    block = Block(
        load_ns=result.load_ns,
        pp_ns=result.pp_ns,
        tg_ns=result.tg_ns,
        ttft_ns=result.ttft_ns,
        memory=_memory(result.memory),
    )
    row = replace(row, blocks=(block,))
    return replace(row, warnings=tuple(_unstable(row))), result.build


def _memory(stages: Mapping[str, Mapping[str, int | None]]) -> Memory:
    """The peak over all stages; the split at the stage that held most."""
    loaded = [stage for name, stage in stages.items() if name != "start"]
    most = max(loaded, key=lambda stage: stage["rss"] or 0)
    peaks = [stage["peak_rss"] for stage in loaded if stage["peak_rss"] is not None]
    return Memory(stages["start"]["rss"], max(peaks, default=None), most["file_backed"], most["anonymous"])


def _unstable(row: BenchRow) -> list[str]:
    named = ((row.spec.pp, row.pp_rates), (row.spec.tg, row.tg_rates))
    spreads = ((name, stats.relative_spread(rates)) for name, rates in named)
    return [
        f"{row.ref}: {name} varies by {spread:.0%}; close other programs or raise -r"
        for name, spread in spreads
        if spread is not None and spread > UNSTABLE_SHARE
    ]
