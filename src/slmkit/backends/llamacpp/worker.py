"""The child process: reads one job on stdin, runs it, writes events on stdout. Not for people: see `child.py`."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any


class Channel:
    """The child's line to its parent."""

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
        self.send("pause", stage=stage)
        self._go_on.acquire()

    def watch_parent(self) -> None:
        """A line means go on; the end of stdin means that the parent is dead, and so are we."""

        def watch() -> None:
            for _ in sys.stdin:
                self._go_on.release()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Run the job that stdin names."""
    channel = Channel()
    request = json.loads(sys.stdin.readline())
    channel.watch_parent()

    from slmkit.backends.llamacpp import bindings, jobs

    try:
        result = jobs.JOBS[request["job"]](channel, **request["arguments"])
    except bindings.NativeError as error:
        channel.send("error", message=str(error))
    else:
        channel.send("result", **result)
    # The engine's static destructors are not ours to wait for, or to crash in.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
