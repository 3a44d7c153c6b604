"""`check` of quality: hold a run of `quality` against absolute limits. Nothing is measured here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from slmkit.core import stats, units
from slmkit.core.check import INCONCLUSIVE, PASS, REGRESSION, UNMEASURED, Check, Judgement, Limits
from slmkit.core.divergence import Scores, scores
from slmkit.core.quality import Chunk, QualityRow, QualityRun, reading
from slmkit.core.stats import Estimate

KLD, PPL_RATIO, SAME_TOP = "KLD", "PPL ratio", "same top"
_Z975 = 1.96
"""How many standard errors half of a 95 % interval is, of very many tokens."""


def judge(run: QualityRun, limits: Limits) -> Check:
    """Each file of a run by each limit of quality that is given: a pass or a regression when the 95 % interval is clear
    of it. The base itself is not judged.
    """
    rows = [row for row in run.rows if not row.is_base]
    judgements = [judgement for row in rows for judgement in _judged(row, run.base_row, limits)]
    return Check(tuple(judgements), tuple(_notes(run, rows)))


@dataclass(frozen=True)
class _Limit:
    """One limit, and what is held against it: a value with half its 95 % interval, `None` for unknown."""

    test: str
    limit: float
    estimate: Estimate | None
    half: float | None
    at_least: bool = False

    def text(self, value: float) -> str:
        """As people read it."""
        return units.percent(value) if self.test == SAME_TOP else f"{value:.4f}"

    @property
    def criterion(self) -> str:
        """`at most 0.05`."""
        shown = units.percent(self.limit) if self.test == SAME_TOP else f"{self.limit:g}"
        return f"{'at least' if self.at_least else 'at most'} {shown}"


def _judged(row: QualityRow, base: QualityRow | None, limits: Limits) -> Iterator[Judgement]:
    found = None if row.failure or row.defect else scores(row, base)
    for limit in _limits(row, found, limits):
        value = limit.estimate.value if limit.estimate else None
        template = Judgement(row.ref, limit.test, limit.criterion, UNMEASURED, limit.limit, None, value, None, None, "")
        yield _decided(template, limit, _reason(row, found))


def _limits(row: QualityRow, found: Scores | None, limits: Limits) -> Iterator[_Limit]:
    if limits.max_kld is not None:
        yield _Limit(KLD, limits.max_kld, found.kld if found else None, half_by_chunks(row.chunks))
    if limits.max_ppl_ratio is not None:
        ratio = found.ppl_ratio if found else None
        yield _Limit(PPL_RATIO, limits.max_ppl_ratio, ratio, _half(ratio))
    if limits.min_same_top is not None:
        share = found.same_top if found else None
        yield _Limit(SAME_TOP, limits.min_same_top, share, _half(share), at_least=True)


def _reason(row: QualityRow, found: Scores | None) -> tuple[str, str] | None:
    """A verdict that needs no interval, and why."""
    if row.failure:
        return UNMEASURED, row.failure.message
    if row.defect:
        return REGRESSION, f"broken: {row.defect}"
    if found is None or found.kld is None:
        return UNMEASURED, "there is no base that it was held against"
    return None


def _decided(judgement: Judgement, limit: _Limit, reason: tuple[str, str] | None) -> Judgement:
    if reason:
        return replace(judgement, verdict=reason[0], text=reason[1])
    value = limit.estimate.value if limit.estimate else math.nan
    if not math.isfinite(value):
        return replace(judgement, now=None, verdict=REGRESSION, text="broken: its scores are no numbers")
    if limit.half is None:
        return replace(judgement, verdict=INCONCLUSIVE, text="too little was read to tell")
    low, high = max(0.0, value - limit.half), value + limit.half
    high = min(high, 1.0) if limit.test == SAME_TOP else high
    is_good = low >= limit.limit if limit.at_least else high <= limit.limit
    is_bad = high < limit.limit if limit.at_least else low > limit.limit
    verdict = PASS if is_good else REGRESSION if is_bad else INCONCLUSIVE
    return replace(judgement, verdict=verdict, low=low, high=high, text=f"{limit.text(low)} to {limit.text(high)}")


def half_by_chunks(chunks: Collection[Chunk]) -> float | None:
    """Half the 95 % interval of the mean KLD over domains, by Student's t with the means of chunks: tokens of one chunk
    resemble each other more than those of the next. `None` of fewer than two, and of what is no number.

    Chunks spread within their domain, with Welch's degrees of freedom. Where a domain has only one, the spread is that
    of all chunks, which is rather too wide.
    """
    domains: dict[str, list[float]] = {}
    for chunk in chunks:
        domains.setdefault(chunk.domain, []).append(statistics.fmean(chunk.kld) if chunk.kld else math.nan)
    groups = list(domains.values())
    if any(len(means) < 2 for means in groups):
        groups = [[mean for means in groups for mean in means]]
    if not groups or len(groups[0]) < 2:
        return None
    variances = [statistics.variance(means) / len(means) for means in groups]
    whole = math.fsum(variances)
    if whole == 0 or not math.isfinite(whole):
        return 0.0 if whole == 0 else None
    terms = (variance**2 / (len(means) - 1) for variance, means in zip(variances, groups, strict=True))
    degrees = max(1, math.floor(whole**2 / math.fsum(terms)))
    return stats.t975(degrees) * math.sqrt(whole) / len(groups)


def _half(estimate: Estimate | None) -> float | None:
    return None if estimate is None or estimate.error is None else _Z975 * estimate.error


def _notes(run: QualityRun, rows: Collection[QualityRow]) -> Iterator[str]:
    if not rows:
        return
    if run.spec.until_decided:
        yield "reading ended when the answer was clear, for which these intervals are too narrow: measure all of it"
    n_chunks = max(len(row.chunks) for row in rows)
    saved = "" if run.base_precision == "exact" else " as it was saved: KLD is a little less than beside the file"
    against = f", beside {run.base_row.ref}{saved}" if run.base_row else ""
    yield f"{reading(n_chunks, run.spec.n_ctx, run.corpus_name, run.corpus)}{against}"
