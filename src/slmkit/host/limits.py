"""Runs a child with less memory than there is: the smallest amount in which a model still works.

A limit is a command that is put before the child's: it limits itself and then becomes the child, with the same process
id. Whether one holds on this system is found out by trying it.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from slmkit.host import cgroups

Kind = Literal["cgroup v2", "cgroup v1", "systemd scope", "rlimit"]

_TRIAL_BYTES = 128 * 1024 * 1024
_TRIAL_S = 20.0
_GROUP = "slmkit-"
_numbers = itertools.count()


@dataclass(frozen=True)
class Limit:
    """`command` goes before the child's. `with_files`: pages of mapped files count too.

    Where they do not (`rlimit`, which counts what is reserved, used or not) a model has to be loaded without mmap, or
    its weights are not in the sum.
    """

    kind: Kind
    size_bytes: int
    command: tuple[str, ...]
    with_files: bool


@dataclass(frozen=True)
class Means:
    """What limits memory here, or the reason why nothing does."""

    kind: Kind | None
    reason: str | None = None


@contextmanager
def limited(size_bytes: int, files: Sequence[Path] = ()) -> Iterator[Limit | None]:
    """A limit for the children that are started in this block; `None` where there is no means of one (see `means`).

    `files` are those that the child maps. Cached pages of a file count for who read them first, so they are dropped
    from the cache: the child reads them itself, from the disk. Those that another program has mapped now stay.
    """
    kind = means().kind
    if kind is None:
        yield None
        return
    _forget(files)
    with _WAYS[kind](size_bytes) as limit:
        yield limit


@functools.cache
def means() -> Means:
    """The best that holds on this system, tried once: small children live, large ones do not."""
    for kind, way in _WAYS.items():
        with suppress(OSError), way(_TRIAL_BYTES) as limit:
            if _survives(limit, 0) and not _survives(limit, 2 * _TRIAL_BYTES):
                return Means(kind)
    return Means(None, "this system lets this user limit no process's memory (cgroups, systemd and rlimits were tried)")


def smallest(works: Callable[[int], bool], low: int, high: int, tolerance: int) -> int | None:
    """The smallest number from `low` to `high` that works, at most `tolerance` too large: by bisection.

    `None` when `high` does not work. What works is expected to work with more as well.
    """
    if not works(high):
        return None
    if low >= high or works(low):
        return min(low, high)
    while high - low > max(1, tolerance):
        middle = (low + high) // 2
        if works(middle):
            high = middle
        else:
            low = middle
    return high


def _survives(limit: Limit, size_bytes: int) -> bool:
    command = [*limit.command, sys.executable, "-I", "-S", "-c", f"b'x' * {size_bytes}"]
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, timeout=_TRIAL_S, check=False).returncode == 0
    return False


def _forget(files: Sequence[Path]) -> None:
    if hasattr(os, "posix_fadvise"):
        for path in files:
            with path.open("rb") as file:
                with suppress(OSError):  # a file system that only reads has nothing to write
                    os.fsync(file.fileno())  # pages that are not on the disk yet would stay
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def _cgroup_v2(size_bytes: int) -> Iterator[Limit]:
    """Below a group that hands `memory` down."""
    with _group(cgroups.own_v2()) as group:
        (group / "memory.max").write_text(str(size_bytes))
        _write_if_there(group / "memory.swap.max", "0")
        yield Limit("cgroup v2", size_bytes, _joining(group), with_files=True)


@contextmanager
def _cgroup_v1(size_bytes: int) -> Iterator[Limit]:
    with _group(cgroups.own_v1("memory")) as group:
        (group / "memory.limit_in_bytes").write_text(str(size_bytes))
        _write_if_there(group / "memory.memsw.limit_in_bytes", str(size_bytes))  # memory and swap together
        yield Limit("cgroup v1", size_bytes, _joining(group), with_files=True)


@contextmanager
def _systemd_scope(size_bytes: int) -> Iterator[Limit]:
    """systemd makes the group: on desktops the only one that may. The child's scope ends with it."""
    program = shutil.which("systemd-run")
    if program is None:
        raise OSError("no systemd-run")
    whose = () if os.geteuid() == 0 else ("--user",)
    limits = ("-p", f"MemoryMax={size_bytes}", "-p", "MemorySwapMax=0")
    command = (program, *whose, "--scope", "--quiet", "--collect", *limits, "--")
    yield Limit("systemd scope", size_bytes, command, with_files=True)


@contextmanager
def _rlimit(size_bytes: int) -> Iterator[Limit]:
    """RLIMIT_DATA: private writable memory, since Linux 4.7 mapped memory as well; macOS ignores it."""
    command = ("/bin/sh", "-c", 'ulimit -d "$0" && exec "$@"', str(size_bytes // 1024))
    yield Limit("rlimit", size_bytes, command, with_files=False)


_WAYS: dict[Kind, Callable[[int], AbstractContextManager[Limit]]] = {
    "cgroup v2": _cgroup_v2,
    "cgroup v1": _cgroup_v1,
    "systemd scope": _systemd_scope,
    "rlimit": _rlimit,
}


def _joining(group: Path) -> tuple[str, ...]:
    return ("/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"))


@contextmanager
def _group(parent: Path) -> Iterator[Path]:
    """A new group below this process's own, so that what limits this process limits the child too."""
    _sweep(parent)
    group = parent / f"{_GROUP}{os.getpid()}-{next(_numbers)}"
    group.mkdir()
    try:
        yield group
    finally:
        for _ in range(20):  # a process that was just killed may still be leaving
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def _sweep(parent: Path) -> None:
    """Groups of processes that were killed; one in which something runs cannot be removed."""
    for group in parent.glob(f"{_GROUP}*"):
        pid = group.name.removeprefix(_GROUP).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            with suppress(OSError):
                group.rmdir()


def _write_if_there(path: Path, text: str) -> None:
    if path.exists():  # without accounting of swap it is not
        path.write_text(text)
