"""How fast this machine reads memory: what limits the generation of tokens."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

BUFFER_BYTES = 256 * 1024 * 1024
"""More than the caches of most CPUs hold; a large server's may hold it, and make the memory look faster."""


def read_bytes_per_s(n_threads: int, seconds: float = 0.25) -> float:
    """Measured: each thread sums its part of a large array again and again for about `seconds`; the best pass counts.

    numpy lets go of Python's lock meanwhile, so the threads read at the same time.
    """
    array = np.ones(BUFFER_BYTES // 8)
    parts = np.array_split(array, n_threads)
    best, end = float("inf"), time.perf_counter() + seconds
    with ThreadPoolExecutor(n_threads) as pool:
        while True:
            begun = time.perf_counter()
            list(pool.map(np.add.reduce, parts))
            now = time.perf_counter()
            best = min(best, now - begun)
            if now >= end:
                return BUFFER_BYTES / best
