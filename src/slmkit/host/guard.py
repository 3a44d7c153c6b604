"""Ends a process that takes more memory than it may."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from types import TracebackType

import psutil

POLL_S = 0.1


class Guard:
    """While the block runs each of `pids()` is killed when its RSS exceeds `max_rss_bytes`; `fired`: whether one was.

    Without a limit it does nothing, and nothing polls.
    """

    def __init__(self, pids: Callable[[], Collection[int]], max_rss_bytes: int | None) -> None:
        self.fired = False
        self._pids, self._limit = pids, max_rss_bytes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True) if max_rss_bytes else None

    def __enter__(self) -> Guard:
        if self._thread:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            for pid in list(self._pids()):
                with suppress(psutil.Error):  # it has ended
                    process = psutil.Process(pid)
                    if self._limit is not None and process.memory_info().rss > self._limit:
                        self.fired = True
                        process.kill()
