from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.backends.llamacpp import child
from slmkit.errors import EngineError
from slmkit.host import limits

MIB = 2**20
KIND = limits.means().kind
limitable = pytest.mark.skipif(KIND is None, reason=str(limits.means().reason))


def run(limit: limits.Limit | None, code: str) -> subprocess.CompletedProcess[str]:
    assert limit is not None
    return subprocess.run(
        [*limit.command, sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_child_gets_so_much_and_no_more(way: limits.Kind) -> None:
    with limits.limited(200 * MIB) as limit:
        assert limit is not None
        assert (limit.kind, limit.size_bytes) == (way, 200 * MIB)
        assert run(limit, f"len(b'x' * {100 * MIB})").returncode == 0
        assert run(limit, f"len(b'x' * {300 * MIB})").returncode != 0


def test_the_process_that_was_started_is_the_child(way: limits.Kind) -> None:
    with limits.limited(200 * MIB) as limit:
        assert limit is not None
        command = [*limit.command, sys.executable, "-c", "import os; print(os.getpid())"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.communicate(timeout=60)[0].strip() == str(process.pid)


def test_mapped_files_count_even_when_they_were_in_the_cache(way: limits.Kind, tmp_path: Path) -> None:
    """Cached pages belong to who read them first: without dropping them a model of any size would seem to fit."""
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(MIB) * 150)
    path.read_bytes()
    touch = (
        f"import mmap; file = open({str(path)!r}, 'rb'); map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "for at in range(0, len(map), 4096): map[at]\n"
        "print([line for line in open('/proc/self/smaps_rollup') if line.startswith('Rss')][0].split()[1])"
    )
    with limits.limited(100 * MIB, [path]) as limit:
        done = run(limit, touch)
    assert done.returncode == 0, done.stderr
    assert limit is not None
    if limit.with_files:
        assert int(done.stdout) * 1024 < 110 * MIB
    else:
        assert int(done.stdout) * 1024 > 150 * MIB


@limitable
def test_the_engine_runs_within_a_limit_and_dies_in_a_small_one(f16: Path) -> None:
    arguments = {"path": str(f16), "n_tokens": 2, "n_gpu_layers": 0, "n_threads": 1}
    with limits.limited(2048 * MIB, [f16]) as limit:
        assert limit is not None
        assert child.run("smoke", arguments, within=limit.command)["event"] == "result"
    with limits.limited(12 * MIB, [f16]) as limit:
        assert limit is not None
        with pytest.raises(EngineError):
            child.run("smoke", arguments, within=limit.command, timeout_s=60)


@pytest.mark.skipif(KIND not in ("cgroup v1", "cgroup v2"), reason="no right to groups here")
def test_groups_do_not_stay_and_those_of_the_dead_are_swept() -> None:
    with limits.limited(200 * MIB) as limit:
        assert limit is not None
        group = Path(limit.command[-1]).parent
        assert group.is_dir()
    assert not group.exists()

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = group.with_name(f"slmkit-{dead.pid}-0")
    left.mkdir()
    with limits.limited(200 * MIB):
        assert not left.exists()


def test_a_group_goes_when_the_block_raises(way: limits.Kind) -> None:
    commands = []
    with pytest.raises(ZeroDivisionError), limits.limited(200 * MIB) as limit:
        assert limit is not None
        commands.append(limit.command)
        raise ZeroDivisionError
    if way.startswith("cgroup"):
        assert not Path(commands[0][-1]).parent.exists()


def test_no_means_is_said_and_nothing_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_WAYS", {})
    limits.means.cache_clear()
    try:
        assert limits.means().kind is None
        assert "limit" in (limits.means().reason or "")
        with limits.limited(MIB) as limit:
            assert limit is None
    finally:
        limits.means.cache_clear()


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**8))
def test_the_smallest_that_works_is_found(low: int, span: int, threshold: int, tolerance: int) -> None:
    high = low + span
    asked: list[int] = []

    def works(value: int) -> bool:
        asked.append(value)
        return value >= threshold

    found = limits.smallest(works, low, high, tolerance)
    if threshold > high:
        assert found is None
        assert asked == [high]
        return
    assert found is not None
    assert low <= found <= high
    assert works(found)
    assert found - max(low, threshold) <= tolerance
    assert len(asked) <= span.bit_length() + 4
