"""With how little memory a model still runs at speed: it is run again and again under limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from slmkit.backends.llamacpp import child
from slmkit.core import stats, units
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchSpec, Block
from slmkit.core.progress import Progress
from slmkit.errors import CannotMeasureError, EngineError
from slmkit.host import limits, probe
from slmkit.ops.bench.block import measure
from slmkit.ops.corpora import corpus

AT_SPEED = 0.9
"""Of the rates without a limit. Less, and the weights are read from the disk again and again."""
TOLERANCE_BYTES = 16 << 20
_RESERVED_BYTES = 512 << 20
"""An rlimit counts what threads and libraries reserve, too: more than all the rest where a model is small."""
_SLOWEST = 5
"""Times as long as without a limit, after which a run is stopped: it is reading from the disk."""


@dataclass(frozen=True)
class LeastMemory:
    """`size_bytes` is the smallest limit that held, at most `TOLERANCE_BYTES` too large, for the model and its process.

    `kind` is what limited, as `host.limits` names it; `with_files` says whether mapped weights counted.
    """

    size_bytes: int
    kind: str
    with_files: bool


def with_least_memory(artifact: Artifact, row: BenchRow, progress: Progress) -> BenchRow:
    """A row that was measured, with the least memory in which it runs at speed; else with the reason as a warning."""
    try:
        found = least_memory(artifact, row.spec, progress)
    except (CannotMeasureError, EngineError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        note = f"{row.ref}: the least memory cannot be found: {reason}"
        progress.warn(note)
        return replace(row, warnings=(*row.warnings, note))
    how = "weights that are mapped count" if found.with_files else "without mmap, which it does not count"
    note = f"{row.ref}: runs at speed with {units.size(found.size_bytes)} ({found.kind}; {how})"
    return replace(row, min_ram_bytes=found.size_bytes, warnings=(*row.warnings, note))


def least_memory(artifact: Artifact, spec: BenchSpec, progress: Progress) -> LeastMemory:
    """Search by bisection for the least memory in which `spec` runs at speed.

    Raises `CannotMeasureError` where nothing limits memory, the engine's errors when it does not run without limit, and
    `OSError` when the system takes the limits back.
    """
    child.require_engine()
    means = limits.means()
    if means.kind is None:
        raise CannotMeasureError(str(means.reason))
    spec = replace(spec, n_threads=spec.n_threads or probe.physical_cores(), n_pg_prompt=0, n_pg_gen=0)
    if means.kind == "rlimit":
        spec = replace(spec, mmap=False)  # it does not count what is mapped
    text = corpus().text
    free = measure(artifact.path, spec, text, 2, lambda *_: None).block
    peak = free.memory.peak_rss if free.memory else None
    if peak is None:
        raise CannotMeasureError("this system does not tell what a process takes")
    unlimited = _times(free)
    asked_s = sum(unlimited.values()) / 1e9
    with_files = True

    with progress.task("least memory", None, "steps") as task:

        def runs(size_bytes: int) -> bool:
            """Asked twice before it is a no: something else may have been in the way."""
            return holds(size_bytes) or holds(size_bytes)

        def holds(size_bytes: int) -> bool:
            nonlocal with_files
            task.advance()
            with limits.limited(size_bytes, [artifact.root / file.name for file in artifact.files]) as limit:
                assert limit is not None
                with_files = limit.with_files
                timed = replace(spec, timeout_s=min(spec.timeout_s, 15 + _SLOWEST * asked_s))
                try:
                    block = measure(artifact.path, timed, text, 2, lambda *_: None, within=limit.command).block
                except EngineError:  # it ran without a limit
                    return False
            limited = _times(block)
            return all(limited[test] * AT_SPEED <= ns for test, ns in unlimited.items())

        most = peak + (peak >> 1) + (_RESERVED_BYTES if means.kind == "rlimit" else 0)
        size_bytes = limits.smallest(runs, peak // 8, most, TOLERANCE_BYTES)
    if size_bytes is None:
        raise CannotMeasureError("it does not run at speed under any limit")
    return LeastMemory(size_bytes, means.kind, with_files)


def _times(block: Block) -> dict[str, float]:
    """Median nanoseconds of the tests that were made."""
    medians = {"pp": stats.median(block.pp_ns), "tg": stats.median(block.tg_ns)}
    return {test: ns for test, ns in medians.items() if ns is not None}
