"""Log-likelihood, KL divergence and the most likely token from rows of logits, on all cores. For child processes.

float32 with the row's maximum taken off, so that nothing overflows, and sums that numpy adds pairwise: with 262,144
tokens the error stays below 1e-6 nats (a test compares with float64). Each thread has rows of its own and buffers that
fit its cache: rows are read a few times, memory once.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Scored:
    """Of each row: shape (n_rows,), in nats; `kld` and `same_top` are empty without a base."""

    nll: Floats
    kld: Floats
    same_top: NDArray[np.int8]


class Base:
    """What others are held against: log-probabilities, shape (n_rows, n_vocab), written over the logits they were."""

    def __init__(self, logits: Floats, n_rows: int) -> None:
        self.log_probs = logits
        self.top = np.empty(n_rows, np.int64)


class Scorer:
    """Scores rows of `n_vocab` logits in `n_threads` threads; buffers are made once."""

    def __init__(self, n_vocab: int, n_threads: int) -> None:
        self._pool = ThreadPoolExecutor(n_threads)
        self._buffers = [(np.empty(n_vocab, np.float32), np.empty(n_vocab, np.float32)) for _ in range(n_threads)]

    def base(self, logits: Floats, tokens: Tokens) -> tuple[Base, Scored]:
        """Turn logits into log-probabilities, in place; `tokens` are the text's own, shape (n_rows,)."""
        n_rows = len(tokens)
        base = Base(logits, n_rows)
        nll = np.empty(n_rows, np.float32)

        def share(number: int) -> None:
            buffer, _ = self._buffers[number]
            for i in range(number, n_rows, len(self._buffers)):
                row = logits[i]
                base.top[i], log_sum = _normalizer(row, buffer)
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
            buffer, other = self._buffers[number]
            for i in range(number, n_rows, len(self._buffers)):
                row = logits[i]
                top, log_sum = _normalizer(row, buffer)
                nll[i] = log_sum - row[tokens[i]]
                if base:
                    log_p = base.log_probs[i]
                    np.exp(log_p, out=buffer)
                    np.subtract(log_p, row, out=other)
                    np.add(other, np.float32(log_sum), out=other)
                    np.multiply(buffer, other, out=other)
                    kld[i] = other.sum()
                    same_top[i] = top == base.top[i]

        self._run(share)
        return Scored(nll, kld, same_top)

    def _run(self, share: object) -> None:
        assert callable(share)
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
