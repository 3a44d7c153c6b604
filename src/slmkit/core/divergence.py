"""Perplexity and KL divergence from raw scores, with llama-perplexity's conventions.

The formulas are those of https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/perplexity/perplexity.cpp
(`perplexity`, `kl_divergence`). Of several domains each counts the same: a value is the mean of the domains' values, a
logarithm's in the case of perplexity, and its error that of a mean of independent values.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slmkit.core.quality import LEAST_CHUNKS, Chunk, QualityRow, QualitySpec, tokens_of
from slmkit.core.stats import Estimate, percentile

NEAR_LOSSLESS, VERY_GOOD, GOOD, NOTICEABLE, BROKEN = "near lossless", "very good", "good", "noticeable", "broken"
THRESHOLDS = ((NEAR_LOSSLESS, 0.005), (VERY_GOOD, 0.02), (GOOD, 0.05), (NOTICEABLE, 0.5))
"""Mean KLD up to which a word holds, in nats for a token. They are ours, for there are none that all agree on: 0.05 is
what many call good, and from 0.5 on fewer than two of three most likely tokens are the same, as a rule."""
PERCENTILES = (50, 90, 99)
ALPHA = 0.05
"""How often a decision may be wrong."""
TUNED_FOR = 20
"""Chunks at which the confidence sequence is narrowest."""


@dataclass(frozen=True)
class Scores:
    """One model's figures, beside those of its base where there is one; in nats, probabilities as shares.

    `ppl_ratio` is over the base's, `rms_dp` the root of the mean square of what the probability of the text's own token
    changed by, `same_top` the share of tokens whose most likely one is the base's. `kld_percentiles` are over all
    tokens of all domains: the 50th, 90th and 99th.
    """

    n_tokens: int
    ppl: Estimate
    ppl_ratio: Estimate | None = None
    kld: Estimate | None = None
    kld_percentiles: tuple[float, ...] = ()
    kld_max: float | None = None
    rms_dp: Estimate | None = None
    same_top: Estimate | None = None

    @property
    def verdict(self) -> str | None:
        """In words, by `THRESHOLDS`; `None` without a base."""
        if not math.isfinite(self.ppl.value):
            return BROKEN
        if self.kld is None:
            return None
        return next((word for word, limit in THRESHOLDS if self.kld.value <= limit), BROKEN)


def scores(row: QualityRow, base: QualityRow | None = None, domain: str | None = None) -> Scores | None:
    """The figures of a row, over all its domains or of one; `None` of a row without scores."""
    domains = row.domains if domain is None else (domain,)
    each = [_of_text(row.of_domain(name), () if base is None else base.of_domain(name)) for name in domains]
    found = [score for score in each if score]
    if len(found) < 2:
        return found[0] if found else None
    return _macro(found, [k for name in domains for k in tokens_of(row.of_domain(name), "kld")])


def verdict(row: QualityRow, found: Scores | None) -> str | None:
    """A row's figures in words; `None` where there is nothing to say, or the row is the base."""
    if row.defect:
        return BROKEN
    return None if found is None or (row.is_base and math.isfinite(found.ppl.value)) else found.verdict


def kept(row: QualityRow, base: QualityRow | None, spec: QualitySpec) -> bool | None:
    """Whether a row keeps the limits of `spec`: as it was decided, else by its means; `None` without either."""
    if spec.max_kld is None and spec.max_ppl_ratio is None:
        return None
    if row.is_base or row.failure:
        return None
    if row.defect:
        return False
    if row.decided is not None:
        return row.decided
    found = scores(row, base)
    if found is None or found.kld is None or found.ppl_ratio is None:
        return None
    limits = ((found.kld.value, spec.max_kld), (found.ppl_ratio.value, spec.max_ppl_ratio))
    return all(value <= limit for value, limit in limits if limit is not None)


def clear_of(values: Sequence[float], limit: float) -> bool | None:
    """Whether the mean of what more chunks would show is below a limit; `None` while that is not clear.

    `values` are means of chunks. May be asked after each chunk: the interval is a confidence sequence, which holds at
    all times together with probability 1 - `ALPHA` (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central
    limit theory and asymptotic confidence sequences", https://arxiv.org/abs/2103.06476, theorem 2.2).
    """
    n = len(values)
    if not all(math.isfinite(value) for value in values):
        return False
    if n < LEAST_CHUNKS:
        return None
    squared = (-2 * math.log(ALPHA) + math.log(-2 * math.log(ALPHA)) + 1) / TUNED_FOR
    grown = n * squared + 1
    half = statistics.stdev(values) * math.sqrt(2 * grown / (n * n * squared) * math.log(math.sqrt(grown) / ALPHA))
    mean = statistics.fmean(values)
    return None if abs(mean - limit) <= half else mean < limit


def decide(chunks: Sequence[Chunk], base: Sequence[Chunk], spec: QualitySpec) -> bool | None:
    """Whether a model keeps all limits of `spec`, by its chunks and the same of the base; `None`: not clear."""
    answers: list[bool | None] = []
    if spec.max_kld is not None:
        answers.append(clear_of([statistics.fmean(chunk.kld) for chunk in chunks], spec.max_kld))
    if spec.max_ppl_ratio is not None:
        pairs = zip(chunks, base, strict=False)
        differences = [statistics.fmean(a.nll) - statistics.fmean(b.nll) for a, b in pairs]
        answers.append(clear_of(differences, math.log(spec.max_ppl_ratio)))
    return False if False in answers else None if None in answers else True


def _of_text(chunks: Sequence[Chunk], base: Sequence[Chunk]) -> Scores | None:
    """Of one domain, token by token."""
    nll = list(tokens_of(chunks, "nll"))
    if not nll:
        return None
    ppl = _exponential(_mean(nll))
    kld = list(tokens_of(chunks, "kld"))
    if not kld:
        return Scores(len(nll), ppl)
    base_nll = _paired(chunks, base)
    same = list(tokens_of(chunks, "same_top"))
    share = statistics.fmean(same)
    dp = [(math.exp(-a) - math.exp(-b)) ** 2 for a, b in zip(nll, base_nll, strict=True)]
    mean_dp = _mean(dp)
    rms = math.sqrt(mean_dp.value)
    return Scores(
        n_tokens=len(nll),
        ppl=ppl,
        ppl_ratio=_exponential(_mean([a - b for a, b in zip(nll, base_nll, strict=True)])) if base_nll else None,
        kld=_mean(kld),
        kld_percentiles=_percentiles(kld),
        kld_max=max(kld),
        rms_dp=Estimate(rms, mean_dp.error / (2 * rms) if mean_dp.error is not None and rms else 0.0),
        same_top=Estimate(share, math.sqrt(share * (1 - share) / (len(same) - 1)) if len(same) > 1 else None),
    )


def _paired(chunks: Sequence[Chunk], base: Sequence[Chunk]) -> list[float]:
    """The base's `nll` of the same tokens."""
    known = {(chunk.domain, chunk.number): chunk for chunk in base}
    return [value for chunk in chunks for value in known[chunk.domain, chunk.number].nll]


def _macro(found: Sequence[Scores], klds: Sequence[float]) -> Scores:
    def mean(estimates: Iterable[Estimate | None]) -> Estimate | None:
        known = [estimate for estimate in estimates if estimate]
        return _average(known) if len(known) == len(found) else None

    ppl = mean(_logarithm(score.ppl) for score in found)
    ratio = mean(_logarithm(score.ppl_ratio) if score.ppl_ratio else None for score in found)
    assert ppl is not None
    return Scores(
        n_tokens=sum(score.n_tokens for score in found),
        ppl=_exponential(ppl),
        ppl_ratio=_exponential(ratio) if ratio else None,
        kld=mean(score.kld for score in found),
        kld_percentiles=_percentiles(klds),
        kld_max=max(klds, default=None),
        rms_dp=mean(score.rms_dp for score in found),
        same_top=mean(score.same_top for score in found),
    )


def _percentiles(values: Sequence[float]) -> tuple[float, ...]:
    found = (percentile(values, q) for q in PERCENTILES)
    return tuple(value for value in found if value is not None)


def _mean(values: Sequence[float]) -> Estimate:
    """With the standard error that llama-perplexity prints: tokens are taken for independent."""
    n = len(values)
    centre = math.fsum(values) / n
    if n < 2:
        return Estimate(centre, None)
    spread = math.fsum((value - centre) ** 2 for value in values) / n
    return Estimate(centre, math.sqrt(spread / (n - 1)))


def _average(estimates: Sequence[Estimate]) -> Estimate:
    errors = [estimate.error for estimate in estimates]
    value = math.fsum(estimate.value for estimate in estimates) / len(estimates)
    if None in errors:
        return Estimate(value, None)
    return Estimate(value, math.hypot(*(error for error in errors if error is not None)) / len(estimates))


def _exponential(estimate: Estimate) -> Estimate:
    try:
        value = math.exp(estimate.value)
    except OverflowError:
        return Estimate(math.inf, None)
    return Estimate(value, None if estimate.error is None else value * estimate.error)


def _logarithm(estimate: Estimate) -> Estimate:
    if not 0 < estimate.value < math.inf:
        return Estimate(estimate.value, None)
    return Estimate(math.log(estimate.value), None if estimate.error is None else estimate.error / estimate.value)
