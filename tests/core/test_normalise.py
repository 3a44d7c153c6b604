"""How much of the machine's own speed a model feels."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from slmkit.core.normalise import felt

LEAST = 0.01


def runs(
    share: float, *, spread: float = 0.05, noise: float = 0.01, seed: int = 1
) -> tuple[list[list[float]], list[list[float]]]:
    """Two runs of 20 children: the logarithms of their times, and of the machine's slowness beside each. The second run
    is much slower by itself, on a machine that is a little faster.
    """
    draw = random.Random(seed)
    slow = [[at + draw.gauss(0, spread) for _ in range(20)] for at in (0.0, -0.1)]
    logs = [[at + share * s + draw.gauss(0, noise) for s in run] for at, run in zip((0.0, 0.4), slow, strict=True)]
    return logs, slow


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 1.5])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_found_in_the_children_and_not_in_what_the_runs_differ_by(share: float, seed: int) -> None:
    assert felt(*runs(share, seed=seed), LEAST) == pytest.approx(share, abs=0.15)


def test_a_machine_that_did_not_change_is_felt_as_expected() -> None:
    assert felt(*runs(0.3, spread=0.0), LEAST) == 1.0
    assert felt([[0.1]], [[5.0]], LEAST) == 1.0


def test_little_is_learned_of_a_little() -> None:
    found = [felt(*runs(0.0, spread=spread), LEAST) for spread in (0.001, 0.005, 0.05)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1.0, abs=0.1)


def test_a_wild_child_has_little_say() -> None:
    logs, slow = runs(0.5)

    def with_a_wild_one(values: Sequence[float], by: float) -> list[float]:
        return [values[0] + by, *values[1:]]

    wild = felt([with_a_wild_one(logs[0], 3.0), logs[1]], [with_a_wild_one(slow[0], 0.05), slow[1]], LEAST)
    assert wild == pytest.approx(0.5, abs=0.15)


def test_it_is_never_less_than_nothing() -> None:
    assert felt(*runs(-3.0), LEAST) == 0.0
    assert felt(*runs(5.0), LEAST) == 2.0
