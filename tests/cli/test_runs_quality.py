"""`slmkit runs` with runs of `quality` beside those of `bench`, as users run it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slmkit.formats.runs import plain
from slmkit.registry import runs
from slmkit.registry.store import Registry
from tests import judged, measured
from tests.conftest import Run

QUALITY = judged.run(judged.F16, judged.Q8_0, judged.Q4_0, created="2026-11-25T10:00:00+00:00")
BENCH = measured.run(measured.row("org/m:Q4_0"), created="2026-11-20T10:00:00+00:00")


@pytest.fixture
def kept(registry: Registry) -> dict[str, str]:
    """Ids by kind."""
    return {
        kind: runs.save(registry.home, kind, run.document(), datetime.fromisoformat(run.created).astimezone(UTC)).stem
        for kind, run in (("bench", BENCH), ("quality", QUALITY))
    }


def test_the_list_has_both_and_says_which(kept: dict[str, str], slmkit: Run) -> None:
    found = json.loads(slmkit("runs", "list", "--json").stdout)
    assert [(one["id"], one["kind"]) for one in found] == [
        (kept["quality"], "quality"),
        (kept["bench"], "bench"),
    ]
    done = slmkit("runs", "list", "--quant", "Q4_0")
    assert done.stdout.splitlines()[0].split()[:2] == ["run", "kind"]
    assert {"tg", "KLD"} <= set(done.stdout.splitlines()[0].split())
    (only,) = json.loads(slmkit("runs", "list", "--quant", "Q8_0", "--json").stdout)
    assert only["kld"] == pytest.approx(0.002, rel=0.2)
    slmkit("runs", "rm", kept["quality"], "--yes")
    assert "kind" not in slmkit("runs", "list").stdout


def test_show_prints_the_tables_of_quality(kept: dict[str, str], slmkit: Run) -> None:
    done = slmkit("runs", "show", "latest")
    assert done.returncode == 0, done.stderr
    for expected in ("KLD", "same top", "near lossless", "noticeable", "One CPU", "0c1e57098", kept["quality"]):
        assert expected in done.stdout, expected
    shown = json.loads(slmkit("runs", "show", kept["quality"], "--json").stdout)
    assert (shown["id"], shown["rows"][1]["verdict"]) == (kept["quality"], "near lossless")
    assert "RMS" in slmkit("runs", "show", kept["quality"], "--wide", "--format", "md").stdout
    both = slmkit("runs", "show", kept["quality"], kept["bench"])
    assert (both.returncode, "no table in common" in both.stderr) == (2, True)


def test_damage_is_shown_again_and_goes_along(slmkit: Run, registry: Registry, tmp_path: Path) -> None:
    damaged = [judged.damaged(row) for row in (judged.Q8_0, judged.Q4_0)]
    run_id = runs.save(registry.home, "quality", judged.run(judged.F16, *damaged).document()).stem
    done = slmkit("runs", "show", run_id)
    assert done.returncode == 0, done.stderr
    assert re.search(r"kind of token.*Q8_0 KLD +of all +Q4_0 KLD", done.stdout)
    assert len(re.findall(r"^[1-5]\. KLD .*: the <b>\\n\[ cat\]$", done.stdout, re.MULTILINE)) == 10
    assert "\n```\nworst contexts of m-Q4_0\n" in slmkit("runs", "show", run_id, "--format", "md").stdout
    assert "worst" not in slmkit("runs", "show", run_id, "--format", "csv").stdout
    shown = json.loads(slmkit("runs", "show", run_id, "--json").stdout)
    assert [len(row["damage"]["worst"]) for row in shown["rows"][1:]] == [5, 5]
    file, other = tmp_path / "run.json", {"SLMKIT_HOME": str(tmp_path / "other")}
    assert slmkit("runs", "export", run_id, "-o", file).returncode == 0
    assert slmkit("runs", "import", file, env=other).returncode == 0
    assert slmkit("runs", "show", "latest", env=other).stdout.count("worst contexts of") == 2


def test_a_report_is_written_by_its_suffix(kept: dict[str, str], slmkit: Run, tmp_path: Path) -> None:
    for name, begins in (("q.html", "<!doctype html>"), ("q.md", "| model"), ("q.csv", "ref,"), ("q.svg", "<?xml")):
        done = slmkit("runs", "show", kept["quality"], "--report", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name).read_text("utf-8").startswith(begins)
        assert f"written: {tmp_path / name}" in done.stderr
    page = slmkit("runs", "show", kept["bench"], "--format", "html").stdout
    assert "How it was measured" in page
    assert slmkit("runs", "show", kept["bench"], "--report", tmp_path / "b.html").returncode == 0
    assert (tmp_path / "b.html").read_text("utf-8") == page
    for arguments, said in (
        ((kept["bench"], kept["quality"], "--json"), "no table in common"),
        ((kept["bench"], kept["bench"]), "b.svg has room for one run, not for 2"),
    ):
        done = slmkit("runs", "show", *arguments, "--report", tmp_path / "b.svg")
        assert (done.returncode, said in done.stderr, done.stdout) == (2, True, "")
    assert slmkit("runs", "show", kept["quality"], "--report", tmp_path / "q.pdf").returncode == 2


def test_what_only_benches_can_do_says_so(kept: dict[str, str], slmkit: Run, tmp_path: Path) -> None:
    done = slmkit("runs", "diff", kept["bench"], kept["quality"])
    assert done.returncode == 2
    assert "is a run of `quality`" in done.stderr
    done = slmkit("runs", "export", kept["bench"], kept["quality"], "--as", "benchstat")
    assert done.returncode == 0
    assert f"left out: {kept['quality']} is a run of `quality`" in done.stderr
    assert slmkit("runs", "export", kept["quality"], "--as", "benchstat").returncode == 2
    assert slmkit("runs", "list", "--plot", tmp_path / "a.svg").returncode == 0


def test_export_and_import_bring_it_to_another_machine(kept: dict[str, str], slmkit: Run, tmp_path: Path) -> None:
    file, other = tmp_path / "runs.json", {"SLMKIT_HOME": str(tmp_path / "other")}
    assert slmkit("runs", "export", kept["quality"], kept["bench"], "-o", file).returncode == 0
    brought = json.loads(slmkit("runs", "import", file, "--json", env=other).stdout)
    assert [(one["n_rows"], one["fresh"]) for one in brought] == [(3, True), (1, True)]
    assert brought[0]["id"].startswith("20261125T100000.000000Z-quality-")
    assert plain(runs.read_any(tmp_path / "other", brought[0]["id"]).run) == plain(QUALITY)
    assert slmkit("runs", "import", file, env=other).stdout.count("here already") == 2


def test_a_damaged_one_is_named_and_hides_no_other(kept: dict[str, str], slmkit: Run, registry: Registry) -> None:
    path = registry.home / "runs" / "20261126T000000.000000Z-quality-abcdef.json"
    path.write_text(json.dumps({**QUALITY.document(), "rows": []}), encoding="utf-8")
    done = slmkit("runs", "list", "--json")
    assert len(json.loads(done.stdout)) == 2
    assert str(path) in slmkit("runs", "list").stderr
    assert [stored.id for stored in runs.quality_runs(registry.home)[0]] == [kept["quality"]]
    assert slmkit("runs", "rm", "abcdef", "--yes").returncode == 0
    mixed = registry.home / "runs" / "20261126T000000.000000Z-bench-abcdef.json"
    mixed.write_text(json.dumps(QUALITY.document()), encoding="utf-8")
    assert "another kind" in slmkit("runs", "list").stderr
