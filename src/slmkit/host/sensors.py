"""Clock, heat and power of this machine, as Linux tells in /sys; `None` where it does not.

https://docs.kernel.org/admin-guide/pm/cpufreq.html, https://docs.kernel.org/admin-guide/abi-testing.html
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

SYS = Path("/sys")
_CPUS = "devices/system/cpu"
_TURBO_DRIVERS = ("intel_pstate", "intel_cpufreq", "amd-pstate", "acpi-cpufreq", "pcc-cpufreq")
"""Of these `cpuinfo_max_freq` is, or may be, a turbo clock that no CPU holds on all cores."""
_CPU_COOLERS = ("Processor", "cpufreq-", "thermal-cpufreq-")
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu", "soc", "x86_pkg_temp")


def frequency_hz(sys_root: Path = SYS) -> float | None:
    """Of the fastest core, now: those that have nothing to do clock down, and a hot package slows all of them."""
    khz = list(_numbers(sys_root / _CPUS, "cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if khz:
        return max(khz) * 1e3
    if sys.platform == "linux":  # the "cpu MHz" that psutil would read is a constant on virtual machines
        return None
    with suppress(OSError, NotImplementedError, RuntimeError):
        frequency = psutil.cpu_freq()
        return float(frequency.current) * 1e6 if frequency and frequency.current else None
    return None


def nominal_hz(sys_root: Path = SYS) -> float | None:
    """The clock that the CPU holds on all cores: its base frequency, or the highest one where there is no turbo."""
    khz = list(_numbers(sys_root / _CPUS, "cpu[0-9]*/cpufreq/base_frequency"))
    if not khz:
        drivers = {_text(path) for path in (sys_root / _CPUS).glob("cpu[0-9]*/cpufreq/scaling_driver")}
        if not any(driver.startswith(_TURBO_DRIVERS) for driver in drivers if driver):
            khz = list(_numbers(sys_root / _CPUS, "cpu[0-9]*/cpufreq/cpuinfo_max_freq"))
    return max(khz) * 1e3 if khz else None


def throttle_events(sys_root: Path = SYS) -> int | None:
    """How often cores, and the package, were slowed for heat since the start of the system; x86 only."""
    cores = list(_numbers(sys_root / _CPUS, "cpu[0-9]*/thermal_throttle/core_throttle_count"))
    packages = list(_numbers(sys_root / _CPUS, "cpu[0-9]*/thermal_throttle/package_throttle_count"))
    return int(sum(cores) + max(packages, default=0)) if cores or packages else None


def cooled(sys_root: Path = SYS) -> bool | None:
    """Whether the system holds the CPU's clock down now, to cool it: how ARM boards do it."""
    states = [
        state
        for device in (sys_root / "class/thermal").glob("cooling_device[0-9]*")
        if (_text(device / "type") or "").startswith(_CPU_COOLERS)
        for state in _numbers(device, "cur_state")
    ]
    return any(state > 0 for state in states) if states else None


def temperature_c(sys_root: Path = SYS) -> float | None:
    """The hottest of the CPU's sensors, now."""
    found = [
        milli
        for chip, files in (
            ("class/hwmon/hwmon[0-9]*/name", "temp*_input"),
            ("class/thermal/thermal_zone*/type", "temp"),
        )
        for name in sys_root.glob(chip)
        if (_text(name) or "").startswith(_CPU_SENSORS)
        for milli in _numbers(name.parent, files)
    ]
    return max(found) / 1e3 if found else None


def on_battery() -> bool | None:
    """Whether a battery powers this machine now; `None` without one."""
    with suppress(OSError, NotImplementedError, RuntimeError, AttributeError):
        battery = psutil.sensors_battery()
        return None if battery is None or battery.power_plugged is None else not battery.power_plugged
    return None


def power_saver(sys_root: Path = SYS) -> bool | None:
    """Whether speed was given up for power: the platform's profile, or what was asked of the CPU's own governor."""
    profile = _text(sys_root / "firmware/acpi/platform_profile")
    cpufreq = sys_root / _CPUS / "cpu0/cpufreq"
    governor, driver = _text(cpufreq / "scaling_governor"), _text(cpufreq / "scaling_driver")
    preference = _text(cpufreq / "energy_performance_preference")
    if profile is None and governor is None:
        return None
    # Drivers that choose the clock by themselves call that "powersave" too.
    lowest = governor == "powersave" and not (driver or "").startswith(("intel_pstate", "amd-pstate-epp"))
    return profile == "low-power" or preference == "power" or lowest


def _numbers(folder: Path, pattern: str) -> Iterator[float]:
    for path in folder.glob(pattern):
        with suppress(ValueError):
            yield float(_text(path) or "")


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
