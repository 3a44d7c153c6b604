"""Statistics over raw samples. They are computed when shown, never stored."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


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
