"""The child process: reads one job on stdin, runs it, writes events on stdout. Not for people: see `child.py`."""

from __future__ import annotations

import json
import os
import sys

from slmkit.backends.llamacpp.channel import Channel


def main() -> None:
    """Run the job that stdin names."""
    channel = Channel()
    request = json.loads(sys.stdin.readline())
    channel.watch_parent()

    from slmkit.backends.llamacpp import bindings, jobs

    try:
        result = jobs.find(request["job"])(channel, **request["arguments"])
    except bindings.NativeError as error:
        channel.send("error", message=str(error))
    else:
        channel.send("result", **result)
    # The engine's static destructors are not ours to wait for, or to crash in.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
