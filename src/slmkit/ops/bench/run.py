"""All models and configurations in turn, round after round, until the numbers are good enough."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from slmkit._version import __version__
from slmkit.backends.llamacpp import child
from slmkit.core import stats, units
from slmkit.core.artifact import Artifact
from slmkit.core.bench import OK, BenchRow, BenchRun, BenchSpec, Block, Failure, block_of
from slmkit.core.progress import Progress, Task
from slmkit.errors import CannotMeasureError, EngineError, EngineMissingError, GgufError, UsageError
from slmkit.formats.gguf.hollow import read_hollow
from slmkit.host import peaks, probe
from slmkit.ops.bench.block import Measured, measure
from slmkit.ops.bench.least_memory import least_memory
from slmkit.ops.corpora import corpus
from slmkit.ops.describe import now
from slmkit.registry import runs
from slmkit.registry.journals import Journal, journal
from slmkit.registry.store import Registry

PER_CHILD = 3
"""Repetitions that one child measures: then the next model or configuration has its turn."""
LEAST_CHILDREN = 2
"""Of each row: what differs from one process to the next (where its memory lies) would be missed in one."""
PAIRS = 5
"""Children of each row at least when two are held against each other: the pairs are what an interval comes from."""


@dataclass(frozen=True)
class Effort:
    """When to stop: the 95 % confidence interval of every rate is within ± `precision` of it, after
    `BenchSpec.repetitions`, or when a row has taken `max_time_s`. Each row has at least `least_children`. With
    `in_step` none stops before all may: they are to be compared, child by child.
    """

    precision: float = 0.02
    max_time_s: float = 300.0
    least_children: int = LEAST_CHILDREN
    in_step: bool = False


def bench(
    artifacts: Sequence[Artifact],
    specs: Sequence[BenchSpec],
    registry: Registry,
    progress: Progress,
    effort: Effort = Effort(),
    *,
    resume: bool = False,
    min_ram: bool = False,
    unreadable: Sequence[BenchRow] = (),
) -> BenchRun:
    """Measure each artifact under each spec, and save the run. One that fails becomes a row with its reason, beside
    those that were `unreadable` to begin with.

    The rows take turns, so that a machine whose speed drifts is unfair to none. What is finished when it is interrupted
    is kept: `resume` goes on with it. A row that something disturbed is measured once more in the end. With `min_ram`
    the least memory in which each runs at speed is searched for.

    Raises only what concerns all of them: `EngineMissingError`, or `UsageError` for nothing to measure or to resume.
    """
    if not artifacts:
        raise UsageError("nothing to bench", hint="make something first: `slmkit quantize smollm2-135m -t Q4_0`")
    child.require_engine()
    n_threads = probe.physical_cores()
    specs = [replace(spec, n_threads=spec.n_threads or n_threads) for spec in specs]
    cells = [_cell(artifact, spec) for artifact in artifacts for spec in dict.fromkeys(specs)]
    _warn_of_length(cells, progress)
    key = [[cell.row.digest, cell.row.ref, asdict(cell.row.spec)] for cell in cells]
    with journal(registry.home, key, resume=resume) as kept:
        builds = _restore(cells, kept)
        text = corpus().text
        with progress.task("bench", sum(_n_steps(cell, effort) for cell in cells), "steps") as task:
            try:
                builds += _rounds(cells, effort, text, kept, task)
            except KeyboardInterrupt:
                progress.say("what is measured is kept: the same command with `--resume` goes on")
                raise
        rows = tuple(_settled(cell, effort) for cell in cells)
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


@dataclass
class _Cell:
    """A row in the making."""

    artifact: Artifact
    row: BenchRow
    blocks: list[Block] = field(default_factory=list)
    failure: Failure | None = None
    spent_s: float = 0.0

    @property
    def n_done(self) -> int:
        """Repetitions so far."""
        return sum(_n_repetitions(block) for block in self.blocks)


def _cell(artifact: Artifact, spec: BenchSpec) -> _Cell:
    bytes_per_token = None
    with suppress(GgufError, OSError):  # the engine will say what is wrong with it
        bytes_per_token = read_hollow(artifact.path).bytes_per_token
    row = BenchRow(
        artifact.ref,
        artifact.digest,
        artifact.size_bytes,
        spec,
        n_params=artifact.facts.get("n_params"),
        bytes_per_token=bytes_per_token,
    )
    return _Cell(artifact, row)


def _rounds(cells: Sequence[_Cell], effort: Effort, text: str, kept: Journal, task: Task) -> list[Mapping[str, str]]:
    builds: list[Mapping[str, str]] = []
    machine: Mapping[str, Any] = {}

    def look() -> None:
        """How fast the machine is by itself in this round: it drifts."""
        nonlocal machine
        task.describe(f"round {n_round}: the machine")
        machine = _machine_now()

    def turn(cell: _Cell, n_round: int) -> None:
        builds.extend(_measure(cell, n_round, text, machine, kept, task))

    n_round = 1
    while todo := [cell for cell in cells if not _is_enough(cell, effort)]:
        if effort.in_step:
            todo = [cell for cell in cells if not cell.failure]
        look()
        for cell in todo if n_round % 2 else todo[::-1]:
            turn(cell, n_round)
        n_round += 1
    if again := [cell for cell in cells if not cell.failure and _is_disturbed(cell, effort)]:
        look()
        for cell in again:
            turn(cell, n_round)
    return builds


def _measure(
    cell: _Cell, n_round: int, text: str, machine: Mapping[str, Any], kept: Journal, task: Task
) -> list[Mapping[str, str]]:
    """One child's worth of repetitions, on a machine that was as fast as that."""
    spec = cell.row.spec
    label = f"{cell.row.ref} round {n_round}"

    def on_sample(test: str, elapsed_ns: int) -> None:
        task.advance()
        task.describe(f"{label}, {_reading(cell.row, test, elapsed_ns)}")

    task.describe(label)
    started = time.monotonic()
    try:
        n_left = spec.repetitions - cell.n_done or spec.repetitions  # all of them again when they were disturbed
        measured: Measured = measure(cell.artifact.path, spec, text, min(PER_CHILD, n_left), on_sample)
    except EngineMissingError:
        raise
    except EngineError as error:
        cell.failure = Failure(error.code, error.message, error.hint, error.log)
        kept.add({**_name(cell), "failure": asdict(cell.failure)})
        return []
    block = replace(measured.block, seen={**measured.block.seen, **({"machine": machine} if machine else {})})
    cell.blocks.append(block)
    cell.spent_s += time.monotonic() - started
    kept.add({**_name(cell), "block": asdict(block), "spent_s": cell.spent_s, "build": dict(measured.build)})
    return [measured.build]


def _machine_now() -> Mapping[str, Any]:
    machine = peaks.measure(probe.physical_cores())
    return asdict(machine) if machine else {}


def _machine(cells: Sequence[_Cell]) -> Mapping[str, Any]:
    """As it was in the first round."""
    return next((block.seen["machine"] for cell in cells for block in cell.blocks if "machine" in block.seen), {})


def _reading(row: BenchRow, test: str, elapsed_ns: int) -> str:
    if test == "ttft":
        return f"TTFT {elapsed_ns / 1e6:.0f} ms"
    return f"{getattr(row.spec, test)} {row.n_tokens(test) * 1e9 / elapsed_ns:.1f} tok/s"


def _is_enough(cell: _Cell, effort: Effort) -> bool:
    if cell.failure or cell.n_done >= cell.row.spec.repetitions:
        return True
    if cell.blocks and cell.spent_s * (len(cell.blocks) + 1) / len(cell.blocks) > effort.max_time_s:
        return True  # one more would take too long
    if len(cell.blocks) < effort.least_children:
        return False
    return _is_precise(_with_blocks(cell, effort), effort.precision)


def _is_precise(row: BenchRow, precision: float) -> bool:
    widths = (stats.relative_interval(row.rates(test)) for test in ("pp", "tg", "pg") if row.samples(test))
    return all(width is not None and width <= precision for width in widths)


def _is_disturbed(cell: _Cell, effort: Effort) -> bool:
    return _with_blocks(cell, effort).state != OK


def _with_blocks(cell: _Cell, effort: Effort) -> BenchRow:
    """The row as it stands. Where enough children were undisturbed the others do not count."""
    n_quiet = sum(block.state == OK for block in cell.blocks)
    enough = n_quiet >= min(effort.least_children, max(1, len(cell.blocks) - 1))
    blocks = tuple(replace(block, counted=block.state == OK or not enough) for block in cell.blocks)
    return replace(cell.row, blocks=blocks, failure=cell.failure)


def _settled(cell: _Cell, effort: Effort) -> BenchRow:
    """The finished row, with what has to be said of it."""
    row = _with_blocks(cell, effort)
    if row.failure:
        return row
    named = [(name, row.rates(test)) for test, name in (("pp", row.spec.pp), ("tg", row.spec.tg), ("pg", row.spec.pg))]
    widths = [(name, stats.relative_interval(rates)) for name, rates in named if rates]
    warnings = [
        f"{row.ref}: {name} is known to ± {width:.1%} only: raise -r or --max-time, or close other programs"
        for name, width in widths
        if width is not None and width > effort.precision
    ]
    return replace(row, warnings=tuple(warnings))


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


def _restore(cells: Sequence[_Cell], kept: Journal) -> list[Mapping[str, str]]:
    """What an interrupted run has measured; its engines."""
    named = {_label(_name(cell)): cell for cell in cells}
    builds = []
    for record in kept.records:
        cell = named[_label(record)]
        if "failure" in record:
            continue  # it is tried again
        cell.blocks.append(block_of(record["block"]))
        cell.spent_s = record["spent_s"]
        builds.append(record["build"])
    return builds


def _name(cell: _Cell) -> dict[str, object]:
    return {"digest": cell.row.digest, "ref": cell.row.ref, "spec": asdict(cell.row.spec)}


def _label(record: Mapping[str, object]) -> str:
    return repr((record["digest"], record["ref"], record["spec"]))


def _n_repetitions(block: Block) -> int:
    return max(len(block.pp_ns), len(block.tg_ns), len(block.pg_ns), len(block.ttft_ns))


def _n_steps(cell: _Cell, effort: Effort) -> int:
    """Samples at least: more follow where these vary."""
    spec = cell.row.spec
    asked = (spec.n_prompt or spec.prompt, spec.n_prompt, spec.n_gen, spec.n_pg_prompt + spec.n_pg_gen)
    n_repetitions = min(spec.repetitions, PER_CHILD * effort.least_children) - cell.n_done
    return max(0, n_repetitions) * sum(1 for test in asked if test)


def _warn_of_length(cells: Iterable[_Cell], progress: Progress) -> None:
    for cell in cells:
        trained = cell.artifact.facts.get("context_length")
        if trained and cell.row.spec.n_ctx > trained:
            progress.warn(f"{cell.artifact.ref} was made for {trained:,} tokens: this is more")
