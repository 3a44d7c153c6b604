"""`quantize --target-...` when the disk is full, and when it is interrupted while it measures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from slmkit.registry.store import Registry
from tests import factories
from tests.cli.conftest import MODEL, Start, leftovers, wait_until
from tests.cli.test_trouble import Screen, interrupt, limited
from tests.conftest import Run
from tests.registry.invariants import check

TARGET = ("--target-bpw", "5")


@pytest.mark.parametrize("limit_bytes", [100, 400_000], ids=["the table", "the file"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_full_disk_is_said_and_leaves_nothing(
    start: Start, furnished: Registry, limit_bytes: int, form: tuple[str, ...]
) -> None:
    """The table of errors does not fit, or the file does not."""
    before = furnished.artifacts()
    process = start("quantize", MODEL, *TARGET, *form, **limited(limit_bytes))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, ""), err
    assert "Traceback" not in err
    assert ('"error": "disk.full"' if form else "error: no space left on the disk of ") in err
    assert leftovers(furnished.home) == []
    assert furnished.artifacts() == before
    check(furnished.home, settled=True)


def test_what_was_measured_before_the_disk_was_full_is_kept(start: Start, slmkit: Run, furnished: Registry) -> None:
    start("quantize", MODEL, *TARGET, **limited(400_000)).communicate(timeout=120)
    (table,) = (furnished.home / "distortion").iterdir()
    before = table.stat().st_mtime_ns
    done = slmkit("quantize", MODEL, *TARGET)
    assert done.returncode == 0, done.stderr
    assert table.stat().st_mtime_ns == before


def test_ctrl_c_while_measuring_keeps_what_is_measured(
    start: Start, slmkit: Run, tmp_path: Path, registry: Registry
) -> None:
    folder = factories.make_llama(tmp_path / "larger", hidden=768, n_layers=4)
    assert slmkit("convert", folder).returncode == 0
    before = registry.artifacts()
    screen = Screen()
    arguments = ("quantize", "local/larger", *TARGET, "--threads", "1")
    process = start(*arguments, stderr=screen.slave, env={"TERM": "xterm"})
    wait_until(process, lambda: re.search(r"measure the errors.* [1-9]\d*/\d+", screen.read()) is not None)
    out, _ = interrupt(process)
    assert (process.returncode, out) == (130, "")
    assert "interrupted: what was finished is kept" in screen.read()
    assert "Traceback" not in screen.shown
    assert leftovers(registry.home) == []
    assert registry.artifacts() == before
    check(registry.home, settled=True)
    (table,) = (registry.home / "distortion").iterdir()
    kept = json.loads(table.read_text("utf-8"))["tensors"]

    done = slmkit("quantize", "local/larger", *TARGET)
    assert done.returncode == 0, done.stderr
    assert list((registry.home / "distortion").iterdir()) == [table]
    whole = json.loads(table.read_text("utf-8"))["tensors"]
    assert 0 < len(kept) < len(whole)
    assert kept.items() <= whole.items()
