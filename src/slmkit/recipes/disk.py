"""Whether the disk has room for all that a recipe is about to make."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from slmkit.core.progress import Progress
from slmkit.core.units import size
from slmkit.errors import DiskFullError


def check_disk(need_bytes: Mapping[Path, int], what: str, progress: Progress, *, hint: str) -> None:
    """Say what is needed before anything is made, by folder (which may not be there yet); folders of one disk share it.

    Raises `DiskFullError` when a disk has less free.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, n_bytes in need_bytes.items():
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        disk = there.stat().st_dev
        before = disks.get(disk, (there, 0))
        disks[disk] = (before[0], before[1] + n_bytes)
    for folder, n_bytes in disks.values():
        free_bytes = shutil.disk_usage(folder).free
        if n_bytes > free_bytes:
            raise DiskFullError(
                f"{what} needs {size(n_bytes)} of disk; {folder} has {size(free_bytes)} free", hint=hint
            )
    if total_bytes := sum(n_bytes for _, n_bytes in disks.values()):
        free = ", ".join(size(shutil.disk_usage(folder).free) for folder, _ in disks.values())
        progress.say(f"{what} needs {size(total_bytes)} of disk: {free} are free")
