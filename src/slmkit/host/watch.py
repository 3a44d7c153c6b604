"""Looks at the machine before and after a measurement: what else it did meanwhile. Nothing runs in between."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import psutil

from slmkit.core.noise import Seen
from slmkit.host import cgroups, sensors

_Number = TypeVar("_Number", int, float)


class Watch:
    """`with Watch(own=lambda: {child.pid}) as watch: ...; seen = watch.seen()`.

    `own` names the direct children of this process whose work is not a disturbance, as they are when it is called; one
    that has ended by then is known by what it left to its parent.
    """

    def __init__(
        self,
        own: Callable[[], Collection[int]] = frozenset,
        *,
        proc_root: Path = cgroups.PROC,
        sys_root: Path = sensors.SYS,
    ) -> None:
        self._own = own
        self._proc_root = proc_root
        self._sys_root = sys_root
        self._frequencies: list[float] = []
        self._temperatures: list[float] = []
        self._before: _Counters | None = None
        self._after: _Counters | None = None

    def __enter__(self) -> Watch:
        self._heat()
        self._before = self._count()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._after = self._count()
        self._heat()

    def sample(self) -> None:
        """Note clock and heat. To be called while a child computes: a CPU that has nothing to do clocks down."""
        frequency = sensors.frequency_hz(self._sys_root)
        if frequency is not None:
            self._frequencies.append(frequency)
        self._heat()

    def seen(self) -> Seen:
        """From entering to leaving the block, or until now within it."""
        if self._before is None:
            raise RuntimeError("nothing was watched: `with Watch() as watch`")
        before, after = self._before, self._after or self._count()
        elapsed_s = after.at_s - before.at_s
        frequencies = self._frequencies
        return Seen(
            elapsed_s=elapsed_s,
            n_cores=psutil.cpu_count() or 1,
            load_before=before.load,
            load_after=after.load,
            others_cpu_s=max(0.0, (after.busy_s - before.busy_s) - (after.own_s - before.own_s)),
            steal_s=_grown(before.steal_s, after.steal_s),
            quota_stalled_s=_grown(before.quota_stalled_s, after.quota_stalled_s),
            involuntary_switches=_grown(before.involuntary_switches, after.involuntary_switches),
            cpu_pressure_share=_share(before.cpu_stalled_s, after.cpu_stalled_s, elapsed_s),
            memory_pressure_share=_share(before.memory_stalled_s, after.memory_stalled_s, elapsed_s),
            swapped_in_pages=_grown(before.swapped_in_pages, after.swapped_in_pages),
            swapped_out_pages=_grown(before.swapped_out_pages, after.swapped_out_pages),
            frequency_min_hz=min(frequencies, default=None),
            frequency_mean_hz=sum(frequencies) / len(frequencies) if frequencies else None,
            frequency_nominal_hz=sensors.nominal_hz(self._sys_root),
            throttle_events=_grown(before.throttle_events, after.throttle_events),
            cooled=_either(before.cooled, after.cooled),
            temperature_max_c=max(self._temperatures, default=None),
            on_battery=_either(before.on_battery, after.on_battery),
            power_saver=_either(before.power_saver, after.power_saver),
        )

    def _heat(self) -> None:
        temperature = sensors.temperature_c(self._sys_root)
        if temperature is not None:
            self._temperatures.append(temperature)

    def _count(self) -> _Counters:
        children = list(self._own())
        times = psutil.cpu_times()
        busy = ("user", "nice", "system", "irq", "softirq")  # guests are part of user, steal is nobody's here
        swapped = _pairs(self._proc_root / "vmstat")
        return _Counters(
            at_s=time.monotonic(),
            busy_s=sum(getattr(times, name, 0.0) for name in busy),
            own_s=_own_cpu_s(children),
            steal_s=getattr(times, "steal", None),
            load=_load(),
            quota_stalled_s=cgroups.quota_stalled_s(self._proc_root),
            involuntary_switches=_involuntary_switches(children, self._proc_root),
            cpu_stalled_s=_stalled_s(self._proc_root / "pressure/cpu"),
            memory_stalled_s=_stalled_s(self._proc_root / "pressure/memory"),
            swapped_in_pages=swapped.get("pswpin"),
            swapped_out_pages=swapped.get("pswpout"),
            throttle_events=sensors.throttle_events(self._sys_root),
            cooled=sensors.cooled(self._sys_root),
            on_battery=sensors.on_battery(),
            power_saver=sensors.power_saver(self._sys_root),
        )


@dataclass(frozen=True)
class _Counters:
    """All counters at one moment; those that grow count from the start of the system or of this process."""

    at_s: float
    busy_s: float
    own_s: float
    steal_s: float | None
    load: float | None
    quota_stalled_s: float | None
    involuntary_switches: int | None
    cpu_stalled_s: float | None
    memory_stalled_s: float | None
    swapped_in_pages: int | None
    swapped_out_pages: int | None
    throttle_events: int | None
    cooled: bool | None
    on_battery: bool | None
    power_saver: bool | None


def _own_cpu_s(children: Collection[int]) -> float:
    """Of this process, of its children that have ended, and of these, with what ended below them."""
    own = os.times()
    seconds = own.user + own.system + own.children_user + own.children_system
    for pid in children:
        with suppress(psutil.Error):  # it has just ended, and counts above
            times = psutil.Process(pid).cpu_times()
            seconds += times.user + times.system
            seconds += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return seconds


def _involuntary_switches(children: Collection[int], proc_root: Path) -> int | None:
    """Of all threads of the children, dead or alive; `None` where that is not told of a live one."""
    if sys.platform == "win32":
        return None
    import resource

    count = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nivcsw
    for pid in children:
        for status in proc_root.glob(f"{pid}/task/*/status"):
            count += _pairs(status).get("nonvoluntary_ctxt_switches:", 0)
    return count if proc_root.exists() or not children else None


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _stalled_s(path: Path) -> float | None:
    """`total` of the line `some`, which is in microseconds (https://docs.kernel.org/accounting/psi.html)."""
    for line in _lines(path):
        if line.startswith("some "):
            return int(line.rpartition("total=")[2]) / 1e6
    return None


def _pairs(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not there, not ours, or ended in this moment
        return []


def _grown(before: _Number | None, after: _Number | None) -> _Number | None:
    return None if before is None or after is None else max(after - before, type(after)(0))


def _share(before: float | None, after: float | None, elapsed_s: float) -> float | None:
    grown = _grown(before, after)
    return None if grown is None or elapsed_s <= 0 else min(1.0, grown / elapsed_s)


def _either(before: bool | None, after: bool | None) -> bool | None:
    return None if before is None and after is None else bool(before or after)
