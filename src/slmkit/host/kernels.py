"""The child of `peaks`: measures with numpy, writes JSON to its stdout. Not for people.

BLAS must run on one thread here (its libraries read that from the environment when they are loaded): the threads are
ours, and none waits for another.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import numpy as np

from slmkit.host import bandwidth
from slmkit.host.passes import at_the_same_time, each_thread, granted_share

SECONDS = 0.25
"""For each of the three."""
MATRIX = 512
"""Rows and columns: three such matrices of float32 stay in the second level cache, and one product takes about 1 ms."""
ROWS, COLUMNS, BLOCK = 1024, 1024, 32
"""Of the kernel's matrix; weights of a block share a scale, as in Q4_0."""


def flop_per_s(n_threads: int, seconds: float = SECONDS) -> float:
    """Of multiplying float32 matrices, each thread its own: the sum of each thread's best pass (what disturbs can
    only make a pass longer). A multiplication and an addition are two operations.
    """
    n_threads = at_the_same_time(n_threads)
    passes = each_thread(_product, n_threads, seconds)
    return sum(2 * MATRIX**3 / min(times) * 1e9 for times in passes) * granted_share(n_threads)


def kernel_ns(seconds: float = SECONDS) -> int:
    """The best pass of one thread: unpack a matrix of 4-bit weights, scale its blocks, multiply it by a vector."""
    return min(each_thread(_token, 1, seconds)[0])


def _product(thread: int) -> Callable[[], object]:
    random = np.random.default_rng(thread)
    left, right = random.random((2, MATRIX, MATRIX), dtype=np.float32)
    out = np.empty_like(left)
    return lambda: np.matmul(left, right, out=out)


def _token(thread: int) -> Callable[[], object]:
    random = np.random.default_rng(thread)
    packed = random.integers(0, 256, (ROWS, COLUMNS // 2), dtype=np.uint8)
    scales = random.random((ROWS, COLUMNS // BLOCK, 1), dtype=np.float32)
    vector = random.random(COLUMNS, dtype=np.float32)
    weights = np.empty((ROWS, 2, COLUMNS // 2), np.float32)

    def work() -> object:
        weights[:, 0] = packed & 15
        weights[:, 1] = packed >> 4
        weights.__isub__(8)
        blocks = weights.reshape(ROWS, COLUMNS // BLOCK, BLOCK)
        np.multiply(blocks, scales, out=blocks)
        return weights.reshape(ROWS, COLUMNS) @ vector

    return work


def main() -> None:
    """Measure with as many threads as the first argument says."""
    n_threads = int(sys.argv[1])
    measured = {
        "n_threads": n_threads,
        "bandwidth_bytes_per_s": bandwidth.read_bytes_per_s(n_threads, SECONDS),
        "flop_per_s": flop_per_s(n_threads),
        "kernel_ns": kernel_ns(),
    }
    json.dump(measured, sys.stdout)


if __name__ == "__main__":
    main()
