from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slmkit.core.noise import Seen, judge
from slmkit.host import cgroups, memory
from tests.host.test_watch import write


def container(root: Path, mounts: str, groups: str) -> Path:
    """A made-up /proc; `{}` is the folder where groups are mounted."""
    proc = root / "proc"
    write(proc / "mounts", mounts.format(root / "cgroup"))
    write(proc / "self/cgroup", groups)
    (root / "cgroup").mkdir()
    return proc


V2 = "cgroup2 {} cgroup2 rw,nosuid,nodev,noexec,relatime 0 0"
V1 = "cgroup {} cgroup rw,relatime,cpu,cpuacct 0 0"


def test_version_2(tmp_path: Path) -> None:
    proc = container(tmp_path, V2, "0::/user.slice/me.scope")
    group = tmp_path / "cgroup/user.slice/me.scope"
    write(group / "cpu.max", "150000 100000")
    write(group / "cpu.stat", "usage_usec 5000\nnr_throttled 3\nthrottled_usec 2500000")
    assert cgroups.own_v2(proc) == group
    assert cgroups.cpu_quota_cores(proc) == 1.5
    assert cgroups.quota_stalled_s(proc) == 2.5
    write(group / "cpu.max", "max 100000")
    assert cgroups.cpu_quota_cores(proc) is None


def test_version_1(tmp_path: Path) -> None:
    proc = container(tmp_path, V1, "4:memory:/m\n1:cpu,cpuacct:/docker/abc")
    group = tmp_path / "cgroup/docker/abc"
    write(group / "cpu.cfs_quota_us", 50_000)
    write(group / "cpu.cfs_period_us", 100_000)
    write(group / "cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 1500000000")
    assert cgroups.own_v1("cpu", proc) == group
    assert cgroups.cpu_quota_cores(proc) == 0.5
    assert cgroups.quota_stalled_s(proc) == 1.5
    write(group / "cpu.cfs_quota_us", -1)
    assert cgroups.cpu_quota_cores(proc) is None
    with pytest.raises(FileNotFoundError):
        cgroups.own_v1("memory", proc)


def test_a_container_that_sees_the_path_of_its_host(tmp_path: Path) -> None:
    proc = container(tmp_path, V2, "0::/system.slice/docker-1234.scope")
    write(tmp_path / "cgroup/cpu.max", "200000 100000")
    assert cgroups.cpu_quota_cores(proc) == 2.0


def test_no_groups_is_no_quota(tmp_path: Path) -> None:
    assert cgroups.cpu_quota_cores(tmp_path) is None
    assert cgroups.quota_stalled_s(tmp_path) is None
    assert cgroups.memory_limit_bytes(tmp_path) is None


def test_the_memory_of_a_group_is_the_least_of_it_and_those_above(tmp_path: Path) -> None:
    proc = container(tmp_path, V2, "0::/user.slice/me.scope")
    group = tmp_path / "cgroup/user.slice/me.scope"
    assert cgroups.memory_limit_bytes(proc) is None
    write(group / "memory.max", "max")
    assert cgroups.memory_limit_bytes(proc) is None
    write(group.parent / "memory.max", 3 << 30)
    assert cgroups.memory_limit_bytes(proc) == 3 << 30
    write(group / "memory.max", 2 << 30)
    assert cgroups.memory_limit_bytes(proc) == 2 << 30
    write(tmp_path / "memory.max", 1)  # above the mount: no group
    assert cgroups.memory_limit_bytes(proc) == 2 << 30


def test_the_memory_of_a_group_of_version_1(tmp_path: Path) -> None:
    both = f"{V2}\n{V1.replace('cpu,cpuacct', 'memory').replace('{}', '{}/memory')}"
    proc = tmp_path / "proc"
    write(proc / "mounts", both.replace("{}", str(tmp_path / "cgroup")))
    write(proc / "self/cgroup", "4:memory:/docker/abc\n0::/")
    group = tmp_path / "cgroup/memory/docker/abc"
    write(group / "memory.limit_in_bytes", 9223372036854771712)
    assert cgroups.memory_limit_bytes(proc) is None
    write(group / "memory.limit_in_bytes", 512 << 20)
    assert cgroups.memory_limit_bytes(proc) == 512 << 20
    write(tmp_path / "cgroup/memory.max", 256 << 20)
    assert cgroups.memory_limit_bytes(proc) == 256 << 20


def test_a_limit_above_the_machines_memory_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    total = memory.total_bytes()
    for limit, usable in ((total * 2, total), (1 << 20, 1 << 20), (None, total)):
        monkeypatch.setattr(cgroups, "memory_limit_bytes", lambda limit=limit: limit)
        assert memory.usable_bytes() == usable
        assert memory.container_bytes() == (usable if usable < total else None)
        assert memory.available_bytes() <= usable


WATCHED = """
import json, time
from slmkit.host import cgroups
from slmkit.host.watch import Watch
with Watch() as watch:
    end = time.monotonic() + 1
    while time.monotonic() < end:
        pass
print(json.dumps([cgroups.cpu_quota_cores(), watch.seen().document()]))
"""


def test_a_quota_is_felt_and_named(tmp_path: Path) -> None:
    """A real one, of a quarter of a core, below this process's own group."""
    try:
        group = cgroups.own_v1("cpu") / "slmkit-test-quota"
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no right to a group for cpu here: {error}")
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("25000")
        command = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]
        done = subprocess.run(
            [*command, sys.executable, "-c", WATCHED], capture_output=True, text=True, check=True, timeout=60
        )
    finally:
        group.rmdir()
    quota, document = json.loads(done.stdout)
    assert quota == 0.25
    seen = Seen(**document)
    assert seen.quota_stalled_s is not None
    assert seen.quota_stalled_s > 0.2
    verdict = judge(seen)
    assert verdict.state == "throttled"
    assert "the CPU quota of this container" in " ".join(verdict.reasons)
