"""How much memory a process takes, and how much there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil


def of_process(pid: int) -> Mapping[str, int | None]:
    """What a running process holds, in bytes; `None` where this system does not tell.

    `peak_rss` is the highest resident set so far, `rss` the present one; `file_backed` pages (mapped weights: shared,
    and the kernel may drop them) and `anonymous` pages (KV cache, compute buffers, repacked weights) make up `rss`.
    Linux: VmHWM of /proc/PID/status and /proc/PID/smaps_rollup (https://docs.kernel.org/filesystems/proc.html).
    """
    process = psutil.Process(pid)
    info = process.memory_info()
    peak = getattr(info, "peak_wset", None)  # Windows
    file_backed = anonymous = None
    status, rollup = Path(f"/proc/{pid}/status"), Path(f"/proc/{pid}/smaps_rollup")
    if status.exists():
        peak = _kib_fields(status).get("VmHWM", 0) * 1024 or None
    if rollup.exists():
        fields = _kib_fields(rollup)
        anonymous = fields["Anonymous"] * 1024
        file_backed = fields["Rss"] * 1024 - anonymous
    return {"peak_rss": peak, "rss": info.rss, "file_backed": file_backed, "anonymous": anonymous}


def total_bytes() -> int:
    """Physical memory of this machine."""
    return int(psutil.virtual_memory().total)


def available_bytes() -> int:
    """What a new process can get without swapping, as the system estimates it."""
    return int(psutil.virtual_memory().available)


def _kib_fields(path: Path) -> dict[str, int]:
    fields = {}
    for line in path.read_text().splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[2] == "kB":
            fields[parts[0].rstrip(":")] = int(parts[1])
    return fields
