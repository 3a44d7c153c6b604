"""The engine as its users see it: typed calls, each of which runs in a child process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slmkit.backends.llamacpp.child import Children, run

PROBE_TIMEOUT_S = 120.0
SMOKE_TOKENS = 2


@dataclass(frozen=True)
class SmokeResult:
    """What the model said, greedily, to a few words."""

    text: str
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
