"""Statistics over raw samples. They are computed when shown, never stored."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error; `None` for an error of fewer than two tokens."""

    value: float
    error: float | None


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; `None` of nothing."""
    return statistics.fmean(values) if values else None


def stdev(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1), as llama-bench prints it; `None` of fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def median(values: Sequence[float]) -> float | None:
    """Median; `None` of nothing."""
    return statistics.median(values) if values else None


def rates_per_s(n_tokens: int, samples_ns: Sequence[int]) -> list[float]:
    """Tokens per second of each repetition."""
    return [n_tokens * 1e9 / ns for ns in samples_ns]


def relative_spread(values: Sequence[float]) -> float | None:
    """Standard deviation over mean; `None` of fewer than two values or a mean of zero."""
    deviation, centre = stdev(values), mean(values)
    if deviation is None or not centre or not math.isfinite(centre):
        return None
    return deviation / centre


def mad(values: Sequence[float]) -> float | None:
    """Median of the absolute deviations from the median; `None` of nothing."""
    centre = median(values)
    return None if centre is None else statistics.median(abs(value - centre) for value in values)


def robust_stdev(values: Sequence[float]) -> float:
    """What the standard deviation of a normal distribution with this `mad` is; 0 of nothing."""
    return 1.4826 * (mad(values) or 0.0)


def percentile(values: Sequence[float], q: float) -> float | None:
    """The `q`-th percentile (0 to 100), linear between neighbours as numpy's default; `None` of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    at = (len(ordered) - 1) * q / 100
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


N_RESAMPLES = 2000
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Student's t at 97.5 %, for 1 to 15 degrees of freedom."""


def t975(degrees: int) -> float:
    """Student's t at 97.5 %: how many standard errors half of a 95 % interval is."""
    return _T975[degrees - 1] if degrees <= len(_T975) else 1.96 + 2.4 / degrees


def interval(
    values: Sequence[float], statistic: Callable[[Sequence[float]], float] = statistics.fmean
) -> tuple[float, float] | None:
    """The 95 % confidence interval of a statistic by bootstrap, the same for the same values; `None` of fewer than two.

    With few samples the plain percentile interval is too narrow, so its percentiles are moved out as far as Student's
    t is wider than the normal distribution: the expanded percentile interval of Hesterberg, "What Teachers Should Know
    About the Bootstrap" (The American Statistician 69, 2015), section 4.
    """
    n = len(values)
    if n < 2:
        return None
    tail = statistics.NormalDist().cdf(-math.sqrt(n / (n - 1)) * t975(n - 1))
    resampled = _resampled(values, statistic)
    low, high = percentile(resampled, 100 * tail), percentile(resampled, 100 * (1 - tail))
    assert low is not None
    assert high is not None
    return low, high


def standard_error(values: Sequence[float], statistic: Callable[[Sequence[float]], float]) -> float | None:
    """Of a statistic by bootstrap: half of what the middle 68.3 % span, so that a wild value at the end has no say.

    `None` of fewer than two. Resampling makes it smaller by (n - 1) / n, which is undone.
    """
    n = len(values)
    if n < 2:
        return None
    resampled = _resampled(values, statistic)
    low, high = percentile(resampled, 15.865), percentile(resampled, 84.135)
    assert low is not None
    assert high is not None
    return (high - low) / 2 * math.sqrt(n / (n - 1))


def _resampled(values: Sequence[float], statistic: Callable[[Sequence[float]], float]) -> list[float]:
    draw = random.Random(0)
    return [statistic(draw.choices(values, k=len(values))) for _ in range(N_RESAMPLES)]


def relative_interval(values: Sequence[float]) -> float | None:
    """Half the width of the mean's 95 % confidence interval, over the mean; `None` of fewer than two values."""
    found, centre = interval(values), mean(values)
    return None if found is None or not centre else (found[1] - found[0]) / 2 / abs(centre)
