"""How much memory a process takes, and how much there is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from slmkit.host import cgroups

_KINDS = ("peak_rss", "rss", "file_backed", "anonymous", "swap", "major_faults")


def of_process(pid: int) -> Mapping[str, int | None]:
    """What a process holds, in bytes; `None` where this system does not tell, and for a process that is gone.

    `peak_rss` is the highest resident set so far, `rss` the present one; `file_backed` pages (mapped weights: shared,
    and the kernel may drop them) and `anonymous` pages (KV cache, compute buffers, repacked weights) make up `rss`.
    `swap` is what is on the disk of it; `major_faults` are pages that had to be read from the disk, a number.
    Linux: VmHWM of /proc/PID/status and /proc/PID/smaps_rollup (https://docs.kernel.org/filesystems/proc.html).
    """
    seen: dict[str, int | None] = dict.fromkeys(_KINDS)
    status, rollup, stat = (Path(f"/proc/{pid}/{name}") for name in ("status", "smaps_rollup", "stat"))
    with suppress(psutil.Error, OSError, KeyError):  # it may have died by now, and its owner learns that elsewhere
        seen["rss"] = psutil.Process(pid).memory_info().rss
        if status.exists():
            fields = _kib_fields(status)
            seen["peak_rss"] = fields["VmHWM"] * 1024
            seen["swap"] = fields["VmSwap"] * 1024
        if stat.exists():  # field 12, counted after the name in parentheses
            seen["major_faults"] = int(stat.read_text().rpartition(")")[2].split()[9])
        if rollup.exists():
            fields = _kib_fields(rollup)
            seen["anonymous"] = fields["Anonymous"] * 1024
            seen["file_backed"] = (fields["Rss"] - fields["Anonymous"]) * 1024
    return seen


def total_bytes() -> int:
    """Physical memory of this machine."""
    return int(psutil.virtual_memory().total)


def available_bytes() -> int:
    """What a new process can get without swapping, as the system estimates it; no more than a container has."""
    return min(int(psutil.virtual_memory().available), usable_bytes())


def container_bytes() -> int | None:
    """The limit of this process's container, where there is one below the machine's memory."""
    limit = cgroups.memory_limit_bytes()
    return limit if limit is not None and limit < total_bytes() else None


def usable_bytes() -> int:
    """What processes here can have in all: this machine's memory, or the limit of their container."""
    return container_bytes() or total_bytes()


def _kib_fields(path: Path) -> dict[str, int]:
    fields = {}
    for line in path.read_text().splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[2] == "kB":
            fields[parts[0].rstrip(":")] = int(parts[1])
    return fields
