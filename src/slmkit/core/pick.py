"""What `pick` tries and what comes out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from slmkit.core import stats
from slmkit.core.bench import BenchRow
from slmkit.core.divergence import Scores
from slmkit.core.recommend import Candidate, Choice

LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K")
"""What is tried by default: the sizes that GGUF repositories usually have, none of which needs an importance matrix."""

Keep = Literal["best", "all"]
KEEP: tuple[Keep, ...] = ("all", "best")


@dataclass(frozen=True)
class PickRow:
    """One file that was tried, or the float file that the others are held against (`is_base`: not to be chosen then).

    `bench` and `scores` are `None` where it could not be measured.
    """

    candidate: Candidate
    bench: BenchRow | None = None
    scores: Scores | None = None
    is_base: bool = False


@dataclass(frozen=True)
class LeftOut:
    """A type that was not tried, and why. `need_bytes` is the memory that would have been too much."""

    name: str
    reason: str
    need_bytes: int | None = None


@dataclass(frozen=True)
class Removed:
    """A file that went, and whether its recipe is kept (`slmkit get` makes it again, bit by bit)."""

    ref: str
    size_bytes: int
    is_recipe_kept: bool


@dataclass(frozen=True)
class Pick:
    """All rows, the float file first, and the choice. `fresh` are what this run made, `n_benched` and `n_judged` how
    many files it measured: nothing where all was known. `disk_bytes` is the disk that it took, with what it pulled.
    `notes` are the plan's.
    """

    model: str
    rows: tuple[PickRow, ...]
    choice: Choice
    corpus_name: str
    n_chunks: int | None
    left_out: tuple[LeftOut, ...] = ()
    fresh: tuple[str, ...] = ()
    n_benched: int = 0
    n_judged: int = 0
    disk_bytes: int = 0
    removed: tuple[Removed, ...] = ()
    notes: tuple[str, ...] = ()
    elapsed_s: float | None = None

    @property
    def failed(self) -> tuple[PickRow, ...]:
        """What could not be made or measured."""
        return tuple(row for row in self.rows if row.candidate.failure)

    @property
    def least(self) -> LeftOut | None:
        """Of those that need too much memory the one that needs least."""
        every = [each for each in self.left_out if each.need_bytes]
        return min(every, key=lambda each: each.need_bytes or 0, default=None)

    @property
    def freed_bytes(self) -> int:
        """By removing."""
        return sum(each.size_bytes for each in self.removed)

    def document(self) -> dict[str, Any]:
        """As JSON: of each row the figures, not the samples."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        lists = {name: [asdict(each) for each in getattr(self, name)] for name in ("left_out", "removed")}
        rows = [_row(row) for row in self.rows]
        return {"schema": 1, "kind": "pick", **plain, **lists, "rows": rows, "choice": self.choice.document()}


_PLAIN = (
    "model",
    "corpus_name",
    "n_chunks",
    "fresh",
    "n_benched",
    "n_judged",
    "disk_bytes",
    "freed_bytes",
    "notes",
    "elapsed_s",
)


def _row(row: PickRow) -> dict[str, Any]:
    bench = row.bench
    memory = bench.memory if bench else None
    ttft_ns = bench.ttft_median_ns if bench else None
    return {
        **asdict(row.candidate),
        "is_base": row.is_base,
        "tg_tok_per_s": stats.mean(bench.tg_rates) if bench else None,
        "pp_tok_per_s": stats.mean(bench.pp_rates) if bench else None,
        "ttft_ms": None if ttft_ns is None else ttft_ns / 1e6,
        "peak_rss_bytes": memory.peak_rss if memory else None,
        "reasons": list(bench.reasons) if bench else [],
        "scores": asdict(row.scores) if row.scores else None,
    }
