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
    """Measured: each thread sums its part of a large array for about `seconds`, chunk by chunk, all at the same time.

    The sum of the threads' rates, each by its median chunk: the best one was read while others paused.
    """
    n_threads = at_the_same_time(n_threads)
    array = np.ones(BUFFER_BYTES // 8)
    parts = np.array_split(array, n_threads)

    def prepare(thread: int) -> Callable[[], object]:
        part = parts[thread]
        size = CHUNK_BYTES // part.itemsize
        chunks = itertools.cycle([part[at : at + size] for at in range(0, max(1, part.size - size + 1), size)])
        return lambda: np.add.reduce(next(chunks))

    passes = each_thread(prepare, n_threads, seconds)
    sizes = [min(part.nbytes, CHUNK_BYTES) for part in parts]
    rates = (size / statistics.median(times) * 1e9 for size, times in zip(sizes, passes, strict=True))
    return sum(rates) * granted_share(n_threads)
