"""Which rows of a comparison nothing beats."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.compare import CompareRow, Judged, unbeaten, with_best
from slmkit.core.divergence import Scores
from slmkit.core.stats import Estimate
from tests import measured

MIB = 2**20


def row(
    variant: str, size_mib: int, kld: float | None, tg_s: float | None = None, *, model: str = "org/m"
) -> CompareRow:
    """A file, judged and timed where these are known; a KLD of 0 is the base's."""
    scores = Scores(100, Estimate(20.0, 0.1), kld=Estimate(kld, 0.001) if kld else None)
    quality = None if kld is None else Judged(scores, None if kld == 0 else "good", is_base=kld == 0)
    bench = None if tg_s is None else measured.row(f"{model}:{variant}", tg_s)
    return CompareRow(f"{model}:{variant}", model, variant, size_mib * MIB, None, None, bench, quality=quality)


def best(*rows: CompareRow) -> list[str]:
    return [row.variant for row in with_best(rows) if row.is_best]


def test_what_is_larger_and_worse_is_beaten() -> None:
    rows = (row("F16", 256, 0.0), row("Q8_0", 136, 0.002), row("Q5_1", 99, 0.05), row("Q4_K_M", 90, 0.03))
    assert best(*rows) == ["F16", "Q8_0", "Q4_K_M"]


def test_what_generates_faster_is_not_beaten_by_what_is_closer() -> None:
    rows = (row("Q8_0", 136, 0.002, 2.0), row("Q5_1", 99, 0.05, 1.0), row("Q4_K_M", 90, 0.03, 1.5))
    assert best(*rows) == ["Q8_0", "Q5_1", "Q4_K_M"]
    assert best(*rows, row("Q6_K", 110, 0.06, 1.6)) == ["Q8_0", "Q5_1", "Q4_K_M"]


def test_only_what_is_known_of_all_is_compared() -> None:
    assert best(row("Q8_0", 136, 0.002, 2.0), row("Q5_1", 99, 0.05, 1.5), row("Q4_0", 90, 0.03)) == ["Q8_0", "Q5_1"]
    assert best(row("Q8_0", 136, None, 2.0), row("Q4_0", 77, None, 1.0)) == []
    assert best(row("Q8_0", 136, 0.002)) == []


def test_equals_are_both_best_and_models_are_not_compared() -> None:
    assert best(row("A", 90, 0.03), row("B", 90, 0.03)) == ["A", "B"]
    small = [row("Q8_0", 10, 0.001, model="org/n"), row("Q4_0", 5, 0.02, model="org/n")]
    assert best(row("Q8_0", 136, 0.002), row("Q4_0", 77, 0.08), *small) == ["Q8_0", "Q4_0", "Q8_0", "Q4_0"]


def test_a_broken_file_is_not_best_however_small_it_is() -> None:
    broken = replace(row("Q2_K", 30, 2.0), quality=Judged(None, "broken"))
    assert best(row("Q8_0", 136, 0.002), row("Q4_0", 77, 0.08), broken) == ["Q8_0", "Q4_0"]


costs = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=10)


@given(costs)
def test_the_unbeaten_beat_all_others_and_not_each_other(found: list[tuple[int, int, int]]) -> None:
    def beats(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    marks = unbeaten(found)
    front = [cost for cost, is_best in zip(found, marks, strict=True) if is_best]
    rest = [cost for cost, is_best in zip(found, marks, strict=True) if not is_best]
    assert front
    assert not any(beats(one, other) for one in found for other in front)
    assert all(any(beats(one, other) for one in front) for other in rest)


@given(costs)
def test_the_order_does_not_matter(found: list[tuple[int, int, int]]) -> None:
    shuffled = sorted(found)
    known = dict(zip(found, unbeaten(found), strict=True))
    assert unbeaten(shuffled) == [known[cost] for cost in shuffled]
