"""Which type for which tensor: the least sum of errors whose bytes fit, a multiple-choice knapsack.

Greedy first: the steps on the lower convex hull of each tensor's (bytes, error), those that save most error for a byte
before the others. The slope at which the budget ends is the Lagrangian's price of a byte; it gives a bound below which
no allocation can come. Then the exact search: partial allocations, tensor by tensor, without those that another one
beats in bytes and error and those whose bound is above what greedy has found. What is left of them is so few
that the search ends with the optimum; where it is not, the best of those kept is taken.
Shoham, Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Trans. ASSP 36 (1988);
Kellerer, Pferschy, Pisinger, "Knapsack Problems" (2004), chapter 11.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slmkit.core.target import Option

_STATES = 4096
"""Partial allocations that are kept after each tensor: 210 tensors of 8 types take about a second."""


@dataclass(frozen=True)
class Allocation:
    """One option for each tensor, by number. No allocation in the budget has an error below `bound`."""

    chosen: tuple[int, ...]
    size_bytes: int
    error: float
    bound: float


def allocate(tensors: Sequence[Sequence[Option]], budget_bytes: int) -> Allocation:
    """The options with the least sum of errors whose bytes are `budget_bytes` at most; raises `ValueError` when the
    smallest ones are too large already.
    """
    if sum(min(o.size_bytes for o in options) for options in tensors) > budget_bytes:
        raise ValueError(f"nothing fits into {budget_bytes} bytes")
    greedy, price = _greedy(tensors, budget_bytes)
    bound = sum(min(o.error + price * o.size_bytes for o in options) for options in tensors) - price * budget_bytes
    error = _error(tensors, greedy)
    found = _search(tensors, budget_bytes, price, error)
    chosen = found if found and _error(tensors, found) < error else greedy
    size_bytes = sum(options[i].size_bytes for options, i in zip(tensors, chosen, strict=True))
    return Allocation(chosen, size_bytes, _error(tensors, chosen), bound)


def _error(tensors: Sequence[Sequence[Option]], chosen: Sequence[int]) -> float:
    return sum(options[i].error for options, i in zip(tensors, chosen, strict=True))


def _greedy(tensors: Sequence[Sequence[Option]], budget_bytes: int) -> tuple[tuple[int, ...], float]:
    """The allocation, and the error that a byte more would save where the budget ended (0: everything fits)."""
    chosen, steps = [], []
    for number, options in enumerate(tensors):
        hull = _hull(options)
        chosen.append(hull[0])
        for before, after in itertools.pairwise(hull):
            n_bytes = options[after].size_bytes - options[before].size_bytes
            steps.append(((options[before].error - options[after].error) / n_bytes, number, before, after, n_bytes))
    left = budget_bytes - sum(options[i].size_bytes for options, i in zip(tensors, chosen, strict=True))
    price = 0.0
    for slope, number, before, after, n_bytes in sorted(steps, key=lambda step: -step[0]):
        if n_bytes > left:
            price = price or slope
        elif chosen[number] == before:
            chosen[number] = after
            left -= n_bytes
    return tuple(chosen), price


def _hull(options: Sequence[Option]) -> list[int]:
    """The options on the lower convex hull of (bytes, error), from the smallest to the one with the least error."""
    hull: list[int] = []
    for i in sorted(range(len(options)), key=lambda i: (options[i].size_bytes, options[i].error)):
        if hull and options[i].error >= options[hull[-1]].error:
            continue
        while len(hull) > 1 and _slope(options, hull[-2], hull[-1]) <= _slope(options, hull[-2], i):
            hull.pop()
        hull.append(i)
    return hull


def _slope(options: Sequence[Option], before: int, after: int) -> float:
    saved = options[before].error - options[after].error
    return saved / (options[after].size_bytes - options[before].size_bytes)


def _search(
    tensors: Sequence[Sequence[Option]], budget_bytes: int, price: float, limit: float
) -> tuple[int, ...] | None:
    """The best allocation with an error of `limit` at most."""
    least_bytes = _suffix_sums([min(o.size_bytes for o in options) for options in tensors])
    least_cost = _suffix_sums([min(o.error + price * o.size_bytes for o in options) for options in tensors])
    limit += 1e-9 * abs(limit)  # sums in another order differ in the last digits
    sizes, errors = np.zeros(1, np.int64), np.zeros(1)
    history: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for number, options in enumerate(tensors):
        every_size = np.add.outer(sizes, np.array([o.size_bytes for o in options], np.int64)).ravel()
        every_error = np.add.outer(errors, np.array([o.error for o in options])).ravel()
        bounds = every_error + least_cost[number + 1] - price * (budget_bytes - every_size)
        kept = np.flatnonzero((every_size + least_bytes[number + 1] <= budget_bytes) & (bounds <= limit))
        kept = kept[np.lexsort((every_error[kept], every_size[kept]))]
        before = np.minimum.accumulate(np.concatenate(([np.inf], every_error[kept])))[:-1]
        kept = kept[every_error[kept] < before]
        if len(kept) > _STATES:
            kept = kept[np.sort(np.argpartition(bounds[kept], _STATES)[:_STATES])]
        if not len(kept):
            return None
        history.append((kept // len(options), kept % len(options)))
        sizes, errors = every_size[kept], every_error[kept]
    at, chosen = len(errors) - 1, []  # of what no other one beats, the largest has the least error
    for parents, picks in reversed(history):
        chosen.append(int(picks[at]))
        at = int(parents[at])
    return tuple(reversed(chosen))


def _suffix_sums(values: Sequence[float]) -> list[float]:
    sums = [0.0]
    for value in reversed(values):
        sums.append(sums[-1] + value)
    return sums[::-1]
