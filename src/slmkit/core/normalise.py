"""How much faster or slower one machine is than another, or than itself at another time: without a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MEMORY_SHARE = {"pp": 0.0, "ttft": 0.0, "tg": 0.65, "pg": 0.65}
"""Of the time of a token, what waits for memory; the rest computes. Fitted: see "What two runs differ by" in
docs/lab-notes.md."""
READING_SPREAD = 0.02
"""Standard deviation of the logarithm of one reading of a machine's bandwidth beside the next: 15 readings of
`host.peaks` spread by 1.3 to 2.2 %, whatever else the machine did."""
UNLIKE_SPREAD = 0.02
"""The same of how well these two numbers tell the speed of a model on another kind of machine: an estimate."""
_SAME = ("cpu", "n_cores", "memory_bytes", "system")


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
    return tuple(key for key in _SAME if one.get(key) != other.get(key))
