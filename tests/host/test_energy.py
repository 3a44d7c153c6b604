from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.host import energy
from tests.host.test_watch import write

RANGE_UJ = 262_143_328_850


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmkit.host.energy._nvml", list)


def zone(root: Path, name: str, kind: str, energy_uj: int) -> Path:
    folder = root / "class/powercap" / name
    write(folder / "name", kind)
    write(folder / "energy_uj", energy_uj)
    write(folder / "max_energy_range_uj", RANGE_UJ)
    return folder


def battery(root: Path, status: str = "Discharging", **files: int | str) -> Path:
    folder = root / "class/power_supply/BAT0"
    for name, value in {"type": "Battery", "status": status, **files}.items():
        write(folder / name, value)
    return folder


def test_nothing_to_read_is_no_meter(tmp_path: Path) -> None:
    assert energy.meter(tmp_path) is None


def test_packages_and_memory_add_up_and_their_parts_do_not_count_twice(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 7)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    system = zone(tmp_path, "intel-rapl:1", "psys", 0)
    meter = energy.meter(tmp_path)
    assert meter is not None
    assert not energy.locked(tmp_path)
    assert meter.names == ("RAPL package-0", "RAPL dram")
    before = meter.read_j()
    write(package / "energy_uj", 3_500_000)
    write(memory / "energy_uj", 500_007)
    write(core / "energy_uj", 2_000_000)
    write(system / "energy_uj", 9_000_000)
    after = meter.read_j()
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(3.0)


@given(st.integers(0, RANGE_UJ - 1), st.lists(st.integers(0, RANGE_UJ - 1), max_size=20))
def test_a_counter_that_begins_again_only_grows(start_uj: int, steps_uj: list[int]) -> None:
    true_uj = start_uj
    counter = energy.Wrapping(lambda: true_uj % RANGE_UJ, RANGE_UJ)
    for step_uj in steps_uj:
        true_uj += step_uj
        assert counter.read_j() == pytest.approx((true_uj - start_uj) / 1e6)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_counter_of_root_is_no_meter_for_others(tmp_path: Path) -> None:
    (zone(tmp_path, "intel-rapl:0", "package-0", 1) / "energy_uj").chmod(0)
    assert energy.meter(tmp_path) is None
    assert energy.locked(tmp_path)


def test_a_damaged_counter_is_no_meter(tmp_path: Path) -> None:
    write(zone(tmp_path, "intel-rapl:0", "package-0", 1) / "energy_uj", "?")
    assert energy.meter(tmp_path) is None


def test_a_counter_that_goes_away_is_unknown_from_then_on(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    meter = energy.meter(tmp_path)
    assert meter is not None
    (package / "energy_uj").unlink()
    assert meter.read_j() is None


def test_power_over_time_is_energy() -> None:
    watts, seconds = iter((10.0, 20.0, 20.0)), iter((0.0, 2.0, 3.0))
    counter = energy.Integrating(lambda: next(watts), lambda: next(seconds))
    assert counter.read_j() == pytest.approx(30.0)
    assert counter.read_j() == pytest.approx(50.0)


@pytest.mark.parametrize(
    "files",
    [{"power_now": 12_500_000}, {"power_now": -12_500_000}, {"voltage_now": 12_500_000, "current_now": 1_000_000}],
    ids=["power", "negative", "current"],
)
def test_a_battery_tells_its_power(tmp_path: Path, files: dict[str, int]) -> None:
    supply = battery(tmp_path, "Discharging", **files)
    assert energy._discharge(supply)() == pytest.approx(12.5)
    meter = energy.meter(tmp_path)
    assert meter is not None
    assert meter.names == ("battery BAT0",)
    first, second = meter.read_j(), meter.read_j()
    assert first is not None
    assert second is not None
    assert 0 <= first <= second
    write(supply / "status", "Charging")
    assert meter.read_j() is None


def test_a_battery_that_is_not_discharged_or_a_mouse_has_is_no_meter(tmp_path: Path) -> None:
    battery(tmp_path, "Full", power_now=0)
    assert energy.meter(tmp_path) is None
    battery(tmp_path, power_now=10, scope="Device")
    assert energy.meter(tmp_path) is None


def test_counters_go_before_a_battery(tmp_path: Path) -> None:
    battery(tmp_path, power_now=10)
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    meter = energy.meter(tmp_path)
    assert meter is not None
    assert meter.names == ("RAPL package-0",)
