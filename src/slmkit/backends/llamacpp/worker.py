"""The child process: reads one job on stdin, runs it, writes events on stdout. Not for people: see `child.py`."""

from __future__ import annotations

import json
import os
import sys

from slmkit.backends.llamacpp.channel import Channel


def main() -> None:
    """Run the job that stdin names; what those on the command line need is imported before."""
    channel = Channel()
    if prepared := sys.argv[1:]:
        from slmkit.backends.llamacpp import jobs

        for name in prepared:
            jobs.find(name)
    line = sys.stdin.readline()
    if not line:
        return  # the parent died, or does not need it
    request = json.loads(line)
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
