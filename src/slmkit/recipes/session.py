"""What every verb begins with."""

from __future__ import annotations

from dataclasses import dataclass

from slmkit.core.progress import Progress
from slmkit.registry.store import Registry


@dataclass(frozen=True)
class Session:
    """Where things are, who is told, and whether the network may be used."""

    registry: Registry
    progress: Progress
    may_pull: bool = True
    offline: bool = False
