"""The same short piece of work again and again in several threads, each pass timed by itself.

Threads that wait for each other run at the speed of the one that another program pushed off its core: with a busy loop
beside two of them a common pass took twice as long, in the best case too. Short passes of single threads mostly run
between two such pushes, and their best or median stays where it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from slmkit.host import cgroups

LEAST_PASSES = 5


def at_the_same_time(n_threads: int) -> int:
    """How many of so many threads this process can run at once: more than cores take turns, and their rates do not add
    up.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(n_threads, allowed)


def granted_share(n_threads: int) -> float:
    """What a container's quota leaves of so many cores, up to 1; a short pass does not feel it."""
    quota = cgroups.cpu_quota_cores()
    return 1.0 if quota is None else min(1.0, quota / n_threads)


def each_thread(prepare: Callable[[int], Callable[[], object]], n_threads: int, seconds: float) -> list[list[int]]:
    """Nanoseconds of each pass in each thread, for about `seconds`; `prepare` gives the work of the thread with that
    number. The work must let go of Python's lock, as numpy's does.
    """

    def run(work: Callable[[], object]) -> list[int]:
        passes = []
        while True:
            begun = time.perf_counter_ns()
            work()
            now = time.perf_counter_ns()
            passes.append(now - begun)
            if now >= end and len(passes) >= LEAST_PASSES:
                return passes

    with ThreadPoolExecutor(n_threads) as pool:
        works = list(pool.map(prepare, range(n_threads)))
        end = time.perf_counter_ns() + round(seconds * 1e9)
        return list(pool.map(run, works))
