"""`slmkit runs`, as users run it: a home with runs of two machines, several days and models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.bench import BenchRun
from slmkit.formats.runs import parse, plain
from slmkit.registry import runs
from slmkit.registry.store import Registry
from tests.conftest import Run
from tests.measured import FAILED, HOST, SPEC, row, run
from tests.report.test_sensitivity import FOUND

SENSITIVITY = replace(FOUND, created="2026-11-25T00:00:00+00:00", host=HOST)

Kept = dict[str, str]


def keep(home: Path, one: BenchRun) -> str:
    return runs.save(home, "bench", one.document(), datetime.fromisoformat(one.created).astimezone(UTC)).stem


@pytest.fixture
def kept(registry: Registry) -> Kept:
    """Ids by what they are."""
    home = registry.home
    return {
        "old": keep(home, run(row("org/m:Q4_0", tg_s=2.0), FAILED, created="2026-11-01T10:00:00+00:00")),
        "other": keep(
            home, run(row("org/n:F16"), host={**HOST, "cpu": "Raspberry"}, created="2026-11-10T23:30:00-02:00")
        ),
        "new": keep(home, run(row("org/m:Q4_0", tg_s=1.0), created="2026-11-20T10:00:00+00:00")),
    }


def listed(slmkit: Run, *arguments: str) -> list[str]:
    done = slmkit("runs", "list", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [found["id"] for found in json.loads(done.stdout)]


def test_the_newest_first_and_what_one_looks_for(kept: Kept, slmkit: Run) -> None:
    assert listed(slmkit) == [kept["new"], kept["other"], kept["old"]]
    for arguments, expected in [
        (["--model", "org/m"], ["new", "old"]),
        (["--model", "M-q4"], ["new", "old"]),
        (["--quant", "f16"], ["other"]),
        (["--quant", "q8_0"], ["old"]),
        (["--quant", "8_0"], []),
        (["--host", "raspberry"], ["other"]),
        (["--since", "2026-11-11"], ["new", "other"]),  # the next day in UTC
        (["--since", "2026-11-02", "--until", "2026-11-11"], ["other"]),
        (["--until", "2026-11-01"], ["old"]),
        (["--model", "nonsense"], []),
    ]:
        assert listed(slmkit, *arguments) == [kept[name] for name in expected], arguments


def test_a_table_of_one_configuration_has_its_speed_and_a_picture(kept: Kept, slmkit: Run, tmp_path: Path) -> None:
    done = slmkit("runs", "list", "--model", "org/m", "--quant", "Q4_0", "--plot", tmp_path / "trend.svg")
    assert done.returncode == 0, done.stderr
    assert "tg tok/s" in done.stdout
    assert "host" not in done.stdout.splitlines()[0]
    first = (tmp_path / "trend.svg").read_text(encoding="utf-8")
    assert "<svg" in first
    slmkit("runs", "list", "--model", "org/m", "--quant", "Q4_0", "--plot", tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text(encoding="utf-8") == first
    assert "host" in slmkit("runs", "list").stdout.splitlines()[0]
    nothing = slmkit("runs", "list", "--model", "nonsense", "--plot", tmp_path / "none.svg")
    assert (nothing.returncode, (tmp_path / "none.svg").exists()) == (2, False)
    assert "nothing to draw" in nothing.stderr


def test_a_damaged_file_does_not_hide_the_others(kept: Kept, slmkit: Run, registry: Registry) -> None:
    folder = registry.home / "runs"
    path = folder / "20261115T000000.000000Z-bench-abcdef.json"
    path.write_text('{"kind": "bench"', encoding="utf-8")
    (folder / ".partial-1-x-bench-y.json").write_text("", encoding="utf-8")
    done = slmkit("runs", "list")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1 + len(kept)
    assert str(path) in done.stderr
    shown = slmkit("runs", "show", "abcdef")
    assert shown.returncode == 1
    assert f"slmkit runs rm {path.stem}" in shown.stderr
    assert slmkit("runs", "rm", "abcdef", "--yes").returncode == 0
    assert not path.exists()
    assert slmkit("runs", "list").stderr == ""


def test_show_has_table_machine_engine_settings_and_states(kept: Kept, slmkit: Run) -> None:
    for name in (kept["old"], kept["old"][:8], kept["old"][-6:]):
        text = slmkit("runs", "show", name).stdout
        for expected in ("Q4_0", "One CPU", "0c1e57098", "2048", "it crashed", "ok"):
            assert expected in text, expected
    both = slmkit("runs", "show", kept["old"], kept["other"]).stdout
    assert both.splitlines()[0].split()[:2] == ["model", "host"]
    assert [line for line in both.splitlines() if "Raspberry" in line]
    assert json.loads(slmkit("runs", "show", "latest", "--json").stdout)["id"] == kept["new"]
    several = slmkit("runs", "show", "2026")
    assert several.returncode == 2
    assert "3 runs" in several.stderr
    none = slmkit("runs", "show", "nonsense")
    assert none.returncode == 1
    assert "slmkit runs list" in none.stderr


def test_diff_names_what_is_not_the_same(kept: Kept, slmkit: Run) -> None:
    done = slmkit("runs", "diff", kept["old"], kept["new"])
    assert done.returncode == 0, done.stderr
    assert "+100.0 %" in done.stdout
    assert "not the same" not in done.stdout
    done = slmkit("runs", "diff", kept["old"], kept["other"], "--json")
    found = json.loads(done.stdout)
    assert [(d["where"], d["key"], d["b"]) for d in found["differing"]] == [("host", "cpu", "Raspberry")]
    assert all(value["change"] is None for value in found["values"])


def test_export_and_import_bring_a_run_to_another_machine(
    kept: Kept, slmkit: Run, registry: Registry, tmp_path: Path
) -> None:
    file, other = tmp_path / "runs.json", {"SLMKIT_HOME": str(tmp_path / "other")}
    assert slmkit("runs", "export", kept["old"], "latest", "-o", file).returncode == 0
    done = slmkit("runs", "import", file, "--json", env=other)
    assert done.returncode == 0, done.stderr
    brought = json.loads(done.stdout)
    assert [(one["n_rows"], one["fresh"]) for one in brought] == [(2, True), (1, True)]
    assert brought[0]["id"][:8] == "20261101"
    for one, name in zip(brought, ("old", "new"), strict=True):
        there = runs.read(tmp_path / "other", one["id"]).run
        assert plain(there) == plain(runs.read(registry.home, kept[name]).run)
    again = slmkit("runs", "import", file, env=other)
    assert again.stdout.count("here already") == 2
    assert len(list((tmp_path / "other" / "runs").iterdir())) == 2


def test_a_sensitivity_run_is_listed_shown_and_brought_elsewhere(
    kept: Kept, slmkit: Run, registry: Registry, tmp_path: Path
) -> None:
    moment = datetime(2026, 11, 25, tzinfo=UTC)
    name = runs.save(registry.home, runs.SENSITIVITY, SENSITIVITY.document(), moment).stem
    assert listed(slmkit) == [name, kept["new"], kept["other"], kept["old"]]
    assert listed(slmkit, "--model", "org/m", "--quant", "Q4_0") == [name, kept["new"], kept["old"]]
    shown = slmkit("runs", "show", "latest")
    assert shown.returncode == 0, shown.stderr
    assert "beside m-F16; each group is in Q4_0" in shown.stdout
    assert "attn_v *" in shown.stdout
    found = json.loads(slmkit("runs", "show", name, "--json").stdout)
    assert (found["id"], found["kind"], len(found["groups"])) == (name, "sensitivity", len(SENSITIVITY.costs))
    for arguments in (["show", name, kept["old"]], ["diff", name, kept["old"]]):
        refused = slmkit("runs", *arguments)
        assert (refused.returncode, "`sensitivity`" in refused.stderr) == (2, True), refused.stderr
    refused = slmkit("runs", "export", name, "--as", "benchstat")
    assert (refused.returncode, "no words for runs of `sensitivity`" in refused.stderr) == (2, True)
    file, other = tmp_path / "runs.json", {"SLMKIT_HOME": str(tmp_path / "other")}
    assert slmkit("runs", "export", name, kept["old"], "-o", file).returncode == 0
    brought = slmkit("runs", "import", file, env=other)
    assert f"{len(SENSITIVITY.costs)} rows" in brought.stdout
    assert "here already" in slmkit("runs", "import", file, env=other).stdout
    assert "attn_v *" in slmkit("runs", "show", "latest", env=other).stdout
    gate = slmkit("check", "org/m:Q4_0", "--run", name, "--max-kld", "0.1")
    assert gate.returncode == 2
    assert "`quality --sensitivity`" in gate.stderr
    assert slmkit("runs", "rm", name, "--yes").returncode == 0
    assert name not in listed(slmkit)


def test_import_takes_all_files_or_none(kept: Kept, slmkit: Run, registry: Registry, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(plain(run(row("org/x:F16")))), encoding="utf-8")
    bad.write_text("[]", encoding="utf-8")
    done = slmkit("runs", "import", good, bad)
    assert done.returncode == 1
    assert str(bad) in done.stderr
    assert "expected" in done.stderr
    assert len(list((registry.home / "runs").iterdir())) == len(kept)
    missing = slmkit("runs", "import", tmp_path / "missing.json")
    assert missing.returncode == 2
    assert "missing.json" in missing.stderr


def test_export_in_the_forms_of_others(kept: Kept, slmkit: Run, tmp_path: Path) -> None:
    done = slmkit("runs", "export", kept["old"], "--as", "llama-bench:json")
    assert [found["n_gen"] for found in json.loads(done.stdout)] == [0, 128]
    assert "left out: org/m:Q8_0 failed" in done.stderr
    path = tmp_path / "theirs.jsonl"
    path.write_text(slmkit("runs", "export", kept["old"], "--as", "llama-bench:jsonl").stdout, encoding="utf-8")
    (back,) = parse(path.read_bytes())
    assert back.rows[0].tg_ns == row(tg_s=2.0).tg_ns
    unknown = slmkit("runs", "export", "latest", "--as", "xml")
    assert unknown.returncode == 2
    assert "benchstat" in unknown.stderr
    assert slmkit("runs", "export", "latest", "-o", tmp_path / "no" / "such" / "folder").returncode == 1


def test_a_kit_is_measured_on_another_machine_and_comes_home(
    slmkit: Run, registry: Registry, tiny: str, tmp_path: Path
) -> None:
    folder, other = tmp_path / "kit", {"SLMKIT_HOME": str(tmp_path / "other")}
    done = slmkit("bench", f"{tiny}:Q4_0", "-p", "8", "-n", "4", "-r", "2", "-t", "1", "--export-kit", folder)
    assert done.returncode == 0, done.stderr
    assert not list(registry.home.glob("runs/*"))
    alone = slmkit("bench", "--job", folder / "job.json", env=other)
    assert alone.returncode == 1
    assert "tiny-llama-Q4_0.gguf" in alone.stderr
    artifact = registry.find(tiny, "Q4_0")
    assert artifact is not None
    shutil.copy(artifact.path, folder)
    done = slmkit("bench", "--job", folder / "job.json", env=other)
    assert done.returncode == 0, done.stderr
    assert slmkit("runs", "export", "latest", "-o", folder / "run.json", env=other).returncode == 0
    assert slmkit("runs", "import", folder / "run.json").returncode == 0
    stored = runs.read(registry.home, "latest")
    assert [(row.ref, row.digest) for row in stored.run.rows] == [(artifact.ref, artifact.digest)]
    assert "Q4_0" in slmkit("compare", tiny).stdout


def test_a_job_is_written_and_drawn_like_any_bench_and_fails_when_a_model_is_missing(
    slmkit: Run, registry: Registry, tiny: str, tmp_path: Path
) -> None:
    folder, other = tmp_path / "kit", {"SLMKIT_HOME": str(tmp_path / "other")}
    slmkit("bench", f"{tiny}:Q4_0", f"{tiny}:F16", "-p", "8", "-n", "4", "-r", "2", "-t", "1", "--export-kit", folder)
    artifact = registry.find(tiny, "Q4_0")
    assert artifact is not None
    shutil.copy(artifact.path, folder)
    page, plot = tmp_path / "run.html", tmp_path / "run.svg"
    done = slmkit("bench", "--job", folder, "--report", page, "--plot", plot, "--as", "llama-bench:json", env=other)
    assert done.returncode == 1
    assert "a model of the job is not here" in done.stderr
    assert {row["n_gen"] for row in json.loads(done.stdout)} == {0, 4}
    assert "Q4_0" in page.read_text("utf-8")
    assert plot.read_text("utf-8").startswith("<?xml")


def test_compare_says_how_to_get_rid_of_a_damaged_run(slmkit: Run, registry: Registry, tiny: str) -> None:
    path = registry.home / "runs" / "20261115T000000.000000Z-bench-abcdef.json"
    path.parent.mkdir()
    path.write_text("{", encoding="utf-8")
    done = slmkit("compare", tiny)
    assert done.returncode == 1
    assert f"slmkit runs rm {path.stem}" in done.stderr


def test_rm_asks_first(kept: Kept, slmkit: Run, registry: Registry) -> None:
    done = slmkit("runs", "rm", kept["old"][:8], "latest")
    assert done.returncode == 0
    assert "would delete" in done.stdout
    assert "--yes" in done.stderr
    assert len(list((registry.home / "runs").iterdir())) == 3
    done = slmkit("runs", "rm", kept["old"], "latest", "--yes", "--json")
    assert json.loads(done.stdout) == {"runs": [kept["old"], kept["new"]], "dry_run": False}
    assert [path.stem for path in (registry.home / "runs").iterdir()] == [kept["other"]]


def test_no_run_and_no_day(slmkit: Run) -> None:
    done = slmkit("runs", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "slmkit bench" in done.stderr
    assert slmkit("runs", "list", "--json").stdout.strip() == "[]"
    assert slmkit("runs", "show", "latest").returncode == 1
    done = slmkit("runs", "list", "--since", "yesterday")
    assert done.returncode == 2
    assert "--since" in done.stderr


def test_too_many_lines_are_not_drawn(registry: Registry, slmkit: Run, tmp_path: Path) -> None:
    specs: list[Any] = [replace(SPEC, n_threads=n) for n in range(1, 10)]
    keep(registry.home, run(*(row(spec=spec) for spec in specs)))
    done = slmkit("runs", "list", "--plot", tmp_path / "t.svg")
    assert done.returncode == 2
    assert "9 models" in done.stderr
