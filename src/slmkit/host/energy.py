"""Joules, as far as this machine counts them. What it counts is the whole machine's part, not one program's."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYS = Path("/sys")


@dataclass(frozen=True)
class Counter:
    """One source. `read_j` is what has been used since some moment in the past, and raises `OSError` or `ValueError`
    when it no longer tells.
    """

    name: str
    read_j: Callable[[], float]


class Meter:
    """The sum of several counters: CPU packages, memory, GPUs."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters
        self.names = tuple(counter.name for counter in counters)

    def read_j(self) -> float | None:
        """Joules since some moment in the past: only differences mean something. `None` when a counter is gone."""
        try:
            return sum(counter.read_j() for counter in self._counters)
        except (OSError, ValueError):
            return None


def meter(sys_root: Path = SYS) -> Meter | None:
    """What this user may read here: RAPL and NVML together, else a battery that is being discharged, else nothing."""
    for counters in ([*_rapl(sys_root), *_nvml()], _batteries(sys_root)):
        if counters:
            return Meter(counters)
    return None


def locked(sys_root: Path = SYS) -> bool:
    """Whether there are counters of energy that this user may not read."""
    return any(not os.access(path, os.R_OK) for path in (sys_root / "class/powercap").glob("intel-rapl:*/energy_uj"))


class Wrapping:
    """A counter of microjoules that begins again at zero after `range_uj`, as joules that only grow.

    It must be read more often than it wraps: every 10 minutes (2^32 units of 61 µJ are 262 kJ, 11 minutes of 400 W).
    """

    def __init__(self, read_uj: Callable[[], int], range_uj: int) -> None:
        self._read_uj = read_uj
        self._range_uj = range_uj
        self._last_uj = read_uj()
        self._sum_uj = 0

    def read_j(self) -> float:
        """Since it was made."""
        now_uj = self._read_uj()
        grown_uj = now_uj - self._last_uj
        self._sum_uj += grown_uj if grown_uj >= 0 else grown_uj + self._range_uj
        self._last_uj = now_uj
        return self._sum_uj / 1e6


class Integrating:
    """Watts over time, between its readings by the trapezoid rule: for what tells its power and not its energy."""

    def __init__(self, read_w: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._read_w = read_w
        self._clock = clock
        self._last_w, self._last_s = read_w(), clock()
        self._sum_j = 0.0

    def read_j(self) -> float:
        """Since it was made."""
        now_w, now_s = self._read_w(), self._clock()
        self._sum_j += (self._last_w + now_w) / 2 * (now_s - self._last_s)
        self._last_w, self._last_s = now_w, now_s
        return self._sum_j


def _rapl(sys_root: Path) -> list[Counter]:
    """Packages and memory; cores and the graphics unit are part of a package, and `psys` holds all of them again.

    https://docs.kernel.org/power/powercap/powercap.html; the files belong to root on most systems.
    """
    counters = []
    for zone in sorted((sys_root / "class/powercap").glob("intel-rapl:*")):  # AMD's zones have that name too
        with suppress(OSError, ValueError):
            name = (zone / "name").read_text().strip()
            if name.startswith(("package-", "dram")):
                range_uj = int((zone / "max_energy_range_uj").read_text())
                counters.append(Counter(f"RAPL {name}", Wrapping(_reader(zone / "energy_uj"), range_uj).read_j))
    return counters


def _nvml() -> list[Counter]:
    """Each GPU since its driver was loaded; Volta and later, and only where `pynvml` is installed."""
    if importlib.util.find_spec("pynvml") is None:
        return []
    pynvml: Any = importlib.import_module("pynvml")
    counters = []
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # older ones refuse

            def read_j(handle: Any = handle) -> float:
                try:
                    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
                except pynvml.NVMLError as error:
                    raise OSError(str(error)) from error

            counters.append(Counter(f"NVML GPU {index}", read_j))
    return counters


def _batteries(sys_root: Path) -> list[Counter]:
    counters = []
    for supply in sorted((sys_root / "class/power_supply").glob("*")):
        with suppress(OSError, ValueError):
            of_a_device = (supply / "scope").exists() and (supply / "scope").read_text().strip() == "Device"  # a mouse
            if (supply / "type").read_text().strip() == "Battery" and not of_a_device:
                counters.append(Counter(f"battery {supply.name}", Integrating(_discharge(supply)).read_j))
    return counters


def _discharge(supply: Path) -> Callable[[], float]:
    """What leaves the battery, in watts; raises `ValueError` when nothing does.

    https://docs.kernel.org/power/power_supply_class.html: microwatts, or microvolts and microamperes.
    """

    def read_w() -> float:
        if (supply / "status").read_text().strip() != "Discharging":
            raise ValueError(f"{supply.name} is not being discharged")
        if (supply / "power_now").exists():
            return abs(int((supply / "power_now").read_text())) / 1e6
        micro = (int((supply / name).read_text()) for name in ("voltage_now", "current_now"))
        return abs(next(micro) * next(micro)) / 1e12

    return read_w


def _reader(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_text())
