"""Ctrl-C, a full disk, a second writer, a reader that leaves, terminals with and without colour."""

from __future__ import annotations

import os
import pty
import re
import resource
import select
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from slmkit.registry.atomic import PARTIAL
from slmkit.registry.store import Registry
from tests import factories
from tests.cli.conftest import MODEL, Start, leftovers, wait_until
from tests.conftest import Run

SLOW = "IQ3_S"
"""A type whose search takes seconds even for a small model."""


class Screen:
    """A terminal that keeps what was shown."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self.shown = ""

    def read(self) -> str:
        """All that has been shown so far."""
        while select.select([self._master], [], [], 0)[0]:
            try:
                self.shown += os.read(self._master, 1 << 16).decode(errors="replace")
            except OSError:  # Linux: nobody has the other end open any more
                break
        return self.shown


def interrupt(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ctrl-C, and what the program still said. The engine's child must be gone when the program is."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(is_alive(child) for child in children):
        assert time.monotonic() < deadline, "the engine outlives the program"
        time.sleep(0.01)
    return out, err


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes the engine some seconds in the slow type."""
    return factories.make_llama(tmp_path_factory.mktemp("larger") / "larger", hidden=768, n_layers=3)


def test_ctrl_c_while_quantizing_leaves_nothing_half_made(
    start: Start, slmkit: Run, larger: Path, registry: Registry
) -> None:
    assert slmkit("convert", larger).returncode == 0
    command = ("quantize", "local/larger", "-t", f"Q8_0,{SLOW}", "--threads", "1")
    process = start(*command)

    def begun() -> bool:
        return bool(registry.find("local/larger", "Q8_0") and leftovers(registry.home))

    wait_until(process, begun)
    out, err = interrupt(process)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-2:] == [
        "error: interrupted: what was finished is kept",
        "hint: run the same command again to go on",
    ]
    assert "Traceback" not in err
    assert leftovers(registry.home) == []
    assert [a.variant for a in registry.artifacts()] == ["F16", "Q8_0"]
    assert slmkit("verify").returncode == 0

    again = slmkit("quantize", "local/larger", "-t", "Q8_0,Q4_0")  # nothing is locked, what was finished is known
    assert again.returncode == 0
    assert "there already" in again.stdout.splitlines()[1]


def test_ctrl_c_while_measuring_saves_no_run(start: Start, furnished: Registry) -> None:
    runs = sorted((furnished.home / "runs").iterdir())
    screen = Screen()
    process = start(
        "bench", f"{MODEL}:Q4_0", "-p", "8", "-n", "4", "-r", "10000000", stderr=screen.slave, env={"TERM": "xterm"}
    )
    wait_until(
        process, lambda: re.search(rf"{MODEL}:Q4_0 round \d+ rep \d+, tg4 [\d.]+ tok/s", screen.read()) is not None
    )
    out, _ = interrupt(process)
    assert (process.returncode, out) == (130, "")
    assert "interrupted" in screen.read().splitlines()[-1]
    assert "run the same command again" not in screen.shown, "that would begin anew"
    assert "Traceback" not in screen.shown
    assert sorted((furnished.home / "runs").iterdir()) == runs


def test_ctrl_c_with_json_is_one_object(start: Start, furnished: Registry) -> None:
    process = start("bench", f"{MODEL}:Q4_0", "-p", "8", "-n", "4", "-r", "10000000", "--json")
    wait_until(process, lambda: bool(psutil.Process(process.pid).children()))
    out, err = interrupt(process)
    assert (process.returncode, out) == (130, "")
    assert err.startswith('{"error": "interrupted", ')
    assert err.count("\n") == 1


def limited(size_bytes: int) -> dict[str, object]:
    """No file may grow beyond this: the system then answers a write as it does on a full disk (EFBIG for ENOSPC)."""
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))}


@pytest.mark.parametrize(
    ("arguments", "limit_bytes"),
    [
        ("convert CHECKPOINT", 1_000_000),
        ("convert CHECKPOINT -o out/x.gguf", 1_000_000),
        ("quantize local/tiny-llama -t Q4_1", 400_000),
        ("quantize local/tiny-llama -t Q4_1 --json", 400_000),
        ("export local/tiny-llama:Q4_0 folder", 1_000_000),
        ("adopt CHECKPOINT", 100),
    ],
)
def test_a_full_disk_is_said_and_leaves_nothing(
    start: Start, furnished: Registry, checkpoint: Path, tmp_path: Path, arguments: str, limit_bytes: int
) -> None:
    if "CHECKPOINT" in arguments:
        furnished.remove(furnished.plan_removal(furnished.artifacts()))
    before = [a.ref for a in furnished.artifacts()]
    words = [str(checkpoint) if word == "CHECKPOINT" else word for word in arguments.split()]
    process = start(*words, **limited(limit_bytes))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, ""), err
    if "--json" in words:
        assert '"error": "disk.full"' in err
    else:
        assert "error: no space left on the disk" in err
        assert "Traceback" not in err
    assert leftovers(tmp_path) == []
    assert [a.ref for a in furnished.artifacts()] == before
    assert [p for p in (tmp_path / "cwd").rglob("*") if p.is_file()] == []


WAITING = f"another slmkit is working on {MODEL}: waiting"


def test_a_second_writer_waits_and_finds_it_done(start: Start, slmkit: Run, furnished: Registry) -> None:
    with furnished.locked(MODEL):
        process = start("quantize", MODEL, "-t", "Q5_1")
        readers = [slmkit(*arguments) for arguments in (["list"], ["show", MODEL], ["verify"])]
        assert process.poll() is None
        refused = slmkit("rm", f"{MODEL}:Q4_0", "--json")
    assert [reader.returncode for reader in readers] == [0, 0, 0]
    assert refused.returncode == 1
    assert '"registry.locked"' in refused.stderr
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err.count(WAITING) == 1


def test_two_at_once_make_it_once(start: Start, slmkit: Run, furnished: Registry) -> None:
    processes = [start("quantize", MODEL, "-t", "Q5_1,Q4_1") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sorted("there already" in out for out, _ in said) == [False, True]
    assert leftovers(furnished.home) == []
    assert slmkit("verify").returncode == 0


def test_two_that_convert_at_once_make_it_once(start: Start, registry: Registry, checkpoint: Path) -> None:
    processes = [start("convert", checkpoint) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sorted("is there already" in err for _, err in said) == [False, True]
    assert leftovers(registry.home) == []


def test_ctrl_c_while_waiting_is_clean(start: Start, furnished: Registry) -> None:
    screen = Screen()
    with furnished.locked(MODEL):
        process = start("quantize", MODEL, "-t", "Q5_1", stderr=screen.slave, env={"TERM": "dumb"})
        wait_until(process, lambda: WAITING in screen.read())
        interrupt(process)
    assert process.returncode == 130
    assert "Traceback" not in screen.read()
    assert furnished.find(MODEL, "Q5_1") is None


@pytest.mark.parametrize(
    "arguments",
    ["list", "list --json", "list --format md", f"show {MODEL}", f"show {MODEL} --json", "catalog", "catalog --json"],
)
def test_a_reader_that_leaves_is_no_error(start: Start, furnished: Registry, arguments: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start(*arguments.split(), stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_help_into_a_reader_that_leaves_has_no_traceback(start: Start) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start("--help", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode in (0, 1), err) == (True, "")


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9)\d(?:;\d+)*m")


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_want_it(
    start: Start, furnished: Registry, env: dict[str, str], coloured: bool
) -> None:
    screen = Screen()
    process = start("show", "a//b", stderr=screen.slave, env={"TERM": "xterm-256color", **env})
    process.communicate(timeout=60)
    assert "not a model reference: 'a//b'" in screen.read()
    assert (COLOUR.search(screen.shown) is not None) is coloured


def test_a_terminal_gets_a_table_no_wider_than_itself(start: Start, furnished: Registry) -> None:
    screen = Screen()
    process = start("list", stdout=screen.slave, env={"TERM": "xterm-256color", "COLUMNS": "60"})
    process.communicate(timeout=60)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.read())
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 60
    assert PARTIAL not in plain
