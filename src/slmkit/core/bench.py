"""What a bench measures and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from slmkit.core import stats
from slmkit.errors import UsageError

SCHEMA = 1
_LEAST = {"n_prompt": 0, "n_gen": 0, "depth": 0, "repetitions": 1, "n_batch": 1, "n_ubatch": 1, "timeout_s": 1}


@dataclass(frozen=True)
class BenchSpec:
    """One configuration. The defaults are llama-bench's (`-p 512 -n 128 -d 0 -r 5 -b 2048 -ub 512`).

    `n_threads` `None` means the physical cores; `n_gpu_layers` -1 means as many as fit. `timeout_s` bounds one model.
    """

    n_prompt: int = 512
    n_gen: int = 128
    depth: int = 0
    repetitions: int = 5
    n_threads: int | None = None
    n_gpu_layers: int = -1
    n_batch: int = 2048
    n_ubatch: int = 512
    seed: int = 1
    timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at least {least}")
        if self.n_threads is not None and self.n_threads < 1:
            raise UsageError(f"n_threads is {self.n_threads}: it must be at least 1")
        if self.n_prompt + self.n_gen == 0:
            raise UsageError("nothing to measure: n_prompt and n_gen are both 0")

    @property
    def pp(self) -> str:
        """The field's name for the prompt test: `pp512`, `pp512 @ d4096`."""
        return f"pp{self.n_prompt}{self._at}"

    @property
    def tg(self) -> str:
        """The field's name for the generation test: `tg128`."""
        return f"tg{self.n_gen}{self._at}"

    @property
    def _at(self) -> str:
        return f" @ d{self.depth}" if self.depth else ""

    def conditions(self) -> dict[str, Any]:
        """Everything two measurements must share to stand in one table."""
        return {k: v for k, v in asdict(self).items() if k not in ("repetitions", "seed", "timeout_s")}


@dataclass(frozen=True)
class Memory:
    """Bytes of the measuring process; `None` where the system does not tell.

    `baseline_rss` is the interpreter and the library before the model was loaded, part of all the others.
    """

    baseline_rss: int | None
    peak_rss: int | None
    file_backed: int | None
    anonymous: int | None


@dataclass(frozen=True)
class Failure:
    """Why a row has no numbers."""

    code: str
    message: str
    hint: str | None = None
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchRow:
    """One model under one configuration: raw samples in nanoseconds, or the reason why there are none."""

    ref: str
    digest: str
    size_bytes: int
    spec: BenchSpec
    load_ns: int | None = None
    pp_ns: tuple[int, ...] = ()
    tg_ns: tuple[int, ...] = ()
    ttft_ns: tuple[int, ...] = ()
    memory: Memory | None = None
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()

    @property
    def pp_rates(self) -> list[float]:
        """Prompt tokens per second, one for each repetition."""
        return stats.rates_per_s(self.spec.n_prompt, self.pp_ns)

    @property
    def tg_rates(self) -> list[float]:
        """Generated tokens per second, one for each repetition."""
        return stats.rates_per_s(self.spec.n_gen, self.tg_ns)

    @property
    def ttft_median_ns(self) -> float | None:
        """Median time to first token."""
        return stats.median(self.ttft_ns)


@dataclass(frozen=True)
class BenchRun:
    """All rows of one `slmkit bench`, and what they were measured on."""

    created: str
    host: Mapping[str, Any]
    build: Mapping[str, str]
    rows: tuple[BenchRow, ...]
    busy_share: float | None = None
    slmkit: str = ""
    warnings: tuple[str, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"schema": SCHEMA, "kind": "bench", **asdict(self)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> BenchRun:
        """The inverse of `document`; raises `KeyError` or `TypeError` for something else."""
        return cls(
            created=document["created"],
            host=document["host"],
            build=document["build"],
            rows=tuple(_row(row) for row in document["rows"]),
            busy_share=document["busy_share"],
            slmkit=document["slmkit"],
            warnings=tuple(document["warnings"]),
        )


def _row(row: Mapping[str, Any]) -> BenchRow:
    values = dict(row)
    values["spec"] = BenchSpec(**row["spec"])
    for name in ("pp_ns", "tg_ns", "ttft_ns", "warnings"):
        values[name] = tuple(row[name])
    if row["memory"] is not None:
        values["memory"] = Memory(**row["memory"])
    if row["failure"] is not None:
        values["failure"] = Failure(**{**row["failure"], "log": tuple(row["failure"]["log"])})
    return BenchRow(**values)
