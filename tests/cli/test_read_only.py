"""A registry that may only be read: looking works, everything else says so and changes nothing."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from slmkit.core.progress import SILENT
from slmkit.ops import adopt
from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL, Start

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


def bound_by_permissions() -> None:
    """Take from the program to be started what lets root ignore them; for others this does nothing."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


@pytest.fixture
def read_only(furnished: Registry, checkpoint: Path) -> Iterator[Registry]:
    adopt.adopt(checkpoint, furnished, SILENT)
    everything = [furnished.home, *furnished.home.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield furnished
    for path in everything:
        path.chmod(0o755 if path.is_dir() else 0o644)


def seen(home: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in home.rglob("*")}


@pytest.mark.parametrize(
    "arguments", ["list --all", f"show {MODEL}:Q4_0", f"verify {MODEL}", f"lineage {MODEL}", "gc --dry-run"]
)
def test_looking_works(start: Start, read_only: Registry, arguments: str) -> None:
    before = seen(read_only.home)
    process = start(*arguments.split(), preexec_fn=bound_by_permissions)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out
    assert seen(read_only.home) == before


@pytest.mark.parametrize(
    "arguments",
    [
        f"quantize {MODEL} -t Q5_1",
        f"convert {MODEL} --force",
        f"rm {MODEL}:Q4_0",
        f"gc --rebuildable {MODEL} --yes",
        f"verify {MODEL}:Q4_0 --rederive",
    ],
)
def test_writing_is_refused_in_one_line(start: Start, read_only: Registry, arguments: str) -> None:
    before = seen(read_only.home)
    process = start(*arguments.split(), preexec_fn=bound_by_permissions)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert "Permission denied" in err
    assert "SLMKIT_HOME" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert seen(read_only.home) == before
