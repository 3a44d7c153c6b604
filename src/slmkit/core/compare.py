"""One table over sizes, speed, memory and quality: its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from slmkit.core import stats
from slmkit.core.bench import BenchRow, BenchSpec
from slmkit.core.divergence import BROKEN, Scores, scores, verdict
from slmkit.core.quality import QualityRow


@dataclass(frozen=True)
class Judged:
    """What reading a text beside the base has shown of a file; `base` is the base's reference.

    `scores` are `None` of a file that could not be read beside its base, such as one with another vocabulary.
    """

    scores: Scores | None
    verdict: str | None
    is_base: bool = False
    base: str | None = None

    @classmethod
    def of(cls, row: QualityRow, base: QualityRow | None) -> Judged:
        """What a row of a run shows beside the run's base."""
        found = scores(row, base)
        return cls(found, verdict(row, found), row.is_base, base.ref if base else None)

    @property
    def kld(self) -> float | None:
        """The mean; of the base itself 0."""
        if self.is_base:
            return 0.0
        return self.scores.kld.value if self.scores and self.scores.kld else None


@dataclass(frozen=True)
class QualityTerms:
    """What measurements of quality must share to stand in one table: text, how much of it, and the engine's build.

    `corpus` is a digest; `n_chunks` of `n_ctx` tokens were read. Perplexity and KLD depend on all of it.
    """

    corpus_name: str
    corpus: str
    n_ctx: int
    n_chunks: int
    build: tuple[tuple[str, str], ...] = ()
    base_precision: str = "exact"


@dataclass(frozen=True)
class CompareRow:
    """One artifact. `bench` and `quality` are its newest measurements under the comparison's conditions, if there are.

    `reduction` is the share of the baseline's size that this file saves: of the F16, or the BF16 where there is no F16;
    `None` without either. `is_best`: see `with_best`.
    """

    ref: str
    model: str
    variant: str
    size_bytes: int
    reduction: float | None
    bpw: float | None
    bench: BenchRow | None
    is_baseline: bool = False
    quality: Judged | None = None
    is_best: bool = False

    @property
    def tg_tok_per_s(self) -> float | None:
        """Generated tokens per second."""
        return stats.mean(self.bench.tg_rates) if self.bench else None


@dataclass(frozen=True)
class Comparison:
    """All rows, what was measured (`spec`, `None` for nothing) and on what, and the commands that fill the gaps.

    `quality` says on which text, and is `None` where no row has a measurement of it.
    """

    rows: tuple[CompareRow, ...]
    spec: BenchSpec | None
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()
    host: Mapping[str, Any] = field(default_factory=dict)
    build: Mapping[str, str] = field(default_factory=dict)
    quality: QualityTerms | None = None


def with_best(rows: Sequence[CompareRow]) -> tuple[CompareRow, ...]:
    """The rows, those marked that no other of their model beats in size, generation and mean KLD.

    Generation counts where any row of the model has it, and then a row without it is not marked. Nor is a broken file,
    and without KLD nothing: the smallest would always be best.
    """
    best: set[int] = set()
    for model in dict.fromkeys(row.model for row in rows):
        members = [i for i, row in enumerate(rows) if row.model == model]
        timed = any(rows[i].tg_tok_per_s is not None for i in members)
        costs = {i: cost for i in members if (cost := _cost(rows[i], timed=timed))}
        if len(costs) > 1:
            found = unbeaten(list(costs.values()))
            best |= {i for i, is_best in zip(costs, found, strict=True) if is_best}
    return tuple(replace(row, is_best=i in best) for i, row in enumerate(rows))


def _cost(row: CompareRow, *, timed: bool) -> tuple[float, ...] | None:
    """What is better when it is less; `None` where something of it is not known."""
    quality, rate = row.quality, row.tg_tok_per_s
    if quality is None or quality.verdict == BROKEN or quality.kld is None or (timed and rate is None):
        return None
    return (row.size_bytes, quality.kld, *((-rate,) if timed and rate is not None else ()))


def unbeaten(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Of each whether no other is at least as good in everything and better in something (less is better)."""
    return [not any(_beats(other, own) for other in costs) for own in costs]


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
