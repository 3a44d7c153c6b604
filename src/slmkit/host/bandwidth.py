"""How fast this machine reads memory: what limits the generation of tokens."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import numpy as np

from slmkit.host.passes import at_the_same_time, each_thread, granted_share

BUFFER_BYTES = 256 * 1024 * 1024
"""More than the caches of most CPUs hold; a large server's may hold it, and make the memory look faster."""
CHUNK_BYTES = 4 * 1024 * 1024
"""Of one pass: a fraction of a millisecond, much less than the time slice of another program."""


def read_bytes_per_s(n_threads: int, seconds: float = 0.25) -> float:
    """Measured: each thread sums its own large array for about `seconds`, chunk by chunk, all at the same time.

    The sum of the threads' rates, each by its median chunk: the best one was read while others paused.
    """
    n_threads = at_the_same_time(n_threads)
    n_bytes = BUFFER_BYTES // n_threads

    def prepare(_: int) -> Callable[[], object]:
        part = np.ones(n_bytes // 8)
        size = CHUNK_BYTES // part.itemsize
        chunks = itertools.cycle([part[at : at + size] for at in range(0, max(1, part.size - size + 1), size)])
        return lambda: np.add.reduce(next(chunks))

    passes = each_thread(prepare, n_threads, seconds)
    rates = (min(n_bytes, CHUNK_BYTES) / statistics.median(times) * 1e9 for times in passes)
    return sum(rates) * granted_share(n_threads)
