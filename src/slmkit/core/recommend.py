"""Which file to take: of those that keep every limit the one that costs least.

The rule. A limit is kept by what was measured: the mean KLD, the speed, the memory. Of the files that keep all of them
the best is the one with the least size times time for a token: a file that is a tenth smaller is worth a tenth of the
speed. More quality than was asked for counts for nothing, except between two that cost the same. A file whose KLD was
not measured is never taken for good: only where none is proven may one be named, as an estimate. What is broken is not
taken at all, whatever the limits are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from slmkit.core import units
from slmkit.core.bench import OK
from slmkit.core.divergence import BROKEN
from slmkit.core.plan import ROOMY_SHARE
from slmkit.errors import UsageError

Source = Literal["measured", "estimated", "at most", "measured on other text"]
MEASURED: Source = "measured"
ESTIMATED: Source = "estimated"
BOUND: Source = "at most"
"""Of a speed: what the bandwidth of the memory allows. A slow or busy CPU does less."""
OTHER_TEXT: Source = "measured on other text"
"""Of a KLD: of this very file, but on other or less text than the rest. That is an estimate, and a good one."""

MAX_KLD = 0.05
"""In nats for a token: what `core.divergence` calls good ends there."""
HOPE = 2.0
"""What an estimated KLD may be wrong by, as a factor, for a file to be worth measuring."""
GAIN = 0.99
"""What costs more than this share of the best would not be noticed, and is not measured for that."""


@dataclass(frozen=True)
class Wish:
    """The limits. `ram_bytes` is what a file has to fit into with `n_ctx` tokens of context; `None` is no limit."""

    max_kld: float = MAX_KLD
    min_tok_per_s: float | None = None
    ram_bytes: int | None = None
    n_ctx: int | None = None

    def __post_init__(self) -> None:
        limits = {
            "--max-kld": self.max_kld,
            "--min-tps": self.min_tok_per_s,
            "--ram": self.ram_bytes,
            "--ctx": self.n_ctx,
        }
        for option, limit in limits.items():
            if limit is not None and not 0 < limit < math.inf:
                raise UsageError(f"`{option}` is {limit:g}: it must be above 0")

    @property
    def limits(self) -> tuple[str, ...]:
        """In words."""
        texts = [f"mean KLD up to {self.max_kld:g}"]
        if self.min_tok_per_s is not None:
            texts.append(f"{self.min_tok_per_s:g} tok/s or more")
        if self.ram_bytes is not None:
            context = f" with {self.n_ctx:,} tokens of context" if self.n_ctx else ""
            texts.append(f"at most {ROOMY_SHARE:.0%} of {units.size(self.ram_bytes)}{context}")
        return tuple(texts)


@dataclass(frozen=True)
class Candidate:
    """One file, made or not. `name` is its variant.

    `memory_bytes` is what it takes with the context of the wish, `tok_per_s` the speed of generating, `kld` the mean
    KLD in nats; each `None` where it is not known. `state` is that of its bench, `failure` why it cannot be had or
    measured. `here` says whether its file exists, `speed_from` by which measured speed its own is estimated.
    """

    name: str
    ref: str
    size_bytes: int
    bpw: float | None = None
    memory_bytes: int | None = None
    tok_per_s: float | None = None
    speed: Source = MEASURED
    kld: float | None = None
    kld_error: float | None = None
    quality: Source = MEASURED
    verdict: str | None = None
    state: str = OK
    failure: str | None = None
    here: bool = True
    speed_from: str | None = None

    @property
    def is_proven(self) -> bool:
        """Whether its quality was measured."""
        return self.kld is not None and self.quality == MEASURED

    @property
    def is_measured(self) -> bool:
        """Whether its speed was measured, too."""
        return self.is_proven and self.tok_per_s is not None and self.speed == MEASURED

    @property
    def cost(self) -> float:
        """Bytes times seconds for a token; infinite where the speed is unknown."""
        return self.size_bytes / self.tok_per_s if self.tok_per_s else math.inf


@dataclass(frozen=True)
class Breach:
    """A limit that is not kept: by which factor, and in words."""

    excess: float
    text: str


@dataclass(frozen=True)
class Loser:
    """A candidate that was not chosen, and the one reason."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True)
class Choice:
    """The best one, or `None` and the `nearest`. `is_estimate`: the quality of the best was not measured. `losers` are
    all others, the runner-up first; `n_keeping` is how many keep every limit.
    """

    wish: Wish
    best: Candidate | None
    losers: tuple[Loser, ...]
    is_estimate: bool = False
    nearest: Loser | None = None
    n_keeping: int = 0

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Recommendation:
    """What was chosen for a model. `device` is the other computer that it is for, `corpus_name` the text that quality
    was measured on, `measured` what this run measured, `open` what it had no time for.
    """

    model: str
    choice: Choice
    device: str | None = None
    corpus_name: str | None = None
    measured: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"schema": 1, "kind": "recommendation", **asdict(self)}


def breaches(candidate: Candidate, wish: Wish) -> Iterator[Breach]:
    """Every limit that a candidate does not keep, as far as is known."""
    if candidate.verdict == BROKEN:
        yield Breach(math.inf, "it is broken")
    if candidate.kld is not None and not candidate.kld <= wish.max_kld:
        about = "" if candidate.quality == MEASURED else "about "
        excess = candidate.kld / wish.max_kld if math.isfinite(candidate.kld) else math.inf
        yield Breach(excess, f"mean KLD {about}{candidate.kld:.4f} is over {wish.max_kld:g}")
    rate, least = candidate.tok_per_s, wish.min_tok_per_s
    if least is not None and rate is not None and rate < least:
        about = {MEASURED: "", BOUND: "at most "}.get(candidate.speed, "about ")
        yield Breach(least / rate if rate else math.inf, f"{about}{rate:.1f} tok/s is less than {least:g}")
    taken, ram = candidate.memory_bytes, wish.ram_bytes
    if ram is not None and taken is not None and taken > ROOMY_SHARE * ram:
        text = f"it takes {units.size(taken)}: more than {ROOMY_SHARE:.0%} of {units.size(ram)}"
        yield Breach(taken / (ROOMY_SHARE * ram), text)


def is_certain(candidate: Candidate, wish: Wish) -> bool:
    """Whether it was measured that a candidate keeps the limits that it keeps."""
    return candidate.is_proven and (wish.min_tok_per_s is None or candidate.speed == MEASURED)


def choose(candidates: Sequence[Candidate], wish: Wish) -> Choice:
    """See the rule above. More memory, a lower least speed or a higher KLD never lead to a choice that costs more."""
    usable = [c for c in candidates if c.failure is None and not _lacks(c, wish)]
    keeping = sorted((c for c in usable if not any(breaches(c, wish))), key=_rank)
    proven = [c for c in keeping if c.is_proven]
    best = next(iter(proven or keeping), None)
    losers = sorted(
        (Loser(c, _reason(c, best, wish)) for c in candidates if c is not best), key=lambda loser: _order(loser, wish)
    )
    measured = [loser for loser in losers if loser.candidate in usable and loser.candidate.is_proven]
    tried = measured or [loser for loser in losers if loser.candidate in usable]
    return Choice(
        wish=wish,
        best=best,
        losers=tuple(losers),
        is_estimate=best is not None and not best.is_proven,
        nearest=min(tried, key=lambda loser: _excess(loser.candidate, wish), default=None) if best is None else None,
        n_keeping=len(proven or keeping),
    )


def worth_measuring(unmeasured: Sequence[Candidate], every: Sequence[Candidate], wish: Wish) -> Candidate | None:
    """Which of the `unmeasured` to measure next: the first of `hopeful`; `None` when there is nothing to gain."""
    return next(iter(hopeful(unmeasured, every, wish)), None)


def hopeful(unmeasured: Sequence[Candidate], every: Sequence[Candidate], wish: Wish) -> list[Candidate]:
    """Of the `unmeasured` those that by their estimates may keep every limit and cost less than the best that is proven
    among `every`: first what costs least; where no estimate keeps the limits, what misses them least; and of two about
    the same the one that is here.

    Before it is said that nothing keeps the limits, it is the one that may lose least, however little its estimate lets
    hope.
    """
    best = choose(every, wish).best
    is_sure = best is not None and best.is_proven
    able = [c for c in unmeasured if c.failure is None and (c == best or not is_sure or is_cheaper(c, best))]
    found = [c for c in able if not _is_hopeless(c, wish, HOPE)]
    if found or is_sure:
        return sorted(found, key=lambda c: (_about(_excess(c, wish)), _about(c.cost), *_unsure(c), *_rank(c)))
    known = min((c.kld for c in every if c.is_proven and c.kld is not None), default=math.inf)
    last = [c for c in able if c.kld is not None and c.kld < known and not _is_hopeless(c, wish, math.inf)]
    return sorted(last, key=lambda c: (c.kld, not c.here, *_rank(c)))[:1]


def is_cheaper(candidate: Candidate, best: Candidate | None) -> bool:
    """Whether it costs less than the best, by as much as would be noticed."""
    return best is None or candidate.cost < GAIN * best.cost


def is_close(candidate: Candidate, wish: Wish) -> bool:
    """Whether the measured KLD and the limit are no more than two standard errors apart."""
    if candidate.kld is None or candidate.kld_error is None or not candidate.is_proven:
        return False
    return abs(candidate.kld - wish.max_kld) <= 2 * candidate.kld_error


def _unsure(candidate: Candidate) -> tuple[bool, bool]:
    """What is here comes first, and of that what was read on other text."""
    return not candidate.here, candidate.quality == ESTIMATED


def _about(cost: float) -> float:
    """The same for what differs by less than a percent or so."""
    return round(math.log(cost), 2)


def _is_hopeless(candidate: Candidate, wish: Wish, hope: float) -> bool:
    """Whether it cannot keep the limits, or only if its KLD is estimated and wrong by more than the factor `hope`."""
    for breach in breaches(candidate, wish):
        by_guess = candidate.kld is not None and not candidate.is_proven and "KLD" in breach.text
        if not by_guess or breach.excess > hope:
            return True
    return False


def _rank(candidate: Candidate) -> tuple[float, float, int, str]:
    kld = math.inf if candidate.kld is None else candidate.kld
    return candidate.cost, kld, candidate.size_bytes, candidate.name


def _order(loser: Loser, wish: Wish) -> tuple[bool, bool, float, tuple[float, float, int, str]]:
    """Runners-up first, then what is not proven, then what keeps less and less, last what failed."""
    c = loser.candidate
    return c.failure is not None, not c.is_proven, _excess(c, wish), _rank(c)


def _excess(candidate: Candidate, wish: Wish) -> float:
    """The factor of the limit that is kept least; 1 where all are."""
    if candidate.failure is not None:
        return math.inf
    return max((breach.excess for breach in breaches(candidate, wish)), default=1.0)


def _lacks(candidate: Candidate, wish: Wish) -> str | None:
    """What would have to be known before it could be chosen."""
    if candidate.kld is None and candidate.verdict != BROKEN:
        return "its quality is not known"
    if candidate.tok_per_s is None:
        return "its speed is not known"
    if wish.ram_bytes is not None and candidate.memory_bytes is None:
        return "what memory it takes is not known"
    return None


def _reason(candidate: Candidate, best: Candidate | None, wish: Wish) -> str:
    """Why it was not chosen."""
    if candidate.failure is not None:
        return candidate.failure
    if broken := max(breaches(candidate, wish), key=lambda breach: breach.excess, default=None):
        return broken.text
    if lacks := _lacks(candidate, wish):
        return lacks
    if best is not None and best.is_proven and not candidate.is_proven:
        if candidate.quality == OTHER_TEXT:
            return f"its mean KLD, about {candidate.kld:.4f}, was measured on other text: an estimate"
        return f"its quality was not measured; by its bpw the mean KLD may be about {candidate.kld:.3f}, an estimate"
    assert best is not None
    return _beside(candidate, best)


def _beside(candidate: Candidate, best: Candidate) -> str:
    """What it costs more than the best."""
    size = candidate.size_bytes / best.size_bytes - 1
    speed = (candidate.tok_per_s or 0.0) / (best.tok_per_s or math.inf) - 1
    larger, slower = _change(size, "larger", "smaller"), _change(-speed, "slower", "faster")
    if size >= 0 and speed <= 0:
        return f"{larger} and {slower}"
    return f"{larger}, but only {slower}" if size > 0 else f"{slower}, but only {larger}"


def _change(share: float, more: str, less: str) -> str:
    if abs(share) < 0.0005:
        return f"no {more}"
    return f"{abs(share):.1%}".replace("%", " %") + f" {more if share > 0 else less}"
