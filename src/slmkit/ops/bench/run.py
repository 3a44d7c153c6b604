"""All models and configurations in turn, round after round, until the numbers are good enough."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from slmkit._version import __version__
from slmkit.backends.llamacpp import child
from slmkit.core import units
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec, Failure, block_of
from slmkit.core.progress import Progress, Task
from slmkit.errors import CannotMeasureError, EngineError, EngineMissingError, UsageError
from slmkit.host import peaks, probe
from slmkit.ops.bench.block import measure
from slmkit.ops.bench.cell import Cell, Effort
from slmkit.ops.bench.least_memory import least_memory
from slmkit.ops.corpora import corpus
from slmkit.ops.describe import now
from slmkit.registry import runs
from slmkit.registry.journals import Journal, journal
from slmkit.registry.store import Registry


def bench(
    artifacts: Sequence[Artifact],
    specs: Sequence[BenchSpec],
    registry: Registry,
    progress: Progress,
    effort: Effort = Effort(),  # noqa: B008  it is frozen
    *,
    resume: bool | None = False,
    min_ram: bool = False,
    unreadable: Sequence[BenchRow] = (),
) -> BenchRun:
    """Measure each artifact under each spec, and save the run. One that fails becomes a row with its reason, beside
    those that were `unreadable` to begin with.

    The rows take turns, so that a machine whose speed drifts is unfair to none. What is finished when it is interrupted
    is kept: `resume` goes on with it, `None` does so if there is any. A row that something disturbed is measured once
    more in the end. With `min_ram` the least memory in which each runs at speed is searched for.

    Raises only what concerns all of them: `EngineMissingError`, or `UsageError` for nothing to measure or to resume.
    """
    if not artifacts:
        raise UsageError("nothing to bench", hint="make something first: `slmkit quantize smollm2-135m -t Q4_0`")
    child.require_engine()
    n_threads = probe.physical_cores()
    specs = [replace(spec, n_threads=spec.n_threads or n_threads) for spec in specs]
    cells = [Cell.of(artifact, spec, effort) for artifact in artifacts for spec in dict.fromkeys(specs)]
    _warn_of_length(cells, progress)
    key = [cell.name for cell in cells]
    with journal(registry.home, key, resume=resume) as kept:
        builds = _restore(cells, kept)
        text = corpus().text
        with progress.task("bench", sum(cell.n_steps for cell in cells), "steps") as task:
            try:
                builds += _rounds(cells, effort.in_step, text, kept, task)
            except KeyboardInterrupt:
                how = "the same command" if resume is None else "the same command with `--resume`"
                progress.say(f"what is measured is kept: {how} goes on")
                raise
        rows = tuple(cell.settled for cell in cells)
        if min_ram:
            rows = tuple(
                _with_least_memory(cell.artifact, row, progress) for cell, row in zip(cells, rows, strict=True)
            )
        run = BenchRun(
            created=now(),
            host=probe.host().document(),
            build=next(iter(builds), {}),
            rows=(*rows, *unreadable),
            slmkit=__version__,
            machine=_machine(cells) or _machine_now(),
        )
        runs.save(registry.home, "bench", run.document())
        kept.done = True
    return run


def _rounds(cells: Sequence[Cell], in_step: bool, text: str, kept: Journal, task: Task) -> list[Mapping[str, str]]:
    builds: list[Mapping[str, str]] = []
    machine: Mapping[str, Any] = {}

    def look() -> None:
        """How fast the machine is by itself in this round: it drifts."""
        nonlocal machine
        task.describe(f"round {n_round}: the machine")
        machine = _machine_now()

    def turn(cell: Cell, n_round: int) -> None:
        builds.extend(_measure(cell, n_round, text, machine, kept, task))

    n_round = 1
    while todo := [cell for cell in cells if not cell.is_enough]:
        if in_step:
            todo = [cell for cell in cells if not cell.failure]
        look()
        for cell in todo if n_round % 2 else todo[::-1]:
            turn(cell, n_round)
        n_round += 1
    if again := [cell for cell in cells if cell.is_disturbed]:
        look()
        for cell in again:
            turn(cell, n_round)
    return builds


def _measure(
    cell: Cell, n_round: int, text: str, machine: Mapping[str, Any], kept: Journal, task: Task
) -> list[Mapping[str, str]]:
    """One child's worth of repetitions, on a machine that was as fast as that."""
    label = f"{cell.plain.ref} round {n_round}"

    def on_sample(test: str, elapsed_ns: int) -> None:
        task.advance()
        task.describe(f"{label}, {_reading(cell.plain, test, elapsed_ns)}")

    task.describe(label)
    started = time.monotonic()
    try:
        measured = measure(cell.artifact.path, cell.spec, text, cell.n_next, on_sample)
    except EngineMissingError:
        raise
    except EngineError as error:
        cell.failure = Failure.of(error)
        kept.add({**cell.name, "failure": asdict(cell.failure)})
        return []
    block = replace(measured.block, seen={**measured.block.seen, **({"machine": machine} if machine else {})})
    cell.blocks.append(block)
    cell.spent_s += time.monotonic() - started
    kept.add({**cell.name, "block": asdict(block), "spent_s": cell.spent_s, "build": dict(measured.build)})
    return [measured.build]


def _machine_now() -> Mapping[str, Any]:
    machine = peaks.measure(probe.physical_cores())
    return asdict(machine) if machine else {}


def _machine(cells: Sequence[Cell]) -> Mapping[str, Any]:
    """As it was in the first round."""
    return next((block.seen["machine"] for cell in cells for block in cell.blocks if "machine" in block.seen), {})


def _reading(row: BenchRow, test: str, elapsed_ns: int) -> str:
    if test == "ttft":
        return f"TTFT {elapsed_ns / 1e6:.0f} ms"
    return f"{getattr(row.spec, test)} {row.n_tokens(test) * 1e9 / elapsed_ns:.1f} tok/s"


def _with_least_memory(artifact: Artifact, row: BenchRow, progress: Progress) -> BenchRow:
    if row.failure:
        return row
    try:
        found = least_memory(artifact, row.spec, progress)
    except CannotMeasureError as error:
        progress.warn(f"{row.ref}: {error.message}")
        return row
    how = "weights that are mapped count" if found.with_files else "without mmap, which it does not count"
    note = f"{row.ref}: runs at speed with {units.size(found.size_bytes)} ({found.kind}; {how})"
    return replace(row, min_ram_bytes=found.size_bytes, warnings=(*row.warnings, note))


def _restore(cells: Sequence[Cell], kept: Journal) -> list[Mapping[str, str]]:
    """What an interrupted run has measured; its engines."""
    named = {_label(cell.name): cell for cell in cells}
    builds = []
    for record in kept.records:
        cell = named[_label(record)]
        if "failure" in record:
            continue  # it is tried again
        cell.blocks.append(block_of(record["block"]))
        cell.spent_s = record["spent_s"]
        builds.append(record["build"])
    return builds


def _label(name: Mapping[str, object]) -> str:
    return repr((name["digest"], name["ref"], name["spec"]))


def _warn_of_length(cells: Iterable[Cell], progress: Progress) -> None:
    for cell in cells:
        trained = cell.artifact.facts.get("context_length")
        if trained and cell.spec.n_ctx > trained:
            progress.warn(f"{cell.artifact.ref} was made for {trained:,} tokens: this is more")
