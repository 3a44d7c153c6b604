"""One child, watched: its samples, its memory, its energy, and what the machine did meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from slmkit.backends.llamacpp.speed import Look, speed
from slmkit.core import noise, units
from slmkit.core.bench import BenchSpec, Block, Memory
from slmkit.errors import OutOfMemoryError
from slmkit.host import energy, memory
from slmkit.host.guard import Guard
from slmkit.host.watch import Watch


@dataclass(frozen=True)
class Measured:
    """A block, and the engine that it was measured with."""

    block: Block
    build: Mapping[str, str]


def measure(
    path: Path,
    spec: BenchSpec,
    text: str,
    repetitions: int,
    on_sample: Callable[[str, int], None],
    *,
    within: Sequence[str] = (),
) -> Measured:
    """Measure `repetitions` of each test of a file, in a child that the command `within` becomes.

    Raises the engine's errors.
    """
    meter = energy.meter()
    looks: dict[str, Mapping[str, int | None]] = {}
    joules: dict[str, float] = {}
    pids: set[int] = set()

    def look(seen: Look) -> None:
        if seen.stage == "start":
            pids.add(seen.pid)
        phase, _, test = seen.stage.partition(" ")
        if test and meter and (read_j := meter.read_j()) is not None:
            joules[test] = read_j - joules.pop(test, 0.0)
        if phase != "begin":
            found = dict(memory.of_process(seen.pid))
            found["peak_rss"] = found["peak_rss"] or seen.peak_rss
            looks[seen.stage] = found

    def sample(test: str, elapsed_ns: int) -> None:
        watch.sample()
        on_sample(test, elapsed_ns)

    with Watch(own=lambda: pids) as watch, Guard(lambda: pids, spec.max_rss_bytes) as guard:
        try:
            result = speed(path, spec, text, repetitions, look=look, on_sample=sample, within=within)
        except OutOfMemoryError as error:
            if not guard.fired or spec.max_rss_bytes is None:
                raise
            raise OutOfMemoryError(
                f"it took more than {units.size(spec.max_rss_bytes)} and was stopped", hint="raise `--max-rss`"
            ) from error
    seen = watch.seen()
    verdict = noise.judge(seen)
    return Measured(
        Block(
            load_ns=result.load_ns,
            first_ns=result.first_ns,
            n_warmup=result.n_warmup,
            memory=_memory(looks, result.buffers),
            joules=joules,
            seen=asdict(seen),
            state=verdict.state,
            reasons=verdict.reasons,
            pp_ns=result.samples["pp"],
            tg_ns=result.samples["tg"],
            pg_ns=result.samples["pg"],
            ttft_ns=result.samples["ttft"],
            itl_ns=result.samples["itl"],
        ),
        result.build,
    )


def _memory(looks: Mapping[str, Mapping[str, int | None]], buffers: Mapping[str, int]) -> Memory:
    """The peak over all stages; the split of the stage that held most."""
    loaded = [found for stage, found in looks.items() if stage != "start"]
    most = max(loaded, key=lambda found: found["rss"] or 0)
    peaks = [found["peak_rss"] for found in loaded if found["peak_rss"] is not None]
    return Memory(
        baseline_rss=looks["start"]["rss"],
        peak_rss=max(peaks, default=None),
        file_backed=most["file_backed"],
        anonymous=most["anonymous"],
        swap=most.get("swap"),
        major_faults=loaded[-1].get("major_faults"),
        **buffers,
    )
