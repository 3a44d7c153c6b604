"""Speed over time: one line for what is the same, each with a name of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.bench import BenchRun
from slmkit.core.history import Listed, StoredRun, conditions
from slmkit.report.plots.trend import trend
from tests.measured import HOST, run

from .test_plots import said

GIB = 2**30


def on(day: int, **host: Any) -> BenchRun:
    return run(created=f"2026-11-{day:02}T10:00:00+00:00", host={**HOST, "system": "Linux 6.1.0-13-amd64", **host})


def drawn(path: Path, *runs: BenchRun) -> set[str]:
    trend([Listed(StoredRun(each.created, each), each.rows) for each in runs], path)
    return {text for text in said(path) if text.startswith("m-Q4_0")}


@pytest.mark.parametrize("host", [{"system": "Linux 6.1.0-18-amd64"}, {"memory_bytes": 8 * GIB - 20_000_000}])
def test_a_new_kernel_does_not_begin_another_line(host: Mapping[str, Any], tmp_path: Path) -> None:
    before, after = on(1), on(2, **host)
    assert conditions(before, before.rows[0]) == conditions(after, after.rows[0])
    assert drawn(tmp_path / "a.svg", before, after) == {"m-Q4_0"}


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ({"system": "Darwin 24.1.0"}, {"m-Q4_0, system Linux", "m-Q4_0, system Darwin"}),
        ({"memory_bytes": 16 * GIB}, {"m-Q4_0, memory 8 GiB", "m-Q4_0, memory 16 GiB"}),
        ({"n_cores": 4}, {"m-Q4_0, cores 2", "m-Q4_0, cores 4"}),
        ({"cpu": "Another"}, {"m-Q4_0, host One CPU", "m-Q4_0, host Another"}),
        ({"gpu": "A GPU"}, {"m-Q4_0, host One CPU", "m-Q4_0, host One CPU, A GPU"}),
        ({"system": None}, {"m-Q4_0, system Linux", "m-Q4_0, system None"}),
    ],
)
def test_lines_of_two_machines_have_two_names(host: Mapping[str, Any], names: set[str], tmp_path: Path) -> None:
    assert drawn(tmp_path / "a.svg", on(1), on(2, **host)) == names
