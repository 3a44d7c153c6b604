"""The real machine can only be asked for what is surely there: work of others, work of our own. The rest is made up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from slmkit.core.noise import judge
from slmkit.host import sensors
from slmkit.host.watch import Watch

SPIN = "while True: pass"
COMPUTE = "sum(i * i for i in range(6_000_000))"


@pytest.fixture
def busy() -> Iterator[None]:
    """Enough programs that spin to be noticed on this machine: a quarter of its cores, at least one."""
    command = [sys.executable, "-c", SPIN]
    loops = [subprocess.Popen(command) for _ in range(max(1, (os.cpu_count() or 1) // 4))]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


def test_a_busy_loop_beside_it_is_seen(busy: None) -> None:
    with Watch() as watch:
        time.sleep(1)
    seen = watch.seen()
    assert seen.others_cpu_s is not None
    assert seen.others_cpu_s > 0.05 * seen.n_cores
    verdict = judge(seen)
    assert verdict.state in ("noisy", "throttled")
    assert any("other programs used" in reason for reason in verdict.reasons)


def test_the_work_of_its_own_children_is_not_a_disturbance() -> None:
    """Two watches at the same time, of which one knows the child: they differ by its work, whatever else runs."""
    child = subprocess.Popen([sys.executable, "-c", SPIN])
    process = psutil.Process(child.pid)
    with Watch() as strange, Watch(own=lambda: {child.pid}) as known:
        before = process.cpu_times().user
        while process.cpu_times().user < before + 0.5:
            time.sleep(0.02)
    child.kill()
    child.wait()
    one, other = strange.seen().others_cpu_s, known.seen().others_cpu_s
    assert one is not None
    assert other is not None
    assert one - other > 0.3


def test_what_children_did_is_subtracted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 s were used by all: 3 s by a child that is alive, 1.5 s by one that has ended."""
    cpu = psutil.cpu_times()
    system = [cpu]
    clock = {"alive": 10.0, "dead": 20.0}

    class Alive:
        def __init__(self, pid: int) -> None:
            assert pid == 77

        def cpu_times(self) -> object:
            return type("Times", (), {"user": clock["alive"], "system": 0.0})()

    times = os.times()
    monkeypatch.setattr("psutil.cpu_times", lambda: system[0])
    monkeypatch.setattr("psutil.Process", Alive)
    monkeypatch.setattr(
        "os.times", lambda: os.times_result((times.user, times.system, clock["dead"], 0.0, times.elapsed))
    )
    with Watch(own=lambda: {77}) as watch:
        system[0] = cpu._replace(user=cpu.user + 5.0)
        clock.update(alive=13.0, dead=21.5)
    assert watch.seen().others_cpu_s == pytest.approx(0.5)


def test_reading_twice_within_and_after() -> None:
    with Watch() as watch:
        first = watch.seen()
        second = watch.seen()
    after = watch.seen()
    assert first.elapsed_s <= second.elapsed_s <= after.elapsed_s
    assert watch.seen() == after


def test_nothing_watched_is_said() -> None:
    with pytest.raises(RuntimeError, match="with Watch"):
        Watch().seen()


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    with Watch(own=lambda: {2**22 + 1}, proc_root=tmp_path / "proc", sys_root=tmp_path / "sys") as watch:
        watch.sample()
    seen = watch.seen()
    for name in ("cpu_pressure_share", "memory_pressure_share", "swapped_in_pages", "swapped_out_pages"):
        assert getattr(seen, name) is None
    for name in ("involuntary_switches", "frequency_nominal_hz", "throttle_events", "cooled", "power_saver"):
        assert getattr(seen, name) is None


def write(path: Path, text: str | int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def proc(root: Path, *, stalled_us: int, swapped: int, switches: int) -> Path:
    """The files of /proc that are read, in their real form."""
    for name in ("cpu", "memory"):
        write(
            root / "pressure" / name,
            f"some avg10=0.02 avg60=0.94 avg300=2.33 total={stalled_us}\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=31918353",
        )
    write(root / "vmstat", f"nr_free_pages 4552641\npswpin {swapped}\npswpout {2 * swapped}")
    for thread in (7, 8):
        write(root / f"7/task/{thread}/status", f"Name:\tpython\nnonvoluntary_ctxt_switches:\t{switches}")
    return root


def test_counters_of_a_recorded_tree(tmp_path: Path) -> None:
    root = proc(tmp_path, stalled_us=1_000_000, swapped=10, switches=5)
    with Watch(own=lambda: {7}, proc_root=root, sys_root=tmp_path / "sys") as watch:
        time.sleep(0.2)
        proc(tmp_path, stalled_us=1_050_000, swapped=40, switches=9)
    seen = watch.seen()
    assert seen.swapped_in_pages == 30
    assert seen.swapped_out_pages == 60
    assert seen.involuntary_switches == 8
    assert seen.cpu_pressure_share == pytest.approx(0.05 / seen.elapsed_s)
    assert seen.memory_pressure_share == seen.cpu_pressure_share


def board(root: Path, *, khz: int, cooling: int = 0, driver: str = "cpufreq-dt", base_khz: int | None = None) -> Path:
    """A small computer's /sys: two idle cores and a busy one at `khz`."""
    for core, speed in enumerate((600_000, khz, 600_000)):
        cpufreq = root / f"devices/system/cpu/cpu{core}/cpufreq"
        write(cpufreq / "scaling_cur_freq", speed)
        write(cpufreq / "cpuinfo_max_freq", 2_400_000)
        write(cpufreq / "scaling_driver", driver)
        write(cpufreq / "scaling_governor", "ondemand")
        if base_khz:
            write(cpufreq / "base_frequency", base_khz)
    write(root / "class/thermal/cooling_device0/type", "pwm-fan")
    write(root / "class/thermal/cooling_device0/cur_state", 4)
    write(root / "class/thermal/cooling_device1/type", "cpufreq-cpu0")
    write(root / "class/thermal/cooling_device1/cur_state", cooling)
    write(root / "class/thermal/thermal_zone0/type", "cpu-thermal")
    write(root / "class/thermal/thermal_zone0/temp", 81_500)
    write(root / "class/hwmon/hwmon0/name", "nvme")
    write(root / "class/hwmon/hwmon0/temp1_input", 99_000)
    return root


def test_a_board_that_is_cooled_is_throttled(tmp_path: Path) -> None:
    root = board(tmp_path, khz=2_400_000)
    with Watch(sys_root=root) as watch:
        watch.sample()
        board(tmp_path, khz=1_500_000, cooling=3)
        watch.sample()
    seen = watch.seen()
    assert (seen.frequency_min_hz, seen.frequency_mean_hz, seen.frequency_nominal_hz) == (1.5e9, 1.95e9, 2.4e9)
    assert seen.cooled
    assert seen.temperature_max_c == 81.5
    verdict = judge(seen)
    assert verdict.state == "throttled"
    assert "at 82 °C" in verdict.reasons[0]
    assert "1.95 GHz" in verdict.reasons[1]


def test_a_running_fan_is_no_throttling(tmp_path: Path) -> None:
    assert sensors.cooled(board(tmp_path, khz=2_400_000)) is False


@pytest.mark.parametrize(
    ("driver", "base_khz", "hz"),
    [("cpufreq-dt", None, 2.4e9), ("intel_pstate", 1_800_000, 1.8e9), ("amd-pstate-epp", None, None)],
)
def test_the_highest_clock_is_nominal_only_without_turbo(
    tmp_path: Path, driver: str, base_khz: int | None, hz: float | None
) -> None:
    assert sensors.nominal_hz(board(tmp_path, khz=1, driver=driver, base_khz=base_khz)) == hz


def test_throttle_counts_of_cores_add_up_and_the_package_counts_once(tmp_path: Path) -> None:
    assert sensors.throttle_events(tmp_path) is None
    for core in range(4):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/thermal_throttle"
        write(folder / "core_throttle_count", core)
        write(folder / "package_throttle_count", 100)
    assert sensors.throttle_events(tmp_path) == 106


@pytest.mark.parametrize(
    ("driver", "governor", "preference", "saves"),
    [
        ("intel_pstate", "powersave", "balance_performance", False),
        ("intel_pstate", "powersave", "power", True),
        ("amd-pstate-epp", "powersave", "balance_power", False),
        ("acpi-cpufreq", "powersave", None, True),
        ("cpufreq-dt", "ondemand", None, False),
    ],
)
def test_powersave_saves_only_where_no_driver_thinks_for_itself(
    tmp_path: Path, driver: str, governor: str, preference: str | None, saves: bool
) -> None:
    cpufreq = tmp_path / "devices/system/cpu/cpu0/cpufreq"
    write(cpufreq / "scaling_driver", driver)
    write(cpufreq / "scaling_governor", governor)
    if preference:
        write(cpufreq / "energy_performance_preference", preference)
    assert sensors.power_saver(tmp_path) is saves


def test_the_profile_of_the_platform_is_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "firmware/acpi/platform_profile", "low-power")
    assert sensors.power_saver(tmp_path)
    write(tmp_path / "firmware/acpi/platform_profile", "balanced")
    assert sensors.power_saver(tmp_path) is False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_linux_tells_of_swap_and_switches() -> None:
    child = subprocess.Popen([sys.executable, "-c", COMPUTE])
    with Watch(own=lambda: {child.pid}) as watch:
        child.wait()
    seen = watch.seen()
    assert seen.swapped_in_pages is not None
    assert seen.involuntary_switches is not None
    assert seen.load_before is not None
