"""Programs killed at any moment, with all their children: what they leave is true, and the next run goes on."""

from __future__ import annotations

import random
import time
from pathlib import Path

import psutil
import pytest

from slmkit.registry.store import Registry
from tests import factories
from tests.cli.conftest import Start, leftovers
from tests.conftest import Run
from tests.registry.invariants import check

MODEL = "local/victim"
KILLS = 14
LONGEST_S = 3.0


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model large enough to be killed in the middle of things."""
    return factories.make_llama(tmp_path_factory.mktemp("victim") / "victim", hidden=512, n_layers=3)


def kill(process: psutil.Process) -> None:
    """SIGKILL for it and all its children at once, as when the power goes."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.suspend()
        except psutil.NoSuchProcess:
            continue
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue


def test_killed_at_random(start: Start, slmkit: Run, victim: Path, registry: Registry) -> None:
    chance = random.Random(4)
    assert slmkit("adopt", victim).returncode == 0
    assert slmkit("quantize", MODEL, "-t", "Q4_0,Q8_0").returncode == 0
    digests = {a.ref: a.digest for a in registry.artifacts()}
    commands = [
        ("convert", MODEL, "--force"),
        ("quantize", MODEL, "-t", "Q4_0,Q8_0", "--force"),
        ("gc", "--rebuildable", MODEL, "--yes"),
        ("get", MODEL),
        ("gc", "--yes"),
        ("rm", f"{MODEL}:Q4_0"),
        ("quantize", MODEL, "-t", "Q4_0,Q8_0"),
    ]
    n_killed = 0
    for i in range(KILLS):
        process = start(*commands[i % len(commands)])
        watched = psutil.Process(process.pid)
        wait_s = chance.uniform(0, LONGEST_S)
        deadline = time.monotonic() + wait_s
        if chance.random() < 0.5:  # half of them while files are being written
            while process.poll() is None and not leftovers(registry.home) and time.monotonic() < deadline + LONGEST_S:
                time.sleep(0.002)
            deadline = time.monotonic() + wait_s / 10
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        kill(watched)
        process.communicate()
        n_killed += process.returncode < 0
        check(registry.home)
        for artifact in registry.artifacts():
            assert digests[artifact.ref] == artifact.digest
    assert n_killed > 0

    done = slmkit("gc", "--yes")
    assert done.returncode == 0, done.stderr
    done = slmkit("quantize", MODEL, "-t", "F16,Q4_0,Q8_0")
    assert done.returncode == 0, done.stderr
    check(registry.home, settled=True)
    assert {a.ref: a.digest for a in registry.artifacts()} == digests
