from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core import stats

values = st.lists(st.floats(1, 1000), min_size=2, max_size=30)


@given(values)
def test_an_interval_holds_the_mean_and_is_the_same_each_time(found: list[float]) -> None:
    interval = stats.interval(found)
    assert interval == stats.interval(found)
    assert interval is not None
    low, high = interval
    assert min(found) * (1 - 1e-9) <= low <= high <= max(found) * (1 + 1e-9)
    assert low <= statistics.fmean(found) * (1 + 1e-9)
    assert high >= statistics.fmean(found) * (1 - 1e-9)


@given(values, st.floats(0, 100))
def test_percentiles_are_numpys(found: list[float], q: float) -> None:
    assert stats.percentile(found, q) == pytest.approx(float(np.percentile(found, q)))


@pytest.mark.parametrize(("n", "least"), [(4, 0.8), (6, 0.88), (10, 0.9), (20, 0.9)])
def test_an_interval_of_95_percent_holds_the_truth_about_95_times_in_a_hundred(n: int, least: float) -> None:
    """Of four values less often: no resampled mean lies beyond them."""
    draw = random.Random(n)
    held = 0
    for _ in range(200):
        found = stats.interval([draw.gauss(100, 5) for _ in range(n)])
        assert found is not None
        held += found[0] <= 100 <= found[1]
    assert least <= held / 200 <= 1.0


def test_few_values_have_none() -> None:
    assert stats.interval([1.0]) is None
    assert stats.relative_interval([]) is None
    assert stats.mad([]) is None
    assert stats.percentile([], 50) is None
    assert stats.mad([1, 2, 3, 100]) == 1
