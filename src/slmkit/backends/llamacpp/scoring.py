"""Log-likelihood, KL divergence and the most likely token from rows of logits, on all cores. For child processes.

float32 with the row's maximum taken off, so that nothing overflows, and sums that numpy adds pairwise: with 262,144
tokens the error stays below 1e-6 nats (a test compares with float64). Each thread has rows of its own and buffers that
fit its cache: rows are read a few times, memory once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from slmkit.formats.base_file import Kept

Floats = NDArray[np.float32]
Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Scored:
    """Of each row: shape (n_rows,), in nats; `kld` and `same_top` are empty without a base."""

    nll: Floats
    kld: Floats
    same_top: NDArray[np.int8]


Buffers = tuple[Floats, Floats]
"""Of one thread, each as long as a row."""


class Base(Protocol):
    """What others are held against, row by row."""

    def top(self, i: int) -> int:
        """The most likely token of row `i`."""

    def divergence(self, i: int, row: Floats, log_sum: float, buffers: Buffers) -> float:
        """From row `i` to the probabilities that logits stand for, whose exponentials add up to exp(`log_sum`)."""


class Full:
    """All log-probabilities, shape (n_rows, n_vocab), written over the logits that they were."""

    def __init__(self, logits: Floats, n_rows: int) -> None:
        self.log_probs = logits
        self.tops = np.empty(n_rows, np.int64)

    def top(self, i: int) -> int:
        """As it was when the row was normalized."""
        return int(self.tops[i])

    def divergence(self, i: int, row: Floats, log_sum: float, buffers: Buffers) -> float:
        """The whole sum over the vocabulary, in float32."""
        log_p = self.log_probs[i]
        p, difference = buffers
        np.exp(log_p, out=p)
        np.subtract(log_p, row, out=difference)
        np.add(difference, np.float32(log_sum), out=difference)
        np.multiply(p, difference, out=difference)
        return float(difference.sum())


class Coarse:
    """Those of a baseline: the most likely tokens by themselves, all others for one."""

    def __init__(self, chunks: Sequence[Kept]) -> None:
        self._rows = [row for chunk in chunks for row in chunk.rows]

    def top(self, i: int) -> int:
        """The first that is kept."""
        return int(self._rows[i][0][0])

    def divergence(self, i: int, row: Floats, log_sum: float, buffers: Buffers) -> float:
        """In float64: there are few."""
        ids, log_p, tail = self._rows[i]
        log_q = row[ids].astype(np.float64) - log_sum
        found = float((np.exp(log_p.astype(np.float64)) * (log_p - log_q)).sum())
        if tail <= _NO_TAIL:
            return found
        rest = max(_NO_TAIL, 1 - float(np.exp(log_q).sum()))
        return found + tail * math.log(tail / rest)


_NO_TAIL = 1e-6
"""So little is what rounding leaves."""


class Scorer:
    """Scores rows of `n_vocab` logits in `n_threads` threads; buffers are made once."""

    def __init__(self, n_vocab: int, n_threads: int) -> None:
        self._pool = ThreadPoolExecutor(n_threads)
        self._buffers = [(np.empty(n_vocab, np.float32), np.empty(n_vocab, np.float32)) for _ in range(n_threads)]

    def base(self, logits: Floats, tokens: Tokens) -> tuple[Full, Scored]:
        """Turn logits into log-probabilities, in place; `tokens` are the text's own, shape (n_rows,)."""
        n_rows = len(tokens)
        base = Full(logits, n_rows)
        nll = np.empty(n_rows, np.float32)

        def share(number: int) -> None:
            buffer, _ = self._buffers[number]
            for i in range(number, n_rows, len(self._buffers)):
                row = logits[i]
                base.tops[i], log_sum = _normalizer(row, buffer)
                np.subtract(row, log_sum, out=row)
                nll[i] = -row[tokens[i]]

        self._run(share)
        return base, Scored(nll, np.empty(0, np.float32), np.empty(0, np.int8))

    def score(self, logits: Floats, tokens: Tokens, base: Base | None = None) -> Scored:
        """Of a model's logits, beside those of its base; both have the same rows. Nothing is changed."""
        n_rows = len(tokens)
        nll = np.empty(n_rows, np.float32)
        kld = np.empty(n_rows if base else 0, np.float32)
        same_top = np.empty(n_rows if base else 0, np.int8)

        def share(number: int) -> None:
            buffers = self._buffers[number]
            for i in range(number, n_rows, len(self._buffers)):
                row = logits[i]
                top, log_sum = _normalizer(row, buffers[0])
                nll[i] = log_sum - row[tokens[i]]
                if base:
                    kld[i] = base.divergence(i, row, log_sum, buffers)
                    same_top[i] = top == base.top(i)

        self._run(share)
        return Scored(nll, kld, same_top)

    def _run(self, share: Callable[[int], None]) -> None:
        with np.errstate(all="ignore"):  # a broken model's infinities become NaN, which says enough
            list(self._pool.map(share, range(len(self._buffers))))


def _normalizer(row: Floats, buffer: Floats) -> tuple[int, float]:
    """The most likely token, and the logarithm of the sum of the exponentials."""
    top = int(row.argmax())
    largest = row[top]
    np.subtract(row, largest, out=buffer)
    np.exp(buffer, out=buffer)
    total = float(buffer.sum())
    return top, float(largest) + (math.log(total) if total > 0 else math.nan)
