"""What else the machine did while something was measured, and whether the numbers can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "noisy", "throttled"]

OTHERS_SHARE = 0.05
"""Of all cores, used by other programs. One that spins takes at least this much of up to 20 cores; also a core that was
free is not harmless to take: memory bandwidth and turbo clocks are shared. A quiet desktop stays under 2 %."""
STEAL_SHARE = 0.02
"""Of all cores, taken by other guests of the same hypervisor."""
MEMORY_PRESSURE_SHARE = 0.02
"""Of the time, in which some thread waited for memory that was being freed or read back."""
QUOTA_SHARE = 0.01
"""Of all cores, kept from this process's container by its quota of CPU time."""
SWAPPED_PAGES_PER_S = 100.0
"""Pages in and out, of all programs. A few are the system tidying up; these are 400 KB/s."""
SLOWEST_CLOCK_SHARE = 0.95
"""Of the nominal frequency, which a CPU holds on all cores when it is cool and has power; turbo lies above."""


@dataclass(frozen=True)
class Seen:
    """One stretch of time on one machine. Whatever the system does not tell is `None`.

    Shares of cores are of all logical ones; "others" is everything but this process and the children that it named.
    """

    elapsed_s: float
    n_cores: int
    load_before: float | None = None
    """Load average over the last minute, own threads included: a fact, not judged."""
    load_after: float | None = None
    others_cpu_s: float | None = None
    steal_s: float | None = None
    quota_stalled_s: float | None = None
    """How long cores stood still because this process's group (a container) had used up its share of CPU time."""
    involuntary_switches: int | None = None
    """How often threads of the children were taken off their core: a fact, not judged."""
    cpu_pressure_share: float | None = None
    """Of the time, in which some thread waited for a core: a fact, not judged (too many own threads wait as well)."""
    memory_pressure_share: float | None = None
    swapped_in_pages: int | None = None
    swapped_out_pages: int | None = None
    frequency_min_hz: float | None = None
    """Of the fastest core at each look (idle ones clock down)."""
    frequency_mean_hz: float | None = None
    frequency_nominal_hz: float | None = None
    throttle_events: int | None = None
    cooled: bool | None = None
    """Whether the system held the CPU's clock down to cool it, at the start or at the end."""
    temperature_max_c: float | None = None
    on_battery: bool | None = None
    power_saver: bool | None = None

    @property
    def others_share(self) -> float | None:
        """Of all cores, between 0 and 1."""
        return self._of_all_cores(self.others_cpu_s)

    @property
    def steal_share(self) -> float | None:
        """Of all cores, between 0 and 1."""
        return self._of_all_cores(self.steal_s)

    @property
    def quota_share(self) -> float | None:
        """Of all cores, kept from this process's group by its quota; between 0 and 1."""
        return self._of_all_cores(self.quota_stalled_s)

    def _of_all_cores(self, seconds: float | None) -> float | None:
        if seconds is None or self.elapsed_s <= 0:
            return None
        return min(1.0, seconds / (self.elapsed_s * self.n_cores))

    def document(self) -> dict[str, Any]:
        """As JSON; `Seen(**document)` is the inverse."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """`noisy`: something disturbed, measure again. `throttled`: the machine held itself back, and may do so again.

    Each reason says what was seen and what to do. `ok` has none.
    """

    state: State
    reasons: tuple[str, ...] = ()


def judge(seen: Seen) -> Verdict:
    """Hold `seen` against the thresholds above. What the system does not tell counts as harmless.

    Throttled wins over noisy; the reasons of both are there.
    """
    throttled, noisy = tuple(_throttled(seen)), tuple(_noisy(seen))
    state: State = "throttled" if throttled else "noisy" if noisy else "ok"
    return Verdict(state, (*throttled, *noisy))


def _throttled(seen: Seen) -> Iterator[str]:
    hot = f" at {seen.temperature_max_c:.0f} °C" if seen.temperature_max_c is not None else ""
    if seen.throttle_events or seen.cooled:
        yield f"the CPU slowed down to cool off{hot}: let it cool, or use fewer threads (-t)"
    mean, nominal = seen.frequency_mean_hz, seen.frequency_nominal_hz
    if mean is not None and nominal and mean < SLOWEST_CLOCK_SHARE * nominal:
        yield (
            f"the CPU ran at {mean / 1e9:.2f} GHz, its nominal clock is {nominal / 1e9:.2f} GHz{hot}: "
            "check cooling, power supply and power limits"
        )
    if _above(seen.quota_share, QUOTA_SHARE):
        yield (
            f"the CPU quota of this container kept {seen.quota_share:.0%} of the cores back: use fewer threads (-t), "
            "or raise the quota"
        )
    if seen.power_saver:
        yield "a power saving mode is on: choose the balanced or performance mode"
    if seen.on_battery:
        yield "on battery, where many machines slow down: plug in the power supply"


def _noisy(seen: Seen) -> Iterator[str]:
    if _above(seen.others_share, OTHERS_SHARE) and seen.others_cpu_s is not None:
        cores = seen.others_cpu_s / seen.elapsed_s
        used = f"{cores:.0%} of a core" if cores < 1 else f"{cores:.1f} of {seen.n_cores} cores"
        yield f"other programs used {used}: close them, or wait"
    if _above(seen.steal_share, STEAL_SHARE):
        yield (
            f"other virtual machines on this computer took {seen.steal_share:.1%} of the cores: measure again later, "
            "or on a machine of its own"
        )
    if _above(seen.memory_pressure_share, MEMORY_PRESSURE_SHARE):
        yield (
            f"for {seen.memory_pressure_share:.0%} of the time a thread waited for memory: close other programs, "
            "or take a smaller type or context"
        )
    swapped = (seen.swapped_in_pages or 0) + (seen.swapped_out_pages or 0)
    if swapped > SWAPPED_PAGES_PER_S * seen.elapsed_s:
        yield f"{swapped:,} pages were swapped: close other programs, or take a smaller type or context"


def _above(share: float | None, threshold: float) -> bool:
    return share is not None and share > threshold
