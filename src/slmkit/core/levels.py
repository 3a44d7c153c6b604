"""Which children ran while the machine had one and the same speed, as its memory tells that was read beside them.

A virtual machine's cores may be moved between two of the host's core complexes at any time: two cores that share a
cache are quicker to wait for each other, two that do not read more memory. That is a step of 15 % in a prompt's speed
and of 80 % in bandwidth ("A machine with two speeds" in docs/lab-notes.md), and no slow-down of a model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from slmkit.core.bench import BenchRow, Block

STEP = 1.3
"""Readings of which none lies between are of two speeds when one is so many times the other. Those of one speed spread
by a few percent, and where they drift, there are some in between."""
APART = math.log(1.2)
"""What the speeds of one machine may differ by in a model's rate, as half an interval of logarithms: 15 % were seen."""
FEW = 2
"""Children of either side below which nothing is said of a speed."""


def levels(rows: Sequence[BenchRow]) -> tuple[float, ...]:
    """The memory's bandwidths, in bytes per second, that are far from each other; none where they were not read beside
    every child that counts, or not with as many threads: what two read is no measure of one.
    """
    blocks = [block for row in rows for block in row.counted]
    n_threads = {machine.get("n_threads") for block in blocks for machine in block.machines}
    if len(n_threads) != 1 or not all(block.machines for block in blocks):
        return ()
    ordered = sorted(reading for block in blocks for reading in _readings(block))
    starts = [0, *(at for at, (low, high) in enumerate(pairwise(ordered), start=1) if high > STEP * low)]
    ends = [*starts[1:], len(ordered)]
    return tuple(math.exp(sum(map(math.log, ordered[a:b])) / (b - a)) for a, b in zip(starts, ends, strict=True))


def level(block: Block, known: Sequence[float]) -> float | None:
    """That of `known` at which the machine was before and after a child; `None` where it changed meanwhile."""
    found = {min(known, key=lambda one: abs(math.log(one / reading))) for reading in _readings(block)}
    return found.pop() if len(found) == 1 else None


def told(known: Sequence[float]) -> str:
    """`2 speeds (11 and 20 GB/s of memory)`."""
    return f"{len(known)} speeds ({' and '.join(f'{bandwidth / 1e9:.3g}' for bandwidth in known)} GB/s of memory)"


def alike(old: BenchRow, new: BenchRow) -> tuple[BenchRow, BenchRow] | None:
    """Both with only the children of one level, the one of which both have most; `None` where they have none in common.

    As they are where there is one level, or none is known.
    """
    known = levels((old, new))
    if len(known) < 2:
        return old, new
    counts = [Counter(level(block, known) for block in row.counted) for row in (old, new)]
    best = max(known, key=lambda one: min(count[one] for count in counts))
    if min(count[best] for count in counts) < FEW:
        return None
    before, after = (
        replace(row, blocks=tuple(replace(b, counted=b.counted and level(b, known) == best) for b in row.blocks))
        for row in (old, new)
    )
    return before, after


def _readings(block: Block) -> tuple[float, ...]:
    """Before and after a child."""
    return tuple(machine["bandwidth_bytes_per_s"] for machine in block.machines)
