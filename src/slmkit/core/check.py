"""What a gate allows, and what it found."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from slmkit.errors import UsageError

PASS, REGRESSION, INCONCLUSIVE, UNMEASURED = "pass", "regression", "inconclusive", "could not measure"
WORST_FIRST = (REGRESSION, UNMEASURED, INCONCLUSIVE, PASS)


@dataclass(frozen=True)
class Limits:
    """Shares by which time, peak RSS and size may grow; the others are absolute and only hold when they are given.

    5 % slower means that the same tokens take 5 % longer. The last three are of quality beside the base: mean KLD in
    nats, perplexity over the base's, and the share of tokens whose most likely one is the base's.
    """

    max_slowdown: float = 0.05
    max_rss_growth: float = 0.03
    max_size_growth: float = 0.01
    min_tok_per_s: float | None = None
    max_ttft_ns: float | None = None
    max_kld: float | None = None
    max_ppl_ratio: float | None = None
    min_same_top: float | None = None

    @property
    def on_quality(self) -> bool:
        """Whether there is one that needs no baseline, but a text to be read."""
        return any(limit is not None for limit in (self.max_kld, self.max_ppl_ratio, self.min_same_top))

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"{name} is {value}: it must be a number of at least 0")
            if value == 0 and name in ("max_kld", "max_ppl_ratio"):
                raise UsageError(f"{name} is 0: no quant can keep it")
        if self.min_same_top is not None and self.min_same_top > 1:
            raise UsageError(f"min_same_top is {self.min_same_top:.0%}: no share is above 100 %")


@dataclass(frozen=True)
class Judgement:
    """One row by one criterion.

    `test` names what was looked at (`tg128`, `peak RSS`, `KLD`), `criterion` the limit as a person writes it.
    `baseline` and `now` are tokens per second, nanoseconds, bytes, nats or shares, `low` and `high` the 95 % interval
    of what is held against `limit`: the growth as a share, or for absolute limits the value itself. Unknown is `None`;
    `text` says it in words.
    """

    ref: str
    test: str
    criterion: str
    verdict: str
    limit: float
    baseline: float | None
    now: float | None
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class Check:
    """All judgements, and what has to be known of how they came about."""

    judgements: tuple[Judgement, ...]
    notes: tuple[str, ...] = ()

    def __add__(self, other: Check) -> Check:
        """Both together."""
        return Check((*self.judgements, *other.judgements), (*self.notes, *other.notes))

    @property
    def verdict(self) -> str:
        """The worst: a regression that is certain weighs more than what could not be measured."""
        found = {judgement.verdict for judgement in self.judgements}
        return next(verdict for verdict in WORST_FIRST if verdict in found or verdict == PASS)

    @property
    def summary(self) -> str:
        """`1 regression, 2 inconclusive, 7 pass`."""
        counted = Counter(judgement.verdict for judgement in self.judgements)
        return ", ".join(f"{counted[verdict]} {verdict}" for verdict in WORST_FIRST if counted[verdict])

    def with_verdict(self, verdict: str) -> tuple[Judgement, ...]:
        """Those that ended so."""
        return tuple(judgement for judgement in self.judgements if judgement.verdict == verdict)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "verdict": self.verdict,
            "judgements": [asdict(judgement) for judgement in self.judgements],
            "notes": list(self.notes),
        }
