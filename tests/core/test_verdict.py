"""Differences of measurements: symmetric, in plain words, and never more than the samples carry."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.core.bench import BenchRow, BenchSpec, Block, Failure, Memory
from slmkit.core.verdict import MEASURES, blocks, compare_rows, unpaired

SPEC = BenchSpec(n_prompt=100, n_gen=10, n_threads=2)
SECOND = 1_000_000_000


def row(
    pp_s: Sequence[float], *, peak_rss: int | None = None, size_bytes: int = 1000, within: float = 0.003
) -> BenchRow:
    """A model whose children had these times; the samples of each spread by `within`."""
    children = tuple(
        Block(
            pp_ns=tuple(round(seconds * SECOND * f) for f in (1, 1 + within, 1 - within)),
            memory=None if peak_rss is None else Memory(0, peak_rss, None, None),
        )
        for seconds in pp_s
    )
    return BenchRow("org/m:Q4_0", "sha256:x", size_bytes, SPEC, children)


def noisy(seed: int, n: int, factor: float = 1.0, spread: float = 0.01) -> BenchRow:
    draw = random.Random(seed)
    return row([factor * draw.gauss(1, spread) for _ in range(n)])


def of_pp(a: BenchRow, b: BenchRow) -> str:
    return next(found.text for found in compare_rows(a, b) if found.what == "pp")


# ------------------------------------------------------------------ words


def test_the_words() -> None:
    steady = row([1.0] * 6)
    assert of_pp(row([1.08] * 6), steady) == "8.0 % ± 0.4 % slower"
    assert of_pp(steady, row([1.08] * 6)) == "8.0 % ± 0.4 % faster"
    assert of_pp(row([2.5] * 6), steady) == "2.50 ± 0.01 times slower"
    assert of_pp(row([1.001] * 6), steady) == "no measurable difference (± 0.4 %)"


def test_few_pairs_are_named_and_wide() -> None:
    assert of_pp(row([1.08]), row([1.0])) == "8.0 % ± 3.3 % slower (1 pair)"
    assert of_pp(row([1.02, 1.02]), row([1.0, 1.0])).endswith("(2 pairs)")
    assert "no measurable" in of_pp(row([1.02]), row([1.0]))


def test_bytes_are_shares_of_the_other() -> None:
    found = {d.what: d for d in compare_rows(row([1.0], peak_rss=900, size_bytes=250), row([1.0], peak_rss=1000))}
    assert found["size"].text == "75.0 % smaller"
    assert found["size"].ratio == found["size"].low == pytest.approx(0.25)
    assert found["rss"].text == "10.0 % ± 1.1 % less (1 pair)"
    assert {d.what: d.text for d in compare_rows(row([1.0]), row([1.0]))}["size"] == "the same size"


def test_only_what_both_have_is_compared() -> None:
    failed = BenchRow("org/m:Q8_0", "sha256:y", 1000, SPEC, failure=Failure("engine.crashed", "it crashed"))
    assert compare_rows(failed, row([1.0])) == ()
    assert [d.what for d in compare_rows(row([1.0]), row([1.0]))] == ["pp", "size"]
    assert blocks(failed, "pp").logs == ()


def test_blocks_that_do_not_count_have_no_say() -> None:
    one = row([1.0, 9.0, 1.0, 1.0])
    quiet = BenchRow(
        one.ref, one.digest, one.size_bytes, SPEC,
        tuple(Block(pp_ns=b.pp_ns, counted=b.pp_ns[0] < 2 * SECOND) for b in one.blocks),
    )  # fmt: skip
    assert len(blocks(quiet, "pp").logs) == 3
    assert of_pp(quiet, row([1.0] * 3)).startswith("no measurable")


# ------------------------------------------------------------------ properties

times = st.lists(st.floats(0.01, 10, allow_nan=False), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None)
@given(one=times, other=times)
def test_swapping_the_two_turns_it_round(one: list[float], other: list[float]) -> None:
    there, back = compare_rows(row(one), row(other)), compare_rows(row(other), row(one))
    for a, b in zip(there, back, strict=True):
        assert a.ratio == pytest.approx(1 / b.ratio)
        assert a.measurable == b.measurable
        if a.what == "pp":
            assert a.text.replace("faster", "slower") == b.text.replace("faster", "slower")
            assert a.low <= a.ratio <= a.high
            assert a.measurable == (not a.low <= 1 <= a.high)


@settings(max_examples=30, deadline=None)
@given(one=times, other=times, scale=st.floats(0.1, 10))
def test_a_unit_of_time_does_not_matter(one: list[float], other: list[float], scale: float) -> None:
    before = compare_rows(row(one), row(other))[0]
    after = compare_rows(row([t * scale for t in one]), row([t * scale for t in other]))[0]
    assert after.ratio == pytest.approx(before.ratio, rel=1e-4)
    assert after.high == pytest.approx(before.high, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(one=times)
def test_a_row_beside_itself_is_no_different(one: list[float]) -> None:
    assert not any(found.measurable for found in compare_rows(row(one, peak_rss=7), row(one, peak_rss=7)))


def test_what_drifts_for_both_cancels_in_pairs() -> None:
    drift = [1.0, 1.1, 1.3, 1.2, 1.05, 1.4]
    assert of_pp(row([1.05 * d for d in drift]), row(drift)) == "5.0 % ± 0.4 % slower"


def test_a_child_that_does_not_count_shifts_no_pair() -> None:
    """The machine is twice as slow from the fourth round on; in the second something disturbed only one of them."""
    drift = [1.0] * 3 + [2.0] * 3
    a, b = row([1.05 * d for d in drift]), row(drift)
    disturbed = [replace(block, counted=number != 1) for number, block in enumerate(a.blocks)]
    assert of_pp(replace(a, blocks=tuple(disturbed)), b) == "5.0 % ± 0.5 % slower"


def test_rounds_in_which_the_machine_changed_its_speed_have_no_say() -> None:
    """A prompt takes 15 % longer at the one; in rounds 3 and 6 it changed after the first of the two was measured."""
    near, far = {"bandwidth_bytes_per_s": 3.6e10}, {"bandwidth_bytes_per_s": 6.4e10}
    rounds = [(near, near)] * 2 + [(near, far)] + [(far, far)] * 2 + [(far, near)] + [(near, near)]

    def moved(times: Sequence[float]) -> BenchRow:
        whole = row(times)
        seen = [{"machine": before, "machine_after": after} for before, after in rounds]
        return replace(whole, blocks=tuple(replace(b, seen=seen) for b, seen in zip(whole.blocks, seen, strict=True)))

    a = moved([1.03, 1.03, 1.03, 1.19, 1.19, 1.19, 1.03])
    b = moved([1.0, 1.0, 1.155, 1.155, 1.155, 1.0, 1.0])
    assert of_pp(a, b) == "3.0 % ± 0.5 % slower"


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10])
def test_a_difference_that_is_not_there_is_seldom_claimed(n: int) -> None:
    """Children of one model, drawn with 1 % of spread beyond what their samples show: at most 1 in 20 may look
    different (1 in 8 where the spread among children cannot be known).
    """
    claims = sum(compare_rows(noisy(seed, n), noisy(seed + 1000, n))[0].measurable for seed in range(120))
    assert claims <= (15 if n < 3 else 8)


def test_a_difference_that_is_there_is_found() -> None:
    found = [compare_rows(noisy(seed, 6, 1.05), noisy(seed + 1000, 6))[0] for seed in range(60)]
    assert sum(d.measurable for d in found) >= 57
    assert sum(d.low <= 1 / 1.05 <= d.high for d in found) >= 55


def test_runs_are_never_equal_for_certain() -> None:
    """However many children agree: the next run differs, and the floor says so."""
    for what in MEASURES:
        if what == "pp":
            many = blocks(row([1.0] * 200, within=0.0), what)
            assert unpaired(many, many).half > 0.01


def test_one_wild_child_has_no_say() -> None:
    calm, wild = row([1.0] * 8), row([1.0] * 7 + [30.0])
    assert of_pp(wild, calm).startswith("no measurable")
    assert unpaired(blocks(wild, "pp"), blocks(calm, "pp")).log == pytest.approx(0)
