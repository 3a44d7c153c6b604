"""`gc`: free what nothing refers to, in the registry and of downloads that nobody goes on with."""

from __future__ import annotations

from collections.abc import Sequence

from slmkit.core.progress import Progress
from slmkit.hub import unfinished
from slmkit.registry import garbage
from slmkit.registry.garbage import Freed, Garbage
from slmkit.registry.store import Registry


def plan(registry: Registry, progress: Progress) -> list[Garbage]:
    """What `free` would delete: `slmkit gc --dry-run` shows exactly this."""
    parts = unfinished.unfinished(unfinished.cache_dir())
    return [
        *garbage.find(registry, progress),
        *(Garbage("download", path, path.stat().st_size) for path in parts if path.is_file()),
    ]


def free(registry: Registry, items: Sequence[Garbage]) -> Freed:
    """Delete it, but nothing that another process works on."""
    freed = garbage.free(registry, [item for item in items if item.kind != "download"])
    deleted, busy = list(freed.deleted), list(freed.busy)
    for item in items:
        if item.kind == "download":
            with unfinished.alone(item.path) as is_free:
                (deleted if is_free else busy).append(item)
                if is_free:
                    item.path.unlink(missing_ok=True)
    return Freed(tuple(deleted), tuple(busy))
