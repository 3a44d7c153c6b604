"""The engine as its users see it: typed calls, each of which runs in a child process of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from slmkit.backends.llamacpp.child import Event, run
from slmkit.core.bench import BenchSpec
from slmkit.core.progress import Progress
from slmkit.core.quant import QuantType
from slmkit.errors import DiskFullError, EngineError, ImatrixNeededError

PROBE_TIMEOUT_S = 120.0
SMOKE_TOKENS = 4

# llama-quant.cpp writes one such line for each tensor: "[  12/ 272] blk.0.ffn_down.weight - [ 1536, 576, 1, 1], ..."
_TENSOR_LINE = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s+(\S+)")
_FALLBACK_LINE = re.compile(r"WARNING: (\d+) of (\d+) tensor\(s\) required fallback quantization")
_FAILED_LINE = re.compile(r"failed to quantize: (.+)")

MemoryReader = Callable[[int], Mapping[str, int | None]]


@dataclass(frozen=True)
class QuantizeResult:
    """`n_fallback` of `n_tensors` got another type than asked for, because their rows do not divide into its blocks."""

    n_tensors: int
    n_fallback: int
    build: Mapping[str, str]


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


def quantize(source: Path, target: Path, quant: QuantType, *, n_threads: int, progress: Progress) -> QuantizeResult:
    """Write `target` in type `quant`; raises `EngineError` with the engine's reason."""
    log: list[str] = []
    with progress.task(f"quantize {quant}", None, "tensors") as task:

        def listen(event: Event, _: int) -> None:
            if event["event"] != "log":
                return
            log.append(event["text"])
            if match := _TENSOR_LINE.match(event["text"]):
                task.set_total(int(match[2]))
                task.advance()

        arguments = {
            "source": str(source),
            "target": str(target),
            "ftype": quant.ftype,
            "n_threads": n_threads,
        }
        try:
            result = run("quantize", arguments, listen=listen)
        except EngineError as error:
            if type(error) is not EngineError:
                raise
            reason = _reason(error.log)
            if "iostream error" in reason:  # what std::ofstream says when it cannot write
                raise DiskFullError(
                    f"no space left on the disk of {target.parent}", hint="free some: `slmkit list` shows sizes"
                ) from error
            if "imatrix" in reason:
                raise ImatrixNeededError(
                    f"{quant} of this model needs an importance matrix, which slmkit cannot make yet",
                    hint="take a type that does without: Q2_K, Q3_K_S and IQ3_S are the smallest",
                    log=error.log,
                ) from error
            raise EngineError(f"{error.message}: {reason}", hint=error.hint, log=error.log) from error
    text = "".join(log)
    fallback = _FALLBACK_LINE.search(text)
    totals = [int(m[2]) for m in _TENSOR_LINE.finditer(text)]
    if not totals:
        raise EngineError("the engine's log names no tensor: has its format changed?", log=tuple(log[-20:]))
    return QuantizeResult(totals[-1], int(fallback[1]) if fallback else 0, dict(result["build"]))


def smoke(path: Path, *, n_gpu_layers: int = 0, n_threads: int = 1, timeout_s: float | None = None) -> SmokeResult:
    """Load the file, check every weight for NaN, decode a few tokens; raises `EngineError` when that fails."""
    arguments = {"path": str(path), "n_tokens": SMOKE_TOKENS, "n_gpu_layers": n_gpu_layers, "n_threads": n_threads}
    result = run("smoke", arguments, timeout_s=timeout_s)
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

    settings = {name: value for name, value in asdict(spec).items() if name != "timeout_s"}
    result = run("speed", {"path": str(path), **settings}, listen=listen, timeout_s=spec.timeout_s)
    return SpeedResult(
        load_ns=result["load_ns"],
        pp_ns=tuple(result["pp_ns"]),
        tg_ns=tuple(result["tg_ns"]),
        ttft_ns=tuple(result["ttft_ns"]),
        memory=memory,
        build=dict(result["build"]),
    )


def _reason(log: tuple[str, ...]) -> str:
    """The last line of the engine's log that says why; the last line of all when none does."""
    said = [match[1] for line in log if (match := _FAILED_LINE.search(line))]
    return (said or log or ("no log",))[-1].strip()
