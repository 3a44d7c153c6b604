"""A machine with more than one speed, as its memory's bandwidth tells."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.bench import BenchRow, BenchSpec, Block
from slmkit.core.levels import FEW, STEP, alike, level, levels

NEAR, FAR = 36e9, 64e9


def row(*readings: float | tuple[float, float]) -> BenchRow:
    """A child for each: what was read before it, or before and after."""
    blocks = []
    for one in readings:
        both = one if isinstance(one, tuple) else (one,)
        seen = dict(zip(("machine", "machine_after"), ({"bandwidth_bytes_per_s": r} for r in both), strict=False))
        blocks.append(Block(pp_ns=(1,), seen=seen))
    return BenchRow("org/m:Q4_0", "sha256:x", 1, BenchSpec(), tuple(blocks))


def counted(pair: tuple[BenchRow, BenchRow] | None) -> Any:
    return pair and tuple([block.counted for block in one.blocks] for one in pair)


def test_readings_that_drift_are_one_level() -> None:
    drifting = [NEAR * 1.1**k for k in range(10)]
    (found,) = levels([row(*drifting)])
    assert found == pytest.approx(NEAR * 1.1**4.5)
    assert alike(row(*drifting[:5]), row(*drifting[5:])) == (row(*drifting[:5]), row(*drifting[5:]))


def test_children_of_the_level_that_both_have_are_held_against_each_other() -> None:
    old = row(NEAR, NEAR, NEAR, FAR, FAR, FAR, FAR)
    new = row(FAR, FAR, FAR * 1.05, NEAR)
    assert levels([old, new]) == pytest.approx((NEAR, FAR), rel=0.02)
    assert counted(alike(old, new)) == ([False] * 3 + [True] * 4, [True] * 3 + [False])


def test_a_child_during_which_it_changed_is_of_no_level() -> None:
    old = row((NEAR, NEAR), (NEAR, NEAR), (NEAR, NEAR), (NEAR, FAR))
    new = row((FAR, NEAR), (NEAR, NEAR), (NEAR, NEAR), (NEAR, NEAR))
    assert level(old.blocks[3], (NEAR, FAR)) is None
    assert counted(alike(old, new)) == ([True] * 3 + [False], [False] + [True] * 3)


def test_few_are_none() -> None:
    assert alike(row(*[NEAR] * 5), row(*[FAR] * 5)) is None
    assert alike(row(*[NEAR] * 9, *[FAR] * (FEW - 1)), row(*[FAR] * 5)) is None


def test_unknown_is_left_as_it_is() -> None:
    unknown = BenchRow("org/m:Q4_0", "sha256:x", 1, BenchSpec(), (Block(pp_ns=(1,)),))
    assert levels([row(NEAR, FAR), unknown]) == ()
    assert alike(row(NEAR, FAR), unknown) == (row(NEAR, FAR), unknown)
    assert levels([]) == ()


@given(st.lists(st.floats(1e9, 1e12), min_size=1, max_size=30))
def test_every_reading_is_of_the_level_around_it(readings: list[float]) -> None:
    known = levels([row(*readings)])
    assert list(known) == sorted(known)
    ordered = sorted(readings)
    assert len(known) == 1 + sum(high > STEP * low for low, high in pairwise(ordered))
    assert all(level(block, known) in known for block in row(*readings).blocks)
