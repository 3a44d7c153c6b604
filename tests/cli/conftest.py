"""A home that has something in it, and programs that are still running."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.bench import BenchSpec
from slmkit.core.progress import SILENT
from slmkit.core.quant import quant_types
from slmkit.core.refs import ModelRef
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry.atomic import PARTIAL
from slmkit.registry.store import Registry

MODEL = "local/tiny-llama"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def _furnished(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("furnished") / "home"
    session = Session(Registry(home), SILENT, may_pull=False, offline=True)
    list(verbs.quantize(ModelRef("path", str(checkpoint)), quant_types(["F16,Q4_0,Q8_0"]), session))
    spec = BenchSpec(n_prompt=8, n_gen=4, repetitions=2, n_threads=1)
    verbs.bench([ModelRef.parse(f"{MODEL}:F16"), ModelRef.parse(f"{MODEL}:Q4_0")], [spec], session)
    return home


@pytest.fixture
def furnished(_furnished: Path, registry: Registry) -> Registry:
    """This test's own registry: the tiny model as F16, Q4_0 and Q8_0, the first two measured."""
    shutil.copytree(_furnished, registry.home)
    return registry


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the program and gives the running process; what still runs after the test is ended."""
    running: list[subprocess.Popen[str]] = []
    users = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # it hides late writes

    def start_one(
        *arguments: str | Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        folder = tmp_path / "cwd"
        folder.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "slmkit", *map(str, arguments)],
            cwd=folder,
            env={**users, "HF_HUB_OFFLINE": "1", "COLUMNS": "100", **(env or {})},
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        running.append(process)
        return process

    yield start_one
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until(process: subprocess.Popen[str], reached: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for a state of a running program; fails when it ends before or never gets there."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert process.poll() is None, f"it ended with {process.returncode}: {process.communicate()}"
        assert time.monotonic() < deadline, "it never got there"
        time.sleep(0.005)


def leftovers(home: Path) -> list[Path]:
    """What an interrupted writer has left."""
    return sorted(home.rglob(f"{PARTIAL}*"))
