"""The engine as its users see it: typed calls, each of which runs in a child process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from slmkit.backends.llamacpp.child import Children, Event, run
from slmkit.core.bench import BenchSpec

PROBE_TIMEOUT_S = 120.0
SMOKE_TOKENS = 2

_SETTINGS = ("n_prompt", "n_gen", "depth", "repetitions", "n_batch", "n_ubatch", "n_threads", "n_gpu_layers", "seed")

MemoryReader = Callable[[int], Mapping[str, int | None]]


@dataclass(frozen=True)
class SmokeResult:
    """What the model said, greedily, to a few words."""

    text: str
    build: Mapping[str, str]


@dataclass(frozen=True)
class SpeedResult:
    """Raw samples in nanoseconds, one for each repetition, and the child's memory at each stage.

    `memory` maps a stage (`start`: before loading; `pp_ns`, `tg_ns`, `ttft_ns`: after that test, the context alive) to
    what the reader saw.
    """

    load_ns: int
    pp_ns: tuple[int, ...]
    tg_ns: tuple[int, ...]
    ttft_ns: tuple[int, ...]
    memory: Mapping[str, Mapping[str, int | None]]
    build: Mapping[str, str]


def build() -> Mapping[str, str]:
    """The engine's version and the CPU features it was compiled for; raises `EngineMissingError` and its siblings."""
    return dict(run("probe", {}, timeout_s=PROBE_TIMEOUT_S)["build"])


def smoke(
    path: Path,
    *,
    n_gpu_layers: int = 0,
    n_threads: int = 1,
    timeout_s: float | None = None,
    children: Children | None = None,
) -> SmokeResult:
    """Load the file, check every weight for NaN, decode a few tokens; raises `EngineError` when that fails."""
    arguments = {"path": str(path), "n_tokens": SMOKE_TOKENS, "n_gpu_layers": n_gpu_layers, "n_threads": n_threads}
    result = run("smoke", arguments, timeout_s=timeout_s, children=children)
    return SmokeResult(str(result["text"]), dict(result["build"]))


def speed(path: Path, spec: BenchSpec, read_memory: MemoryReader, on_sample: Callable[[str], None]) -> SpeedResult:
    """Measure one configuration; `spec.n_threads` is a number by now.

    `read_memory` is called with the child's process id while the child waits, `on_sample` with the name of the test
    after each repetition.
    """
    memory: dict[str, Mapping[str, int | None]] = {}

    def listen(event: Event, pid: int) -> None:
        if event["event"] == "pause":
            seen = dict(read_memory(pid))
            seen["peak_rss"] = seen["peak_rss"] or event["peak_rss"]
            memory[event["stage"]] = seen
        elif event["event"] == "sample":
            on_sample(event["test"])

    settings = {name: value for name, value in asdict(spec).items() if name in _SETTINGS}
    result = run("speed", {"path": str(path), **settings}, listen=listen, timeout_s=spec.timeout_s)
    return SpeedResult(
        load_ns=result["load_ns"],
        pp_ns=tuple(result["pp_ns"]),
        tg_ns=tuple(result["tg_ns"]),
        ttft_ns=tuple(result["ttft_ns"]),
        memory=memory,
        build=dict(result["build"]),
    )
