"""The guess of a KLD by bits per weight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.expected_kld import LLAMA_3_8B, N_PARAMS, expected_kld

BITS = st.floats(1, 20)


def test_of_the_model_that_it_is_from_it_says_what_was_measured() -> None:
    for bpw, kld in LLAMA_3_8B:
        assert expected_kld(bpw, int(N_PARAMS)) == pytest.approx(kld)


def test_it_goes_through_what_was_measured_of_the_model_itself() -> None:
    measured = [(8.5, 0.004), (4.9, 0.2)]
    assert expected_kld(4.9, 135_000_000, measured) == pytest.approx(0.2)
    assert expected_kld(8.5, 135_000_000, measured) == pytest.approx(0.004)
    assert 0.2 < expected_kld(4.5, 135_000_000, measured) < 0.6


def test_float_files_lose_nothing_and_teach_nothing() -> None:
    assert expected_kld(16.0, 135_000_000) == 0.0
    assert expected_kld(5, 1, [(16.0, 0.1), (8, 0.0)]) == expected_kld(5, 1)


@given(BITS, BITS, st.integers(10**6, 10**11), st.lists(st.tuples(st.floats(1, 9), st.floats(1e-5, 3)), max_size=1))
def test_more_bits_never_lose_more(one: float, two: float, n_params: int, measured: list[tuple[float, float]]) -> None:
    fewer, more = sorted((one, two))
    assert expected_kld(more, n_params, measured) <= expected_kld(fewer, n_params, measured)
