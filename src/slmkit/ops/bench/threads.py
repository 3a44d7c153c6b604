"""How many threads are fastest here: each number is tried, in turns, on the first model that runs."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from slmkit.backends.llamacpp import child
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchSpec
from slmkit.core.progress import Progress
from slmkit.errors import EngineError, EngineMissingError
from slmkit.host import probe
from slmkit.ops.bench.block import measure
from slmkit.ops.corpora import corpus

N_GEN = 32
N_PROMPT = 128
"""At most, where no generation is asked for."""
N_ROUNDS = 2
WORTH_IT = 0.02
"""A larger number must be faster by this share: more threads take more power, and less is left for others."""


@dataclass(frozen=True)
class Threads:
    """The best number and tokens per second of each that was tried; `default` is one for each core, `test` is what was
    tried: `tg32`.
    """

    best: int
    default: int
    rates: Mapping[int, float]
    test: str

    @property
    def gain(self) -> float:
        """How much faster the best is than the default: 0.12 is 12 %."""
        return self.rates[self.best] / self.rates[self.default] - 1


@dataclass(frozen=True)
class Choice:
    """The number to measure with, `None` where none could be tried, and in words how it was found."""

    n_threads: int | None
    note: str


def choose(artifacts: Sequence[Artifact], specs: Sequence[BenchSpec], progress: Progress) -> Choice:
    """The number that is best for the first of the models that can be tried, and so for all of them.

    Raises `EngineMissingError`; any other error of the engine is that of one model, and the next one is tried.
    """
    failed = []
    for artifact in artifacts:
        try:
            found = fastest(artifact, specs, progress)
        except EngineMissingError:
            raise
        except EngineError as error:
            failed.append(f"{artifact.ref} could not be tried: {error.message}")
            continue
        rates = ", ".join(f"{n}: {rate:.1f}" for n, rate in found.rates.items())
        gain = f"{found.gain:+.1%} beside {found.default}" if found.best != found.default else "one for each core"
        note = f"{found.best} threads are best for {artifact.ref}, {gain} ({found.test} tok/s by threads: {rates})"
        choice = Choice(found.best, "; ".join((note, *failed)))
        progress.say(choice.note)
        return choice
    note = "which number of threads is best is not known, so it is one for each core"
    choice = Choice(None, "; ".join((note, *failed)))
    progress.warn(choice.note)
    return choice


def fastest(artifact: Artifact, specs: Sequence[BenchSpec], progress: Progress) -> Threads:
    """Try powers of two, the cores and the logical cores, on generation, or on a prompt where `specs` generate nothing.

    Each try has the bounds of time and memory of the first spec. Raises the engine's errors.
    """
    child.require_engine()
    default = probe.physical_cores()
    logical = os.cpu_count() or default
    powers = [2**n for n in range(logical.bit_length()) if 2**n <= logical]
    tried = sorted({*powers, default, logical})
    spec = _trial(specs)
    test, n_tokens = (spec.tg, spec.n_gen) if spec.n_gen else (spec.pp, spec.n_prompt)
    text = corpus().text
    rates: dict[int, list[float]] = {n: [] for n in tried}
    with progress.task("threads", N_ROUNDS * len(tried), "steps") as task:
        for n_round in range(N_ROUNDS):
            for n_threads in tried if n_round % 2 == 0 else tried[::-1]:
                task.describe(f"threads: {n_threads}")
                block = measure(artifact.path, replace(spec, n_threads=n_threads), text, 2, lambda *_: None).block
                rates[n_threads] += [
                    n_tokens * spec.n_parallel * 1e9 / ns for ns in (block.tg_ns if spec.n_gen else block.pp_ns)
                ]
                task.advance()
    found = {n: statistics.median(values) for n, values in rates.items()}
    best = tried[0]
    for n_threads in tried[1:]:
        if found[n_threads] > (1 + WORTH_IT) * found[best]:
            best = n_threads
    return Threads(best, default, found, test)


def _trial(specs: Sequence[BenchSpec]) -> BenchSpec:
    """The first one, with a single short test."""
    plain = replace(specs[0], n_prompt=0, n_gen=N_GEN, n_pg_prompt=0, n_pg_gen=0, prompt=None)
    if any(spec.n_gen or spec.n_pg_gen for spec in specs):
        return plain
    n_prompt = max(spec.n_prompt + spec.n_pg_prompt for spec in specs)
    return replace(plain, n_prompt=min(n_prompt, N_PROMPT), n_gen=0)
