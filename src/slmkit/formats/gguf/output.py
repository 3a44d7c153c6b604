"""A file that is written, hashed and brought to the disk at the same time.

Writing copies into the system's memory, hashing computes, the disk waits: each has a thread of its own, and all three
let Python run meanwhile. The disk begins with the first data instead of after the last: what is left for the final
fsync is short.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO, Self

Chunk = bytes | memoryview

FLUSH_BYTES = 32 << 20
"""So much new data, and the disk is told to begin with it."""
_UNHASHED_BYTES = 4 << 20
"""Data that is written already and may wait for its hash."""


class Output:
    """A raw file opened for writing; leave it by `finish`, or by an exception."""

    def __init__(self, file: IO[bytes]) -> None:
        self.size_bytes = 0
        self._file = file
        self._sha256 = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._hashing: deque[tuple[Future[None], int]] = deque()
        self._unhashed_bytes = 0
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._flushing: Future[None] | None = None
        self._flushed_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._hasher.shutdown(cancel_futures=True)
        self._flusher.shutdown(cancel_futures=True)

    def write(self, data: Chunk) -> None:
        """Append; the data must not change any more. Raises `OSError`, also for data that was written before."""
        view = memoryview(data).cast("B")
        if not view:
            return
        self._hashing.append((self._hasher.submit(self._sha256.update, view), len(view)))
        self._unhashed_bytes += len(view)
        self.size_bytes += len(view)
        while view:
            view = view[self._file.write(view) :]
        self._wait(_UNHASHED_BYTES)
        if self.size_bytes - self._flushed_bytes >= FLUSH_BYTES and (self._flushing is None or self._flushing.done()):
            if self._flushing is not None:
                self._flushing.result()
            self._flushing = self._flusher.submit(_flush, self._file.fileno())
            self._flushed_bytes = self.size_bytes

    def finish(self) -> str:
        """Wait until everything is hashed and on the disk; returns the SHA-256. Raises `OSError`."""
        if self._flushing is not None:
            self._flushing.result()
        last = self._flusher.submit(os.fsync, self._file.fileno())
        self._wait(0)
        last.result()
        return self._sha256.hexdigest()

    def _wait(self, most_bytes: int) -> None:
        while self._unhashed_bytes > most_bytes:
            done, size_bytes = self._hashing.popleft()
            done.result()
            self._unhashed_bytes -= size_bytes


_flush = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
