"""Other computers: `data/devices.toml`, read and checked."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from slmkit.errors import UsageError

ATTAINABLE_SHARE = 0.7
"""Of the rate on the memory's wires, what a program gets of it: STREAM reaches 67 to 79 % of it on a small Arm board
(Texas Instruments, SPRACV1B, "STREAM") and 69 % on a Raspberry Pi 4 (https://www.sci-pi.org.uk/bench/stream.html)."""


@dataclass(frozen=True)
class Device:
    """`ram_bytes` is all that is built in, `bandwidth_bytes_per_s` the rate of the memory's wires; `source` says where
    both are from.
    """

    name: str
    title: str
    ram_bytes: int
    bandwidth_bytes_per_s: float
    source: str
    note: str = ""

    @property
    def attainable_bytes_per_s(self) -> float:
        """What a program can read."""
        return ATTAINABLE_SHARE * self.bandwidth_bytes_per_s


@cache
def devices() -> tuple[Device, ...]:
    """All of them, the slowest first."""
    text = (resources.files("slmkit") / "data" / "devices.toml").read_text(encoding="utf-8")
    found = (
        Device(
            name=entry["name"],
            title=entry["title"],
            ram_bytes=entry["ram_gib"] << 30,
            bandwidth_bytes_per_s=entry["bandwidth_gb_per_s"] * 1e9,
            source=entry["source"],
            note=entry.get("note", ""),
        )
        for entry in tomllib.loads(text)["device"]
    )
    return tuple(sorted(found, key=lambda device: (device.bandwidth_bytes_per_s, device.ram_bytes)))


def device(name: str) -> Device:
    """The one of that name, in any case; raises `UsageError` with those that there are."""
    wanted = name.strip().lower().replace(" ", "-")
    known = {each.name: each for each in devices()}
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
        raise UsageError(f"no device {name!r}", hint=f"one of {', '.join(near or known)}; or `--ram 8GiB`")
    return known[wanted]
