"""This process's control groups, of both versions: where they are, how much CPU and memory they grant.

https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/index.html,
https://docs.kernel.org/scheduler/sched-bwc.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
_NO_LIMIT_BYTES = 1 << 62


def own_v2(proc_root: Path = PROC) -> Path:
    """The folder of the one group of version 2; raises `OSError` where there is none."""
    return _own("cgroup2", None, proc_root)


def own_v1(controller: str, proc_root: Path = PROC) -> Path:
    """The folder of the group for `cpu`, `memory`, ... of version 1; raises `OSError` where there is none."""
    return _own("cgroup", controller, proc_root)


def cpu_quota_cores(proc_root: Path = PROC) -> float | None:
    """How many cores' time this process's group gets at most (`docker --cpus`); `None` without a quota."""
    with suppress(OSError, ValueError):
        quota, period = (own_v2(proc_root) / "cpu.max").read_text().split()
        if quota != "max":
            return int(quota) / int(period)
    with suppress(OSError, ValueError):
        group = own_v1("cpu", proc_root)
        quota_us = int((group / "cpu.cfs_quota_us").read_text())
        if quota_us > 0:  # -1 means none
            return quota_us / int((group / "cpu.cfs_period_us").read_text())
    return None


def quota_stalled_s(proc_root: Path = PROC) -> float | None:
    """For how long, since it was made, this process's group had work and no quota left, on any core."""
    with suppress(OSError, KeyError):
        return _counters(own_v2(proc_root) / "cpu.stat")["throttled_usec"] / 1e6
    with suppress(OSError, KeyError):
        return _counters(own_v1("cpu", proc_root) / "cpu.stat")["throttled_time"] / 1e9
    return None


def memory_limit_bytes(proc_root: Path = PROC) -> int | None:
    """What this process's group may hold (`docker --memory`), the least of it and those above; `None` without a limit.

    Version 1 writes "none" as a number of almost 2^63.
    """
    limits = []
    for kind, controller, name in (("cgroup2", None, "memory.max"), ("cgroup", "memory", "memory.limit_in_bytes")):
        with suppress(OSError):
            mount = _mount(kind, controller, proc_root)
            own = _own(kind, controller, proc_root)
            for group in (own, *own.parents):
                if group.is_relative_to(mount):
                    with suppress(OSError, ValueError):  # the root of version 2 has no such file; "max"
                        limits.append(int((group / name).read_text()))
    return min((limit for limit in limits if limit < _NO_LIMIT_BYTES), default=None)


def _counters(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _own(kind: str, controller: str | None, proc_root: Path) -> Path:
    mount = _mount(kind, controller, proc_root)
    for line in (proc_root / "self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if (controller or "") in controllers.split(","):
            own = mount / group.lstrip("/")
            return (
                own if own.exists() else mount
            )  # in a container the path may be the host's, the mount the group's own
    raise FileNotFoundError(f"in no group of {controller or 'version 2'}")


def _mount(kind: str, controller: str | None, proc_root: Path) -> Path:
    for line in (proc_root / "mounts").read_text().splitlines():
        _, where, what, options, *_ = line.split()
        if what == kind and (controller is None or controller in options.split(",")):
            return Path(where)
    raise FileNotFoundError(f"no {kind}")
