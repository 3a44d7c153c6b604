"""How much one measurement differs from another, and never more than their samples carry.

Everything is computed with logarithms, so that swapping the two only turns the sign. What one child measured is a
block: samples of one child resemble each other more than those of the next, so blocks are what is counted, not samples.
A block's value is its median.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from slmkit.core import levels, stats
from slmkit.core.bench import BenchRow, Block

MEASURES = ("pp", "tg", "pg", "ttft", "rss", "size")
TIMED = ("pp", "tg", "pg", "ttft")
_WORDS = {"rss": ("less", "more"), "size": ("smaller", "larger")}
FEW_PAIRS = 3
"""With fewer, the spread among children is not known from the children and is taken from their samples."""
PRIOR_BLOCKS = 2
"""How many children the expected spread counts for: three that agree by chance do not make an exact result."""
LEAST_SPREAD = {"pp": 0.005, "tg": 0.01, "pg": 0.01, "ttft": 0.01, "rss": 0.002, "size": 0.0}
"""Expected at least of the children of one run: standard deviations of logarithms (0.01 is 1 %)."""
RUN_SPREAD = {"pp": 0.004, "tg": 0.007, "pg": 0.007, "ttft": 0.007, "rss": 0.002, "size": 0.0}
"""Of runs among themselves, beyond what their children explain. A floor, for nothing in two runs tells how far the
machine has drifted in between. Both are measured: see "What two runs differ by" in docs/lab-notes.md."""


@dataclass(frozen=True)
class Difference:
    """Of a subject to what it is held against.

    `ratio` is the subject's value over the other's, `low` and `high` its 95 % interval: of tokens per second for `pp`,
    `tg` and `pg`, of seconds for `ttft`, of bytes for `rss` and `size`. "x % slower" means that it takes x % longer,
    "x % faster" the same seen from the other side. `n_pairs` children were held against each other.
    """

    what: str
    ratio: float
    low: float
    high: float
    n_pairs: int
    measurable: bool
    text: str


@dataclass(frozen=True)
class Change:
    """The natural logarithm of how many times the time or the bytes of the other, and half its 95 % interval."""

    log: float
    half: float

    @property
    def low(self) -> float:
        """The factor is hardly below this."""
        return math.exp(self.log - self.half)

    @property
    def high(self) -> float:
        """The factor is hardly above this."""
        return math.exp(self.log + self.half)


@dataclass(frozen=True)
class Blocks:
    """What the children of one row measured: logarithms of nanoseconds for a token (`ttft`: in all) or of bytes.

    `expected` is the spread among children that the spread inside of them lets expect.
    """

    what: str
    logs: tuple[float, ...]
    expected: float


def compare_rows(a: BenchRow, b: BenchRow) -> tuple[Difference, ...]:
    """What `a` is beside `b`, for everything that both have: pp, tg, pg, time to first token, peak RSS, size.

    Block k of `a` is held against block k of `b`: they were measured in turn, so that drift hits both.
    """
    a, b = _in_turn(a, b)
    both = ((blocks(a, what), blocks(b, what)) for what in MEASURES)
    return tuple(
        difference(one.what, paired(one, other), min(len(one.logs), len(other.logs)))
        for one, other in both
        if one.logs and other.logs
    )


def _in_turn(a: BenchRow, b: BenchRow) -> tuple[BenchRow, BenchRow]:
    """Both with the children of rounds in which both count, and during which the machine kept its speed where there are
    enough of these; as they are where no round is left.
    """
    rounds = list(zip(a.blocks, b.blocks, strict=False))
    known = levels.levels((a, b))
    both = [one.counted and other.counted for one, other in rounds]
    steady = [counts and _at_one_level(pair, known) for counts, pair in zip(both, rounds, strict=True)]
    kept = steady if sum(steady) >= FEW_PAIRS else both
    if not any(kept):
        return a, b
    one, other = (
        replace(row, blocks=tuple(replace(block, counted=keep) for block, keep in zip(row.blocks, kept, strict=False)))
        for row in (a, b)
    )
    return one, other


def _at_one_level(pair: tuple[Block, Block], known: Sequence[float]) -> bool:
    if len(known) < 2:
        return True
    found = {levels.level(block, known) for block in pair}
    return len(found) == 1 and None not in found


def blocks(row: BenchRow, what: str) -> Blocks:
    """Of the counted children of a row; with no `logs` for what was not measured."""
    if what == "size":
        known = not row.failure and row.size_bytes > 0  # other programs' runs may say 0
        return Blocks(what, (math.log(row.size_bytes),) if known else (), 0.0)
    if what == "rss":
        peaks = [block.memory.peak_rss for block in row.counted if block.memory and block.memory.peak_rss]
        return Blocks(what, tuple(map(math.log, peaks)), LEAST_SPREAD[what])
    children = [[math.log(ns) for ns in getattr(block, f"{what}_ns")] for block in row.counted]
    children = [samples for samples in children if samples]
    tokens = math.log(row.n_tokens(what)) if what != "ttft" and children else 0.0
    within = [stats.robust_stdev(samples) for samples in children]
    expected = max(LEAST_SPREAD[what], statistics.median(within) if within else 0.0)
    return Blocks(what, tuple(statistics.median(samples) - tokens for samples in children), expected)


def paired(a: Blocks, b: Blocks) -> Change:
    """The middle of the ratios of children that were measured in turn."""
    logs = [one - other for one, other in zip(a.logs, b.logs, strict=False)]
    return Change(midmean(logs), _half(logs, midmean, math.hypot(a.expected, b.expected)))


def unpaired(a: Blocks, b: Blocks) -> Change:
    """Of two runs that were measured at different times, or on different machines.

    The faster half of each run's children is averaged: other programs and other guests of the machine only ever slow a
    child down. To both intervals comes what runs differ by although nothing has changed.
    """
    return Change(faster_half(a.logs) - faster_half(b.logs), math.hypot(run_half(a), run_half(b)))


def run_half(run: Blocks) -> float:
    """Half the 95 % interval of one run's faster half, and what another run would differ by."""
    return math.hypot(_half(run.logs, faster_half, run.expected), 1.96 * RUN_SPREAD[run.what])


def known_to(row: BenchRow, what: str) -> float | None:
    """Half the 95 % interval of what a row's children measured on average, as a share of it; `None` of fewer than two
    samples. What children differ by counts as well as what samples do, whichever says more.
    """
    among_samples = stats.relative_interval([float(ns) for ns in row.samples(what)])
    found = blocks(row, what)
    if among_samples is None or len(found.logs) < 2:
        return among_samples
    return max(among_samples, math.expm1(_half(found.logs, statistics.fmean, found.expected)))


def midmean(values: Sequence[float]) -> float:
    """The mean of the middle half: a wild block at either end has no say."""
    cut = len(values) // 4
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def faster_half(values: Sequence[float]) -> float:
    """The mean of the smaller half, the middle one of an odd number included."""
    return statistics.fmean(sorted(values)[: math.ceil(len(values) / 2)])


def _half(logs: Sequence[float], statistic: Callable[[Sequence[float]], float], expected: float) -> float:
    """Half the 95 % interval of a statistic: Student's, the variance of the bootstrap moderated by the expected one.

    That is Smyth's "Linear Models and Empirical Bayes Methods" (2004), section 3.
    """
    n = len(logs)
    error = stats.standard_error(logs, statistic) or 0.0
    variance = (PRIOR_BLOCKS * expected**2 / n + (n - 1) * error**2) / (PRIOR_BLOCKS + n - 1)
    degrees = n - 1 if n >= FEW_PAIRS else PRIOR_BLOCKS + n - 1  # what is expected may be wrong
    return stats.t975(degrees) * math.sqrt(variance)


def difference(what: str, change: Change, n_pairs: int) -> Difference:
    """A change in words; for rates the ratio is turned round."""
    measurable = abs(change.log) > change.half
    is_rate = what in ("pp", "tg", "pg")
    log = -change.log if is_rate else change.log
    low, high = math.exp(log - change.half), math.exp(log + change.half)
    return Difference(what, math.exp(log), low, high, n_pairs, measurable, _text(what, change, n_pairs))


def _text(what: str, change: Change, n_pairs: int) -> str:
    if what == "size" and change.log == 0:
        return "the same size"
    few = "" if what == "size" or n_pairs >= FEW_PAIRS else f" ({n_pairs} pair{'s' * (n_pairs > 1)})"
    if abs(change.log) <= change.half:
        return f"no measurable difference (± {_digits(math.expm1(change.half))} %){few}"
    fewer, more = _WORDS.get(what, ("faster", "slower"))
    if what in TIMED:
        return f"{_amount(abs(change.log), change.half)} {more if change.log > 0 else fewer}{few}"
    share = math.expm1(change.log)
    around = math.exp(change.log) * math.expm1(change.half)
    margin = f" ± {_digits(around)} %" if change.half else ""
    return f"{_digits(abs(share), around)} %{margin} {more if share > 0 else fewer}{few}"


def _amount(log: float, half: float) -> str:
    """`6.1 % ± 0.8 %`; from the double on `2.31 ± 0.02 times`."""
    around = math.exp(log) * math.expm1(half)
    if log >= math.log(2):
        return f"{math.exp(log):.2f} ± {around:.2f} times"
    return f"{_digits(math.expm1(log), around)} % ± {_digits(around)} %"


def _digits(share: float, around: float | None = None) -> str:
    """In percent, with no digit that is smaller than a tenth of the uncertainty."""
    return f"{share * 100:.{0 if (share if around is None else around) >= 0.0995 else 1}f}"
