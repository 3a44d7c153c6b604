"""The weights of a GGUF as a stream: read and encoded by several threads, handed out in order, bounded in memory."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from slmkit.formats.gguf.types import GgmlType
from slmkit.formats.gguf.writer import Entry
from slmkit.ops.convert.encode import encode
from slmkit.ops.convert.finite import Watch
from slmkit.ops.convert.weights import Weights

CHUNK_ELEMENTS = 1 << 20
"""Weights in one piece of work: 2 MiB as half precision."""
GATHERED_ELEMENTS = 1 << 22
"""The same for sources that say they are `gathered`: each piece of them costs a walk through the whole tensor."""
AHEAD_BYTES = 8 << 20
"""Encoded data that may wait for the writer. More is slower: the data leaves the processor's cache before it is hashed,
and fresh memory has to be zeroed by the system."""
MAX_THREADS = 4
"""More do not help: one thread hashes, at 1 to 2 GB/s, and four encode as fast as that."""


@dataclass(frozen=True)
class Chunk:
    """Elements `start` to `stop` of the tensor `name`, whole rows of it, to be stored as `type`."""

    name: str
    source: Weights
    start: int
    stop: int
    row: int
    type: GgmlType

    @property
    def size_bytes(self) -> int:
        """When it is encoded."""
        return self.type.size_bytes(self.stop - self.start)

    def data(self, watch: Watch) -> memoryview:
        """Read and encode it, while `watch` looks for what is no number."""
        part = self.source.read(self.start, self.stop).reshape(-1, self.row)
        with np.errstate(all="ignore"):
            data = np.ascontiguousarray(encode(part, self.source.dtype, self.type.name))
        watch.look(self.name, self.source, part, data, self.type.name)
        return data.data


def encoded(entries: Sequence[Entry], sources: Sequence[Weights], watch: Watch) -> Generator[memoryview, None, None]:
    """The data of all tensors in order, in the bytes of their types; no chunk holds parts of two tensors.

    Close it, and its threads end.
    """
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    return in_order(
        ((partial(chunk.data, watch), chunk.size_bytes) for chunk in _chunks(entries, sources)),
        threads=threads,
        ahead_bytes=AHEAD_BYTES,
    )


def in_order(
    work: Iterable[tuple[Callable[[], memoryview], int]], *, threads: int, ahead_bytes: int
) -> Generator[memoryview, None, None]:
    """What each callable returns, in order, made by `threads` threads while the results before are consumed.

    The number beside a callable is the size of its result; results of no more than `ahead_bytes` (or one that is
    larger) are waiting at any time. The first error ends it; nothing goes on after that, or when the consumer stops.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="encode")
    waiting: deque[tuple[Future[memoryview], int]] = deque()
    waiting_bytes = 0
    try:
        for make, size_bytes in work:
            while waiting and waiting_bytes + size_bytes > ahead_bytes:
                done, done_bytes = waiting.popleft()
                yield done.result()
                del done  # what was handed out is the consumer's alone
                waiting_bytes -= done_bytes
            waiting.append((pool.submit(make), size_bytes))
            waiting_bytes += size_bytes
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _chunks(entries: Sequence[Entry], sources: Sequence[Weights]) -> Iterator[Chunk]:
    for entry, source in zip(entries, sources, strict=True):
        total = math.prod(entry.shape)
        row = entry.shape[-1] if entry.shape else 1
        most = GATHERED_ELEMENTS if getattr(source, "gathered", False) else CHUNK_ELEMENTS
        step = max(1, most // row) * row
        for start in range(0, total, step):
            yield Chunk(entry.name, source, start, min(start + step, total), row, entry.type)
