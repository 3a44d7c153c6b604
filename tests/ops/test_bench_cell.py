"""When a row has been measured enough, and what of it counts: children made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slmkit.core.artifact import Artifact, Provenance
from slmkit.core.bench import NOISY, OK, BenchRow, BenchSpec, Block, Failure
from slmkit.ops.bench.cell import PAIRS, Cell, Effort

SPEC = BenchSpec(n_prompt=64, n_gen=0, n_threads=1, repetitions=30)
M = Artifact("org/m", "F16", Path("/models"), (), True, Provenance("convert"), "")


def child(state: str = OK, ms: float = 100.0, wobble: float = 0.002) -> Block:
    times = tuple(round(ms * factor * 1e6) for factor in (1 - wobble, 1.0, 1 + wobble))
    return Block(pp_ns=times, state=state, reasons=() if state == OK else ("another program",))


def cell(*blocks: Block, spec: BenchSpec = SPEC, effort: Effort = Effort()) -> Cell:  # noqa: B008
    row = BenchRow(M.ref, "sha256:x", 1 << 20, spec)
    return Cell(M, row, effort, list(blocks))


def test_two_children_that_agree_are_enough() -> None:
    assert not cell().is_enough
    assert not cell(child()).is_enough
    assert cell(child(), child(ms=100.2)).is_enough


def test_two_that_differ_are_not_however_steady_each_is() -> None:
    differing = cell(child(), child(ms=103))
    assert not differing.is_enough
    (warning,) = differing.settled.warnings
    assert "known only to pp64 ± " in warning


def test_repetitions_time_and_failure_are_the_end() -> None:
    wild = (child(), child(ms=150))
    assert cell(*wild, spec=replace(SPEC, repetitions=6)).is_enough
    late = cell(*wild, effort=Effort(max_time_s=10))
    late.spent_s = 8
    assert late.is_enough
    failed = cell(child(NOISY))
    failed.failure = Failure("engine.crashed", "it crashed")
    assert (failed.is_enough, failed.n_again) == (True, 0)


@pytest.mark.parametrize(
    ("states", "n_again"),
    [((OK, OK), 0), ((OK, OK, NOISY), 0), ((NOISY, OK), 1), ((NOISY, NOISY), 2), ((NOISY, NOISY, NOISY), 2)],
)
def test_what_was_disturbed_is_measured_again_and_then_left_out(states: tuple[str, ...], n_again: int) -> None:
    found = cell(*map(child, states))
    assert found.n_again == n_again
    assert (found.row.state == OK) == (n_again == 0)
    found.blocks += [child()] * n_again
    assert (found.n_again, found.row.state) == (0, OK)
    assert len(found.row.counted) == sum(state == OK for state in states) + n_again


def test_what_is_disturbed_again_stays_so_and_counts() -> None:
    found = cell(child(NOISY), child(OK), child(NOISY))
    assert found.row.state == NOISY
    assert len(found.row.counted) == 3


def test_of_one_child_one_is_measured_again() -> None:
    few = replace(SPEC, repetitions=2)
    found = cell(child(NOISY), spec=few)
    assert (found.n_again, found.n_next) == (1, 2)
    found.blocks.append(child())
    assert found.row.state == OK
    assert 0 < cell(*[child(NOISY)] * 4, spec=few).n_next <= 2


def test_of_those_that_are_held_against_each_other_two_are_measured_again_at_most() -> None:
    paired = Effort(least_children=PAIRS, in_step=True)
    assert cell(*[child(NOISY)] * PAIRS, effort=paired).n_again == 2
    assert cell(*[child()] * (PAIRS - 1), child(NOISY), effort=paired).n_again == 1
