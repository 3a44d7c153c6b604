"""Runs one job in a child process and turns its death into a typed error.

The child (`worker.py`) writes one JSON object a line on its stdout: `{"event": "log", "level": 3, "text": "..."}`,
any other event (after one with `"waits": true` it waits for a line on its stdin before it goes on), and at the end
`{"event": "result", ...}` or `{"event": "error", "message": ...}`. Native code's own output goes to its stderr.
When the parent dies, the child's stdin ends and it leaves; when the parent is interrupted, it kills the child.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import IO, Any

from slmkit.errors import EngineCrashedError, EngineError, EngineMissingError, EngineTimeoutError, OutOfMemoryError

Event = Mapping[str, Any]
Listener = Callable[[Event, int], None]
"""Called with each event and the child's process id."""

LOG_LINES = 40
_COMMITS = {"0.3.36": "0c1e57098"}  # vendor/llama.cpp of each sdist
_NO_MEMORY = (
    "failed to allocate",
    "bad_alloc",
    "out of memory",
    "Cannot allocate memory",
    "unable to allocate",
    "MemoryError",
)
INSTALL_HINT = "install it: `pip install 'slmkit[engine]'` (compiles for some minutes; the README has the right flags)"


@dataclass(frozen=True)
class _Ready:
    """A child that waits for its job, and where it writes what goes wrong."""

    job: str
    process: subprocess.Popen[str]
    stderr: IO[str]


class Children:
    """Children that run at the same time, each in a thread of its parent; `kill` ends them all, and each that starts
    later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ready: list[_Ready] = []
        self._killed = False

    def prepare(self, *jobs: str) -> None:
        """Start a child for each of `jobs`, which will be run soon: starting takes longer than some jobs do."""
        for job in jobs:
            stderr = _stderr()
            process = _start(stderr, (), job)
            self.add(process)
            with self._lock:
                self._ready.append(_Ready(job, process, stderr))

    def _take(self, job: str) -> _Ready | None:
        """One that has been prepared for it."""
        with self._lock:
            found = next((ready for ready in self._ready if ready.job == job), None)
            if found:
                self._ready.remove(found)
            return found

    @property
    def killed(self) -> bool:
        """Whether they have been."""
        return self._killed

    def check(self) -> None:
        """Raise `EngineError` when they have been killed: what is done beside them ends as well."""
        if self._killed:
            raise EngineError("stopped")

    def kill(self) -> None:
        """End them now."""
        with self._lock:
            self._killed = True
            for child in self._running:
                child.kill()
            unused, self._ready = self._ready, []
        for ready in unused:
            ready.process.wait()
            self.remove(ready.process)
            _close(ready.process)
            ready.stderr.close()

    def add(self, child: subprocess.Popen[str]) -> None:
        """One that has just been started."""
        with self._lock:
            self._running.add(child)
            if self._killed:
                child.kill()

    def remove(self, child: subprocess.Popen[str]) -> None:
        """One that has ended."""
        with self._lock:
            self._running.discard(child)


def run(
    job: str,
    arguments: Mapping[str, Any],
    *,
    listen: Listener | None = None,
    timeout_s: float | None = None,
    children: Children | None = None,
    within: Sequence[str] = (),
) -> Event:
    """Run `job` and return its result event; the child is one of `children` meanwhile, which may have it prepared.
    `within` is a command that becomes the child, such as that of a `host.limits.Limit`.

    Raises `EngineMissingError`, `EngineCrashedError` (a signal), `OutOfMemoryError`, `EngineTimeoutError` after
    `timeout_s`, or `EngineError` with the job's own words.
    """
    require_engine()
    log: deque[str] = deque(maxlen=LOG_LINES)
    ready = children._take(job) if children and not within else None
    with ready.stderr if ready else _stderr() as stderr:
        child = ready.process if ready else _start(stderr, within)
        if children:
            children.add(child)
        timer = _Deadline(child, timeout_s)
        try:
            final = _listen(child, job, arguments, listen, log)
            child.wait()
        finally:
            timer.cancel()
            if child.poll() is None:  # interrupted, or the listener raised
                child.kill()
                child.wait()
            if children:
                children.remove(child)
            _close(child)
        stderr.seek(0)
        tail = (*_lines(log), *stderr.read().splitlines())[-LOG_LINES:]
    if timer.expired:
        raise EngineTimeoutError(f"the engine took more than {timeout_s:g} s and was stopped", log=tail)
    if final is not None and final["event"] == "result":
        return final
    if final is not None:
        raise _error(str(final["message"]), tail)
    raise _death(child.returncode, tail)


def require_engine() -> None:
    """Raise `EngineMissingError` when llama-cpp-python is not installed; loads nothing."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise EngineMissingError("the engine llama-cpp-python is not installed", hint=INSTALL_HINT)


def installed() -> str | None:
    """`llama-cpp-python 0.3.36`, read off the package's metadata; `None` when it is not installed."""
    try:
        return f"llama-cpp-python {metadata.version('llama-cpp-python')}"
    except metadata.PackageNotFoundError:
        return None


def llama_cpp_commit() -> str | None:
    """Which llama.cpp the installed engine contains; `None` for a version that this slmkit was not checked with."""
    return _COMMITS.get((installed() or "").rpartition(" ")[2])


def _stderr() -> IO[str]:
    return tempfile.TemporaryFile("w+", errors="replace")


def _start(stderr: IO[str], within: Sequence[str], *prepared: str) -> subprocess.Popen[str]:
    # -P: nothing is imported from the folder that the user happens to stand in.  GGML_NO_BACKTRACE: ggml_abort would
    # start gdb and print pages.  A session of its own: Ctrl-C reaches the parent only, which then kills the child.
    return subprocess.Popen(
        [*within, sys.executable, "-P", "-m", "slmkit.backends.llamacpp.worker", *prepared],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "GGML_NO_BACKTRACE": "1", "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )


def _listen(
    child: subprocess.Popen[str], job: str, arguments: Mapping[str, Any], listen: Listener | None, log: deque[str]
) -> Event | None:
    assert child.stdout is not None
    _tell(child, json.dumps({"job": job, "arguments": dict(arguments)}))
    for line in child.stdout:
        if not line.endswith("\n"):  # it died in the middle of a line
            return None
        event = json.loads(line)
        if event["event"] in ("result", "error"):
            return dict(event)
        if event["event"] == "log":
            log.append(event["text"])
        if listen:
            listen(event, child.pid)
        if event.get("waits"):
            _tell(child, "")
    return None


def _tell(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # it is dead: its stdout ends, and that is how we learn of it
        child.stdin.write(line + "\n")
        child.stdin.flush()


def _close(child: subprocess.Popen[str]) -> None:
    for stream in (child.stdin, child.stdout):
        with suppress(BrokenPipeError):  # what was still to be written to a dead child
            if stream:
                stream.close()


class _Deadline:
    """Kills the child when its time is over."""

    def __init__(self, child: subprocess.Popen[str], seconds: float | None) -> None:
        self.expired = False
        self._child = child
        self._timer = threading.Timer(seconds, self._expire) if seconds is not None else None
        if self._timer:
            self._timer.daemon = True
            self._timer.start()

    def _expire(self) -> None:
        self.expired = True
        self._child.kill()

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()


def _lines(log: deque[str]) -> list[str]:
    return [line for line in "".join(log).splitlines() if line.strip()]


def _error(message: str, tail: tuple[str, ...]) -> EngineError:
    if any(word in line for line in (message, *tail) for word in _NO_MEMORY):
        return OutOfMemoryError(f"out of memory: {message}", hint=_SMALLER, log=tail)
    return EngineError(message, log=tail)


def _death(code: int, tail: tuple[str, ...]) -> EngineError:
    if any(word in line for line in tail for word in _NO_MEMORY):
        return OutOfMemoryError("the engine ran out of memory", hint=_SMALLER, log=tail)
    if code == -signal.SIGKILL:
        return OutOfMemoryError("the engine was killed (SIGKILL): most likely out of memory", hint=_SMALLER, log=tail)
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    last = f": {tail[-1]}" if tail else ""
    return EngineCrashedError(
        f"the engine crashed ({name}){last}", hint="check this machine: `slmkit doctor`", log=tail
    )


_SMALLER = "try a smaller quant type or a shorter context; `slmkit doctor` shows the memory that is free"
