"""The child's line to its parent."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
from typing import Any


class Channel:
    """Events go out on what was stdout, the parent's "go on" comes in on stdin."""

    def __init__(self) -> None:
        # Native code and stray prints write to descriptor 1: give it stderr, and keep the real one for events.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._go_on = threading.Semaphore(0)
        self._lock = threading.Lock()

    def send(self, event: str, **fields: Any) -> None:
        """Write one event; engine threads log at the same time, so one at a time."""
        with self._lock:
            self._out.write(json.dumps({"event": event, **fields}) + "\n")
            self._out.flush()

    def pause(self, stage: str) -> None:
        """Wait until the parent has looked at this process (its memory, say)."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
        self.tell("pause", stage=stage, peak_rss=peak if sys.platform == "darwin" else peak * 1024)

    def tell(self, event: str, **fields: Any) -> None:
        """Write one event and wait until the parent has dealt with it: then it sleeps while this process works."""
        self.send(event, **fields, waits=True)
        self._go_on.acquire()

    def watch_parent(self) -> None:
        """A line means go on; the end of stdin means that the parent is dead, and so are we."""

        def watch() -> None:
            for _ in sys.stdin:
                self._go_on.release()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
