"""The allocation is the best there is, by trying all."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.core.target import Option
from slmkit.ops.target.allocate import allocate

OPTIONS = st.lists(
    st.builds(Option, st.just("T"), st.integers(1, 40).map(lambda n: 16 * n), st.floats(0, 100, allow_subnormal=False)),
    min_size=1,
    max_size=5,
)
TENSORS = st.lists(OPTIONS, min_size=1, max_size=6)


@given(TENSORS, st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_no_other_allocation_that_fits_has_less_error(tensors: list[list[Option]], share: float) -> None:
    least = sum(min(o.size_bytes for o in options) for options in tensors)
    most = sum(max(o.size_bytes for o in options) for options in tensors)
    budget = least + int(share * (most - least))
    every = itertools.product(*tensors)
    best = min(sum(o.error for o in picks) for picks in every if sum(o.size_bytes for o in picks) <= budget)
    found = allocate(tensors, budget)
    picked = [options[i] for options, i in zip(tensors, found.chosen, strict=True)]
    assert found.size_bytes == sum(o.size_bytes for o in picked) <= budget
    assert found.error == pytest.approx(sum(o.error for o in picked))
    assert found.error == pytest.approx(best, rel=1e-9, abs=1e-9)
    assert found.bound <= best + 1e-6 * (1 + abs(best))


def test_three_hundred_tensors_come_within_a_thousandth_of_the_bound() -> None:
    """As large as a real model: no bound of time, but none of the search's limits may cost more than this."""
    kinds = {"Q2_K": 2.625, "Q3_K": 3.4375, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625, "Q8_0": 8.5, "F16": 16.0}
    tensors = [
        [Option(kind, int(bpw * n_weights / 8), (1 + number % 7) * 4.0**-bpw) for kind, bpw in kinds.items()]
        for number, n_weights in enumerate(
            itertools.islice(itertools.cycle((4096 * 256, 4096 * 1024, 2048 * 256)), 300)
        )
    ]
    budget = int(4.3 / 8 * sum(options[-1].size_bytes / 2 for options in tensors))
    found = allocate(tensors, budget)
    assert 0.9999 * budget <= found.size_bytes <= budget
    assert found.bound <= found.error <= 1.001 * found.bound


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing fits"):
        allocate([[Option("Q4_0", 100, 1.0)]], 99)
