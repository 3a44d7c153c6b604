"""`slmkit check` as users run it, on a tiny model and the real engine."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.bench import BenchRun, BenchSpec
from slmkit.core.check import Limits
from slmkit.core.refs import ModelRef
from slmkit.ops.bench import Effort
from slmkit.recipes import check as recipe
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from tests.conftest import Run

SPEC = BenchSpec(n_prompt=16, n_gen=4, n_threads=1, repetitions=3)


@pytest.fixture
def baseline(tiny: str, session: Session, tmp_path: Path) -> Path:
    """A run of the tiny Q4_0, measured for real, and its timings made calm: its best one in three children."""
    run = verbs.bench([ModelRef.parse(f"{tiny}:Q4_0")], [SPEC], session, Effort(least_children=1))
    document = run.document()
    (row,) = document["rows"]
    (block, *_) = row["blocks"]
    for test in ("pp_ns", "tg_ns", "ttft_ns"):
        block[test] = [min(block[test])] * 3
    seen = {"machine": block["seen"]["machine"]}  # which others use, too
    row["blocks"] = [{**block, "seen": seen, "state": "ok", "reasons": [], "counted": True}] * 3
    return write(tmp_path / "baseline.json", document)


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def changed(path: Path, name: str, *, slow: float = 1.0, **row: Any) -> Path:
    """A copy of a run with other times, and other fields in its rows."""
    document = json.loads(path.read_text())
    for found in document["rows"]:
        found.update(row)
        for block in found["blocks"]:
            block.update({test: [round(ns * slow) for ns in block[test]] for test in ("pp_ns", "tg_ns", "ttft_ns")})
    return write(path.parent / name, document)


def test_a_report_that_cannot_be_written_hides_no_verdict(baseline: Path, slmkit: Run, tmp_path: Path) -> None:
    nowhere = ("--junit", tmp_path / "no" / "such" / "folder.xml")
    slow = slmkit("check", "--baseline", baseline, "--run", changed(baseline, "slow.json", slow=2.0), *nowhere)
    assert slow.returncode == 3, slow.stderr
    assert "slower" in slow.stdout
    assert "cannot write" in slow.stderr
    fine = slmkit("check", "--baseline", baseline, "--run", baseline, *nowhere)
    assert fine.returncode == 1
    assert "cannot write" in fine.stderr
    assert len(fine.stdout.splitlines()) == 5


def test_a_model_that_the_run_lacks_is_no_pass_unless_others_are_named(
    baseline: Path, slmkit: Run, tmp_path: Path
) -> None:
    document = json.loads(baseline.read_text())
    document["rows"].append({**document["rows"][0], "ref": "local/other:Q4_0"})
    two = write(tmp_path / "two.json", document)
    done = slmkit("check", "--baseline", two, "--run", baseline)
    assert done.returncode == 1
    assert "could not measure: local/other:Q4_0" in done.stderr
    named = slmkit("check", "local/tiny-llama:Q4_0", "--baseline", two, "--run", baseline)
    assert named.returncode == 0, named.stderr


def test_a_run_beside_itself_passes(baseline: Path, slmkit: Run, tmp_path: Path) -> None:
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    summary.write_text("before\n")
    options = ("--baseline", baseline, "--run", baseline, "--junit", junit)
    done = slmkit("check", *options, env={"GITHUB_STEP_SUMMARY": str(summary)})
    assert done.returncode == 0, done.stderr
    assert "4 pass" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()][1:] == ["local/tiny-llama:Q4_0"] * 4
    assert ET.parse(junit).getroot().attrib["tests"] == "4"
    assert summary.read_text().startswith("before\n### ✅ slmkit check: pass\n")


def test_a_regression_exits_with_3(baseline: Path, slmkit: Run) -> None:
    slow = changed(baseline, "slow.json", slow=1.3)
    done = slmkit("check", "--baseline", baseline, "--run", slow, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["verdict"] == "regression"
    assert json.loads(done.stderr)["error"] == "verdict"
    loose = slmkit("check", "--baseline", baseline, "--run", slow, "--max-slowdown", "60%")
    assert loose.returncode == 0, loose.stderr


def test_an_id_names_a_run(baseline: Path, slmkit: Run) -> None:
    done = slmkit(
        "check", "local/tiny-llama:Q4_0", "--baseline", baseline, "--run", "latest", "--max-slowdown", "1000%"
    )
    assert done.returncode in (0, 1), done.stderr  # a busy machine is inconclusive
    assert "local/tiny-llama:Q4_0" in done.stdout


def test_inconclusive_is_no_pass_unless_asked(baseline: Path, slmkit: Run) -> None:
    close = changed(baseline, "close.json", slow=1.05)
    done = slmkit("check", "--baseline", baseline, "--run", close)
    assert done.returncode == 1
    assert "inconclusive" in done.stderr
    assert slmkit("check", "--baseline", baseline, "--run", close, "--allow-inconclusive").returncode == 0


def test_what_could_not_be_measured_exits_with_1(baseline: Path, slmkit: Run) -> None:
    failure: dict[str, Any] = {"code": "engine.crashed", "message": "it crashed", "hint": None, "log": []}
    failed = changed(baseline, "failed.json", failure=failure, blocks=[])
    done = slmkit("check", "--baseline", baseline, "--run", failed)
    assert done.returncode == 1
    assert "could not measure" in done.stderr
    assert "it crashed" in done.stdout


def test_it_measures_with_the_settings_of_the_baseline(baseline: Path, session: Session, slmkit: Run) -> None:
    """Two children, not up to 20: what comes out on a busy machine is not what is tested."""
    before = BenchRun.from_document(json.loads(baseline.read_text()))
    found = recipe.check([], before, Limits(max_slowdown=50.0), session, rounds=(1, 1))
    assert {(j.ref, j.test) for j in found.judgements} >= {("local/tiny-llama:Q4_0", "tg4")}
    assert all(j.now is not None for j in found.judgements)
    done = slmkit("check", "local/tiny-llama:F16", "--baseline", baseline)
    assert done.returncode == 2
    assert "the baseline has no local/tiny-llama:F16: it has local/tiny-llama:Q4_0" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json", "not JSON"),
        ("{}", "not a bench run"),
        ("[]", "nothing is in it"),
    ],
)
def test_a_baseline_that_is_none(content: str, said: str, slmkit: Run, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(content)
    done = slmkit("check", "--baseline", path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "--baseline" in done.stderr


def test_an_empty_baseline(baseline: Path, slmkit: Run) -> None:
    empty = write(baseline.parent / "empty.json", {**json.loads(baseline.read_text()), "rows": []})
    done = slmkit("check", "--baseline", empty, "--run", baseline)
    assert done.returncode == 2
    assert "a bench run without rows" in done.stderr
    failure: dict[str, Any] = {"code": "engine.crashed", "message": "it crashed", "hint": None, "log": []}
    failed = changed(baseline, "failed.json", failure=failure, blocks=[])
    done = slmkit("check", "--baseline", failed, "--run", baseline)
    assert done.returncode == 2
    assert "the baseline is empty: it has no row that was measured" in done.stderr


def test_what_was_typed_wrong(slmkit: Run, tmp_path: Path) -> None:
    for options, said in (
        ((), "no baseline given"),
        (("--baseline", tmp_path / "none.json"), "No such file"),
        (("--baseline", "x", "--max-slowdown", "5"), "not a share: '5'"),
        (("--baseline", "x", "--max-ttft", "500"), "not a time: '500'"),
        (("--baseline", "x", "--min-tps", "-1"), "--min-tps"),
    ):
        done = slmkit("check", *options)
        assert (done.returncode, said in done.stderr) == (2, True), (options, done.stderr)
