"""The parent's side of measuring speed: one typed call for one child."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slmkit.backends.llamacpp.child import Event, run
from slmkit.core.bench import FLASH_ATTN, BenchSpec
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME

TESTS = ("pp", "tg", "pg", "ttft", "itl")
_PARENTS = ("repetitions", "timeout_s", "max_rss_bytes")
_FLASH_ATTN = dict(zip(FLASH_ATTN, (-1, 1, 0), strict=True))
"""enum llama_flash_attn_type of include/llama.h (0c1e57098)."""


@dataclass(frozen=True)
class Look:
    """The child at a pause: `stage` is `start`, `begin TEST` or `end TEST`; `peak_rss` is by its own account."""

    stage: str
    pid: int
    peak_rss: int


@dataclass(frozen=True)
class SpeedResult:
    """Raw samples in nanoseconds by test, and the engine's own sums of its buffers in bytes by kind."""

    load_ns: int
    first_ns: int
    n_warmup: int
    samples: Mapping[str, tuple[int, ...]]
    buffers: Mapping[str, int]
    build: Mapping[str, str]


def speed(
    path: Path,
    spec: BenchSpec,
    text: str,
    repetitions: int,
    *,
    look: Callable[[Look], None],
    on_sample: Callable[[str, int], None],
    within: Sequence[str] = (),
) -> SpeedResult:
    """Measure one configuration in one child; `spec.n_threads` is a number by now.

    `text` is what the first token is asked after, unless the spec has its own. `look` is called while the child waits,
    `on_sample` with the test and its nanoseconds after each repetition. `within` is a command that becomes the child.
    Raises the engine's errors.
    """

    def listen(event: Event, pid: int) -> None:
        if event["event"] == "pause":
            look(Look(event["stage"], pid, event["peak_rss"]))
        elif event["event"] == "sample":
            on_sample(event["test"], event["ns"])

    arguments = arguments_of(path, spec, text, repetitions)
    result = run("speed", arguments, listen=listen, timeout_s=spec.timeout_s, within=within)
    return SpeedResult(
        load_ns=result["load_ns"],
        first_ns=result["first_ns"],
        n_warmup=result["n_warmup"],
        samples={test: tuple(result[f"{test}_ns"]) for test in TESTS},
        buffers=dict(result["buffers"]),
        build=dict(result["build"]),
    )


def arguments_of(path: Path, spec: BenchSpec, text: str, repetitions: int) -> dict[str, Any]:
    """What the child is told, in the engine's numbers."""
    settings: dict[str, Any] = {name: value for name, value in asdict(spec).items() if name not in _PARENTS}
    settings["type_k"] = GGML_TYPES_BY_NAME[spec.type_k.upper()].id
    settings["type_v"] = GGML_TYPES_BY_NAME[spec.type_v.upper()].id
    settings["flash_attn"] = _FLASH_ATTN[spec.flash_attn]
    return {"path": str(path), "text": text, "repetitions": repetitions, **settings}
