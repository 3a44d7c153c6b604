"""All models and configurations in turn, round after round, until the numbers are good enough."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from slmkit._version import __version__
from slmkit.backends.llamacpp import child
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec, Block, Failure, block_of
from slmkit.core.progress import Progress, Task
from slmkit.errors import EngineError, EngineMissingError, EngineTimeoutError, UsageError
from slmkit.host import peaks, probe
from slmkit.ops.bench.block import measure
from slmkit.ops.bench.cell import Cell, Effort
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
    unreadable: Sequence[BenchRow] = (),
    timeout_s: float | None = None,
) -> BenchRun:
    """Measure each artifact under each spec, and save the run. One that fails becomes a row with its reason, beside
    those that were `unreadable` to begin with.

    The rows take turns, so that a machine whose speed drifts is unfair to none. What is finished when it is interrupted
    is kept: `resume` goes on with it, `None` does so if there is any. Children that something disturbed are measured
    once more in the end.

    Raises only what concerns all of them: `EngineMissingError`, `UsageError` for nothing to measure or to resume, or
    `EngineTimeoutError` when they take more than `timeout_s` together; what is finished then is kept, too.
    """
    if not artifacts:
        raise UsageError("nothing to bench", hint="make something first: `slmkit quantize smollm2-135m -t Q4_0`")
    child.require_engine()
    until = math.inf if timeout_s is None else time.monotonic() + timeout_s
    n_threads = probe.physical_cores()
    specs = [replace(spec, n_threads=spec.n_threads or n_threads) for spec in specs]
    cells = [Cell.of(artifact, spec, effort) for artifact in artifacts for spec in dict.fromkeys(specs)]
    _warn_of_length(cells, progress)
    key = [cell.name for cell in cells]
    with journal(registry.home, key, resume=resume) as kept:
        builds = _restore(cells, kept)
        text = corpus().text
        n_steps = sum(cell.n_steps for cell in cells)
        with kept.told("measured", progress), progress.task("bench", n_steps, "steps") as task:
            turns = _Turns(cells, text, kept, task, builds=builds, until=until)
            try:
                turns.until_enough(effort.in_step)
            except EngineTimeoutError as error:
                raise kept.late("measured", timeout_s, error) from error
        rows = tuple(cell.settled for cell in cells)
        run = BenchRun(
            created=now(),
            host=probe.host().document(),
            build=next(iter(builds), {}),
            rows=(*rows, *unreadable),
            slmkit=__version__,
            machine=_machine(cells, n_threads),
        )
        runs.save(registry.home, "bench", run.document())
        kept.done = True
    return run


@dataclass
class _Turns:
    """The children of all cells, one after the other; `n_samples` are done, `builds` are those of the engine. The time
    for all is over at `until`: then `EngineTimeoutError`.
    """

    cells: Sequence[Cell]
    text: str
    kept: Journal
    task: Task
    machine: Mapping[str, Any] = field(default_factory=dict)
    builds: list[Mapping[str, str]] = field(default_factory=list)
    n_samples: int = 0
    until: float = math.inf

    def until_enough(self, in_step: bool) -> None:
        """Round after round, and at last once more what something disturbed."""
        n_round = 1
        while todo := [cell for cell in self.cells if not cell.is_enough]:
            self._round([cell for cell in self.cells if not cell.failure] if in_step else todo, n_round)
            n_round += 1
        again = [(cell, cell.n_again) for cell in self.cells]
        for n in range(max(n_again for _, n_again in again)):
            self._round([cell for cell, n_again in again if n_again > n and not cell.failure], n_round + n)

    def _round(self, todo: Sequence[Cell], n_round: int) -> None:
        """One child of each. How fast the machine is by itself is read before and after, for it changes."""
        self.task.set_total(self.n_samples + sum(max(cell.n_steps, cell.n_next_steps) for cell in todo))
        self.machine = self.machine or self._look(n_round)
        measured = [cell for cell in (todo if n_round % 2 else todo[::-1]) if self._child(cell, n_round)]
        self.machine = self._look(n_round)
        for cell in measured:
            cell.blocks[-1] = _beside(cell.blocks[-1], machine_after=self.machine)

    def _look(self, n_round: int) -> Mapping[str, Any]:
        """With as many threads as the cells have."""
        self.task.describe(f"round {n_round}: the machine")
        return _machine_now(max(cell.n_threads for cell in self.cells))

    def _child(self, cell: Cell, n_round: int) -> bool:
        """One child's worth of repetitions; whether it came to its end."""
        label = f"{self._label(cell)} round {n_round}"
        seen: Counter[str] = Counter()

        def on_sample(test: str, elapsed_ns: int) -> None:
            self.n_samples += 1
            seen[test] += 1
            self.task.advance()
            self.task.describe(f"{label} rep {seen[test]}, {_reading(cell.plain, test, elapsed_ns)}")

        self.task.describe(label)
        started = time.monotonic()
        spec = replace(cell.spec, timeout_s=min(cell.spec.timeout_s, max(1.0, self.until - started)))
        try:
            if started >= self.until:
                raise EngineTimeoutError("the time is over")
            measured = measure(cell.artifact.path, spec, self.text, cell.n_next, on_sample)
        except EngineMissingError:
            raise
        except EngineError as error:
            if isinstance(error, EngineTimeoutError) and spec != cell.spec:
                raise  # the time for all: no fault of this one
            cell.failure = Failure.of(error)
            self.kept.add({**cell.name, "failure": asdict(cell.failure)})
            return False
        block = _beside(measured.block, machine=self.machine)
        cell.blocks.append(block)
        cell.spent_s += time.monotonic() - started
        build = dict(measured.build)
        self.kept.add({**cell.name, "block": asdict(block), "spent_s": cell.spent_s, "build": build})
        self.builds.append(build)
        return True

    def _label(self, cell: Cell) -> str:
        """Its model, and those of its settings that are not the same in all."""
        known = [each.spec.conditions() for each in self.cells]
        mine = cell.spec.conditions()
        own = [f"{key} {value}" for key, value in mine.items() if any(each[key] != value for each in known)]
        return " ".join([cell.plain.ref, *own])


def _beside(block: Block, **machines: Mapping[str, Any]) -> Block:
    """With what the machine could do by itself, where that is known."""
    return replace(block, seen={**block.seen, **{when: machine for when, machine in machines.items() if machine}})


def _machine_now(n_threads: int) -> Mapping[str, Any]:
    machine = peaks.measure(n_threads)
    return asdict(machine) if machine else {}


def _machine(cells: Sequence[Cell], n_threads: int) -> Mapping[str, Any]:
    """With so many threads: as it was in the first round, where it was read with as many."""
    read = (block.seen.get("machine", {}) for cell in cells for block in cell.blocks)
    return next((one for one in read if one.get("n_threads") == n_threads), {}) or _machine_now(n_threads)


def _reading(row: BenchRow, test: str, elapsed_ns: int) -> str:
    if test == "ttft":
        return f"TTFT {elapsed_ns / 1e6:.0f} ms"
    return f"{getattr(row.spec, test)} {row.n_tokens(test) * 1e9 / elapsed_ns:.1f} tok/s"


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
