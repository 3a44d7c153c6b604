"""Programs killed at any moment, with all their children: what they leave is true, and the next run goes on."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from slmkit.hub import unfinished
from slmkit.ops import corpora
from slmkit.registry.atomic import PARTIAL
from slmkit.registry.store import Registry
from tests import factories
from tests.cli.conftest import Start, leftovers
from tests.cli.test_convert import files_of, reach
from tests.conftest import Run
from tests.hubserver import HubServer
from tests.registry.invariants import check

Command = tuple[str | Path, ...]

MODEL = "local/victim"
KILLS = 14


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


def kill_at_random(
    start: Start,
    commands: Sequence[Command],
    n_kills: int,
    home: Path,
    chance: random.Random,
    *,
    longest_s: float = 3.0,
    env: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Start one after the other and kill it, half of them while files are being written; gives way after each."""
    n_killed = 0
    for i in range(n_kills):
        process = start(*commands[i % len(commands)], env=env)
        watched = psutil.Process(process.pid)
        wait_s = chance.uniform(0, longest_s)
        deadline = time.monotonic() + wait_s
        if chance.random() < 0.5:
            while process.poll() is None and not leftovers(home) and time.monotonic() < deadline + longest_s:
                time.sleep(0.002)
            deadline = time.monotonic() + wait_s / 10
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        kill(watched)
        process.communicate()
        n_killed += process.returncode < 0
        check(home)
        yield
    assert n_killed > 0


def test_killed_at_random(start: Start, slmkit: Run, victim: Path, registry: Registry) -> None:
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
    for _ in kill_at_random(start, commands, KILLS, registry.home, random.Random(4)):
        for artifact in registry.artifacts():
            assert digests[artifact.ref] == artifact.digest

    done = slmkit("gc", "--yes")
    assert done.returncode == 0, done.stderr
    done = slmkit("quantize", MODEL, "-t", "F16,Q4_0,Q8_0")
    assert done.returncode == 0, done.stderr
    check(registry.home, settled=True)
    assert {a.ref: a.digest for a in registry.artifacts()} == digests


def test_killed_while_it_pulls_collects_and_seeks_a_mix(
    start: Start, slmkit: Run, registry: Registry, tmp_path: Path
) -> None:
    small = factories.make_llama(tmp_path / "small", hidden=64, n_layers=1)
    text = tmp_path / "text.txt"
    text.write_text(corpora.corpus().text[:30_000], encoding="utf-8")
    name = "org/small"
    commands: list[Command] = [
        ("pull", name),
        ("imatrix", name, "--text", text, "--chunks", "2"),
        ("quantize", name, "--target-bpw", "5", "--force"),
    ]
    tables = registry.home / "distortion"
    with HubServer() as hub:
        hub.add(name, files_of(small))
        for _ in kill_at_random(start, commands, 6, registry.home, random.Random(1), longest_s=1.5, env=reach(hub)):
            assert all(json.loads(path.read_text("utf-8"))["tensors"] for path in tables.glob("[!.]*.json"))
        tables.mkdir(exist_ok=True)
        (tables / f"{PARTIAL}{2**22 + 1}-x.json").write_text("{")  # a moment too short to be hit
        done = slmkit("gc", "--yes")
        assert done.returncode == 0, done.stderr
        check(registry.home, settled=True)
        assert list((tmp_path / "hf").rglob(f"*{unfinished.SUFFIX}")) == []
        for command in commands:
            done = slmkit(*command, env=reach(hub))
            assert done.returncode == 0, done.stderr
    check(registry.home, settled=True)
    assert len(list(tables.iterdir())) <= 2, "one without the importance matrix, and one with it"
