"""How much faster or slower one machine is than another, or than itself at another time: without a model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slmkit.core import stats

MEMORY_SHARE = {"pp": 0.0, "ttft": 0.0, "tg": 0.65, "pg": 0.65}
"""Of the time of a token, what waits for memory; the rest computes. Fitted: see "What two runs differ by" in
docs/lab-notes.md."""
READING_SPREAD = 0.02
"""Standard deviation of the logarithm of one reading of a machine's bandwidth beside the next: 15 readings of
`host.peaks` spread by 1.3 to 2.2 %, whatever else the machine did."""
UNLIKE_SPREAD = 0.02
"""The same of how well these two numbers tell the speed of a model on another kind of machine: an estimate."""
FELT_SPREAD = 0.5
"""Standard deviation of how much of it a model feels, before anything is known of the model: from nothing to twice.
For tg of SmolLM2 1.0 was found on one machine and 0.1 to 0.2 on another ("A machine with two speeds" in
docs/lab-notes.md)."""
_SAME: Mapping[str, Callable[[Any], Any]] = {
    "cpu": str,
    "n_cores": str,
    "memory_bytes": lambda size: size and round(size / 2**30),
    "system": lambda name: str(name).partition(" ")[0],
}
"""Of a host, and what of it counts: neither a kernel's update nor what firmware keeps of the memory makes a machine
another one.
"""


def slowness(what: str, machine: Mapping[str, Any]) -> float | None:
    """The logarithm of the time that a fixed piece of `pp`, `tg`, `pg` or `ttft` takes there; only differences of it
    mean something. `machine` is `core.machine.Machine` as a document; `None` when it is empty.
    """
    if not machine:
        return None
    memory = MEMORY_SHARE[what]
    return -memory * math.log(machine["bandwidth_bytes_per_s"]) - (1 - memory) * math.log(machine["flop_per_s"])


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys by which two hosts are different machines."""
    return tuple(key for key, plain in _SAME.items() if plain(one.get(key)) != plain(other.get(key)))


def felt(logs: Sequence[Sequence[float]], slow: Sequence[Sequence[float]], least: float) -> float:
    """How much of the machine's slowness shows in what the children of some runs took (1: all of it, 0: none); 0 to 2.

    `logs` are the logarithms of times, `slow` what `slowness` says of the same children, `least` the spread to be
    expected of them. Least squares inside of each run, so that what one run differs from the next by has no say, beside
    an expectation of 1 ± `FELT_SPREAD`. Wild children are cut to three standard deviations.
    """
    ys = _deviations(logs, least)
    xs = _deviations(slow, 0.0)
    variance = max(least, stats.robust_stdev(ys)) ** 2
    prior, known = 1 / FELT_SPREAD**2, sum(x * x for x in xs) / variance
    share = (prior + sum(x * y for x, y in zip(xs, ys, strict=True)) / variance) / (prior + known)
    return min(max(share, 0.0), 2.0)


def _deviations(runs: Sequence[Sequence[float]], least: float) -> list[float]:
    """From the median of each run, cut to three robust standard deviations."""
    found = [value - statistics.median(run) for run in runs for value in run]
    limit = 3 * max(least, stats.robust_stdev(found)) or math.inf
    return [min(max(value, -limit), limit) for value in found]
