"""`slmkit check` with limits of quality, as users run it, on a tiny model and the real engine."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slmkit.registry import runs
from slmkit.registry.store import Registry
from tests import judged, measured
from tests.conftest import Run

WORDS = "the one who was there said that which you have more than we do not know what it will be for her "


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Some thousands of tokens of the tiny model's."""
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{number}. {WORDS[number % 20 :]}\n" for number in range(200)), encoding="utf-8")
    return path


@pytest.fixture
def kept(registry: Registry) -> str:
    """The id of a run of quality; one of bench is newer."""
    quality = judged.run(judged.F16, judged.Q8_0, judged.Q4_0)
    found = runs.save(registry.home, "quality", quality.document(), datetime(2026, 11, 25, tzinfo=UTC))
    runs.save(registry.home, "bench", measured.run().document(), datetime(2026, 11, 26, tzinfo=UTC))
    return found.stem


def test_it_measures_beside_the_float_file(tiny: str, text: Path, slmkit: Run, tmp_path: Path) -> None:
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    options = ("--max-kld", "9", "--min-same-top", "1%", "--corpus", text, "--chunks", "3", "--junit", junit)
    done = slmkit("check", tiny, *options, env={"GITHUB_STEP_SUMMARY": str(summary)})
    assert done.returncode == 0, done.stderr
    assert "2 pass" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()][1:3] == [f"{tiny}:Q4_0"] * 2
    assert "3 chunks of 512 tokens of text.txt" in done.stdout
    assert ET.parse(junit).getroot().attrib["tests"] == "2"
    assert summary.read_text().startswith("### ✅ slmkit check: pass\n")
    strict = slmkit("check", tiny, "--run", "latest", "--max-kld", "0.0000001", "--json")
    assert strict.returncode == 3
    (found,) = json.loads(strict.stdout)["judgements"]
    assert (found["test"], found["verdict"], found["ref"]) == ("KLD", "regression", f"{tiny}:Q4_0")
    alone = slmkit("check", f"{tiny}:F16", "--max-kld", "9", "--corpus", text, "--chunks", "1")
    assert (alone.returncode, "name a quant, too" in alone.stderr) == (2, True)


def test_a_run_is_judged_by_its_id(kept: str, slmkit: Run, tmp_path: Path) -> None:
    done = slmkit("check", "--run", kept, "--max-kld", "0.05")
    assert done.returncode == 3
    assert "regression: org/m:Q4_0 KLD" in done.stderr
    assert slmkit("check", "--run", "latest", "--max-kld", "0.2", "--max-ppl-ratio", "1.1").returncode == 0
    undecided = slmkit("check", "--run", kept, "--min-same-top", "0.88")
    assert (undecided.returncode, "inconclusive: org/m:Q4_0 same top" in undecided.stderr) == (1, True)
    file = tmp_path / "quality.json"
    assert slmkit("runs", "export", kept, "-o", file).returncode == 0
    assert slmkit("check", "--run", file, "--max-kld", "0.2").returncode == 0


def test_what_does_not_go_together(kept: str, slmkit: Run, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps(measured.run().document()), encoding="utf-8")
    for options, said in (
        (("--run", kept), "no baseline given"),
        (("--run", kept, "--max-kld", "0.1", "--baseline", baseline), "the run is of `quality`"),
        (("--run", baseline, "--max-kld", "0.1"), "it has no quality"),
        (("--run", baseline, "--max-kld", "0.1", "--baseline", baseline), "it has no quality"),
        (("--max-kld", "0.1", "--corpus", "nonsense"), "no corpus 'nonsense'"),
        (("--max-kld", "0.1", "--corpus", baseline), "no model given"),
        (("--min-same-top", "90", "--run", kept), "not a share"),
    ):
        done = slmkit("check", *options)
        assert (done.returncode, said in done.stderr) == (2, True), (options, done.stderr)
