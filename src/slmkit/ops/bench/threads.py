"""How many threads are fastest here: each number is tried, in turns."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from slmkit.backends.llamacpp import child
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchSpec
from slmkit.core.progress import Progress
from slmkit.host import probe
from slmkit.ops.bench.block import measure
from slmkit.ops.corpora import corpus

N_GEN = 32
N_ROUNDS = 2
WORTH_IT = 0.02
"""A larger number must be faster by this share: more threads take more power, and less is left for others."""


@dataclass(frozen=True)
class Threads:
    """The best number and generated tokens per second of each that was tried; `default` is one for each core."""

    best: int
    default: int
    rates: Mapping[int, float]

    @property
    def gain(self) -> float:
        """How much faster the best is than the default: 0.12 is 12 %."""
        return self.rates[self.best] / self.rates[self.default] - 1


def fastest(artifact: Artifact, spec: BenchSpec, progress: Progress) -> Threads:
    """Try powers of two, the cores and the logical cores, on generation; raises the engine's errors."""
    child.require_engine()
    default = probe.physical_cores()
    logical = os.cpu_count() or default
    powers = [2**n for n in range(logical.bit_length()) if 2**n <= logical]
    tried = sorted({*powers, default, logical})
    plain = replace(spec, n_prompt=0, n_gen=N_GEN, n_pg_prompt=0, n_pg_gen=0, prompt=None)
    text = corpus().text
    rates: dict[int, list[float]] = {n: [] for n in tried}
    with progress.task("threads", N_ROUNDS * len(tried), "steps") as task:
        for n_round in range(N_ROUNDS):
            for n_threads in tried if n_round % 2 == 0 else tried[::-1]:
                task.describe(f"threads: {n_threads}")
                block = measure(artifact.path, replace(plain, n_threads=n_threads), text, 2, lambda *_: None).block
                rates[n_threads] += [N_GEN * spec.n_parallel * 1e9 / ns for ns in block.tg_ns]
                task.advance()
    found = {n: statistics.median(values) for n, values in rates.items()}
    best = tried[0]
    for n_threads in tried[1:]:
        if found[n_threads] > (1 + WORTH_IT) * found[best]:
            best = n_threads
    return Threads(best, default, found)
