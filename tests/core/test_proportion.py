"""Wilson's interval and McNemar's exact test, against values that are published or easy to work out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.proportion import Paired, Proportion


@pytest.mark.parametrize(
    ("n_yes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_those_of_newcombe(n_yes: int, n: int, low: float, high: float) -> None:
    """R. G. Newcombe, "Two-sided confidence intervals for the single proportion" (Statistics in Medicine 17, 1998),
    table I, method 3.
    """
    found = Proportion(n_yes, n).interval
    assert found == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_its_share_and_is_that_of_no_turned_round(n_yes: int, n_no: int) -> None:
    yes, no = Proportion(n_yes, n_yes + n_no), Proportion(n_no, n_yes + n_no)
    if yes.share is None:
        assert (yes.interval, yes.n) == (None, 0)
        return
    assert yes.interval is not None
    assert no.interval is not None
    low, high = yes.interval
    assert 0 <= low <= yes.share <= high <= 1
    assert no.interval == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 2 / 32),
        (1, 9, 2 * (1 + 10) / 1024),
        (9, 1, 2 * (1 + 10) / 1024),
        (3, 8, 2 * (1 + 11 + 55 + 165) / 2048),
    ],
)
def test_the_exact_test_counts_tosses_of_a_coin(first: int, second: int, p: float) -> None:
    paired = Paired(40, first, second, 7)
    assert paired.p_value == pytest.approx(p, rel=1e-15)
    assert paired.difference == (second - first) / (47 + first + second)


def test_many_pairs_do_not_overflow() -> None:
    assert 0 < Paired(0, 2000, 2100, 0).p_value < 1
    assert Paired(0, 0, 0, 0).difference is None
