"""`slmkit bench` as it is typed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from slmkit.core.bench import BenchRun
from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL, Start, wait_until
from tests.conftest import Run

QUICK = ("-p", "16", "-n", "4", "-t", "1")


OF_JOB = ("-p", "-n", "-t", "-r", "--precision", "--max-time", "--timeout", "--max-rss", "--vs", "--export-kit")


def _run(slmkit: Run, *arguments: str | Path) -> dict[str, Any]:
    done = slmkit("bench", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_lists_of_settings_make_rows_and_each_test_is_measured_once(furnished: Registry, slmkit: Run) -> None:
    found = _run(slmkit, f"{MODEL}:Q4_0", "-p", "8,16", "-n", "4", "-pg", "8,2", "-t", "1-2", "-ctk", "q8_0", "-r", "2")
    run = BenchRun.from_document(found)
    tests = [(r.spec.n_threads, r.spec.n_prompt, r.spec.n_gen, r.spec.n_pg_prompt) for r in run.rows]
    assert tests == [(1, 8, 4, 8), (1, 16, 0, 0), (2, 8, 4, 8), (2, 16, 0, 0)]
    assert {row.spec.type_k for row in run.rows} == {"q8_0"}
    for row in run.rows:
        assert bool(row.samples("pg")) == bool(row.spec.n_pg_prompt)
        assert row.memory is not None
        assert row.memory.kv
        assert row.memory.output is not None
        assert row.memory.vram is None
        assert row.n_params
        assert row.bytes_per_token
    assert run.machine["bandwidth_bytes_per_s"] > 0


def test_an_own_prompt_and_several_sequences(furnished: Registry, slmkit: Run, tmp_path: Path) -> None:
    text = tmp_path / "prompt.txt"
    text.write_text("A prompt of one's own.", encoding="utf-8")
    found = _run(slmkit, f"{MODEL}:Q4_0", *QUICK, "--prompt-file", text, "--parallel", "1,3", "-r", "2")
    run = BenchRun.from_document(found)
    assert [row.spec.n_parallel for row in run.rows] == [1, 3]
    assert all(row.spec.prompt == text.read_text(encoding="utf-8") for row in run.rows)
    assert all(row.ttft_ns and row.samples("itl") for row in run.rows)
    assert run.rows[1].rates("tg")[0] == pytest.approx(12e9 / run.rows[1].tg_ns[0])


def test_two_models_are_held_against_each_other(furnished: Registry, slmkit: Run) -> None:
    done = slmkit("bench", f"{MODEL}:Q4_0", "--vs", f"{MODEL}:F16", *QUICK)
    assert done.returncode == 0, done.stderr
    (verdict,) = [line for line in done.stdout.splitlines() if line.startswith("Q4_0 beside F16: pp16: ")]
    assert "% smaller" in verdict
    assert "beside" not in done.stderr
    several = slmkit("bench", f"{MODEL}:Q4_0", "--vs", MODEL, *QUICK)
    assert several.returncode == 2
    assert "name one of them" in several.stderr


def test_the_verdict_is_in_every_form(furnished: Registry, slmkit: Run, tmp_path: Path) -> None:
    command = ("bench", f"{MODEL}:Q4_0", "--vs", f"{MODEL}:F16", *QUICK, "-r", "2", "--max-time", "0")
    page = tmp_path / "a.html"
    markdown = slmkit(*command, "--quiet", "--format", "md", "--report", page)
    assert "\nQ4_0 beside F16: pp16: " in markdown.stdout
    assert "<li>Q4_0 beside F16: pp16: " in page.read_text(encoding="utf-8")
    as_json = json.loads(slmkit(*command, "--json").stdout)
    assert [each["other"]["ref"] for each in as_json["versus"]] == [f"{MODEL}:F16"]
    table = slmkit(*command, "--format", "csv")
    assert "beside" not in table.stdout
    assert "Q4_0 beside F16: pp16: " in table.stderr


def test_a_file_is_not_held_against_itself(furnished: Registry, slmkit: Run, tmp_path: Path) -> None:
    q4_0 = furnished.find(MODEL, "Q4_0")
    assert q4_0 is not None
    copy = shutil.copy(q4_0.path, tmp_path / "copy.gguf")
    runs = list((furnished.home / "runs").glob("*.json"))
    for other in (f"{MODEL}:Q4_0", copy):
        done = slmkit("bench", f"{MODEL}:Q4_0", "--vs", other, *QUICK)
        assert done.returncode == 2
        assert f"{MODEL}:Q4_0 and {other} are the same file" in done.stderr
        assert "hint:" in done.stderr
    assert list((furnished.home / "runs").glob("*.json")) == runs


def test_the_best_number_of_threads_is_found_said_and_kept(furnished: Registry, slmkit: Run) -> None:
    found = _run(slmkit, f"{MODEL}:Q4_0", "-p", "8", "-n", "4", "-r", "1", "-t", "auto")
    (note,) = found["warnings"]
    assert f"threads are best for {MODEL}:Q4_0" in note
    assert "tg32 tok/s by threads: 1: " in note
    assert json.loads(slmkit("runs", "export", "latest").stdout)["warnings"] == [note]


def test_without_generation_the_threads_are_tried_on_a_prompt(furnished: Registry, slmkit: Run) -> None:
    found = _run(slmkit, f"{MODEL}:Q4_0", "-p", "16", "-n", "0", "-r", "1", "-t", "auto")
    assert "(pp16 tok/s by threads: " in found["warnings"][0]


def test_threads_are_tried_on_the_first_model_that_runs(furnished: Registry, slmkit: Run, tmp_path: Path) -> None:
    """One whose file is no model is a row with its reason, and is named where the threads are."""
    f16 = furnished.find(MODEL, "F16")
    assert f16 is not None
    f16.path.write_bytes(f16.path.read_bytes()[:-5000])
    done = slmkit("bench", f"{MODEL}:F16", f"{MODEL}:Q4_0", "-p", "8", "-n", "4", "-r", "1", "-t", "auto", "--json")
    assert done.returncode == 1, done.stderr
    run = BenchRun.from_document(json.loads(done.stdout))
    assert [bool(row.failure) for row in run.rows] == [True, False]
    assert f"threads are best for {MODEL}:Q4_0" in run.warnings[0]
    assert f"{MODEL}:F16 could not be tried: " in run.warnings[0]


def test_where_no_model_can_be_tried_the_threads_are_those_of_always(furnished: Registry, slmkit: Run) -> None:
    """The trials have the bounds that the rows have."""
    bounds = ("-d", "500000", "--max-rss", "300MiB", "-t", "auto", "--json")
    done = slmkit("bench", f"{MODEL}:Q4_0", "-p", "0", "-n", "4", "-r", "1", *bounds)
    assert done.returncode == 1, done.stderr
    run = BenchRun.from_document(json.loads(done.stdout))
    assert run.rows[0].failure is not None
    assert run.rows[0].failure.code == "engine.memory"
    assert "is not known" in run.warnings[0]
    assert "300.0 MiB" in run.warnings[0]


def test_a_damaged_file_is_a_row_and_the_others_are_measured(furnished: Registry, slmkit: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken-F16.gguf"
    f16 = furnished.find(MODEL, "F16")
    assert f16 is not None
    broken.write_bytes(f16.path.read_bytes()[:-5000])
    done = slmkit("bench", broken, f"{MODEL}:Q4_0", *QUICK, "-r", "2", "--json")
    assert done.returncode == 1
    good, bad = BenchRun.from_document(json.loads(done.stdout)).rows
    assert good.tg_ns
    assert bad.ref == str(broken)
    assert bad.failure is not None
    assert "1 of 2 could not be measured" in done.stderr


def test_a_grid_in_which_everything_goes_wrong_has_a_row_for_each_with_its_reason(
    furnished: Registry, start: Start, tmp_path: Path
) -> None:
    """A damaged file, a child that is killed, one that does not end, and one that takes too much memory."""
    broken = tmp_path / "broken-F16.gguf"
    f16 = furnished.find(MODEL, "F16")
    assert f16 is not None
    broken.write_bytes(f16.path.read_bytes()[:-5000])
    grid = ("-p", "0", "-n", "4,200000", "-d", "0,500000", "-t", "1", "-r", "1")
    bounds = ("--timeout", "4", "--max-rss", "400MiB")
    process = start("bench", broken, f"{MODEL}:F16", f"{MODEL}:Q4_0", *grid, *bounds, "--json")
    killed = False
    while not killed and process.poll() is None:
        for child in psutil.Process(process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a child that has just ended is one
                if "slmkit.backends.llamacpp.worker" in child.cmdline():
                    child.send_signal(signal.SIGSEGV)
                    killed = True
                    break
        time.sleep(0.01)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    rows = BenchRun.from_document(json.loads(out)).rows
    of_file = {ref: [row for row in rows if row.ref == ref] for ref in dict.fromkeys(row.ref for row in rows)}
    reasons = {ref: [row.failure and row.failure.code for row in found] for ref, found in of_file.items()}
    assert reasons == {
        f"{MODEL}:F16": ["engine.crashed", "engine.timeout", "engine.memory", "engine.memory"],
        f"{MODEL}:Q4_0": [None, "engine.timeout", "engine.memory", "engine.memory"],
        str(broken): ["format.gguf"],
    }
    assert "8 of 9 could not be measured" in errors


def test_after_ctrl_c_only_what_is_missing_is_measured(furnished: Registry, slmkit: Run, start: Start) -> None:
    command = ("bench", f"{MODEL}:F16", f"{MODEL}:Q4_0", "-p", "16", "-n", "256", "-t", "1", "-r", "40")
    process = start(*command)
    journals = furnished.home / "journals"

    def lines() -> list[str]:
        return [line for path in journals.glob("*.jsonl") for line in path.read_text("utf-8").splitlines()]

    end = time.monotonic() + 60
    while len(lines()) < 2 and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "`--resume` goes on" in errors
    kept = [json.loads(line)["block"]["tg_ns"] for line in lines()]
    done = slmkit(*command, "--resume", "--max-time", "0", "--json")
    assert done.returncode == 0, done.stderr
    rows = BenchRun.from_document(json.loads(done.stdout)).rows
    measured = [list(block.tg_ns) for row in rows for block in row.blocks]
    assert all(samples in measured for samples in kept)
    assert not lines()
    again = slmkit(*command, "--resume")
    assert again.returncode == 2
    assert "nothing to resume" in again.stderr


def test_after_ctrl_c_it_goes_on_with_the_number_of_threads_that_was_best(
    furnished: Registry, slmkit: Run, start: Start
) -> None:
    """Which number is best differs from one search to the next."""
    command = ("bench", f"{MODEL}:F16", f"{MODEL}:Q4_0", "-p", "16", "-n", "256", "-t", "auto", "-r", "40")
    process = start(*command)
    journals = furnished.home / "journals"

    def records() -> list[dict[str, Any]]:
        lines = [line for path in journals.glob("*.jsonl") for line in path.read_text("utf-8").splitlines(True)]
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def blocks() -> list[dict[str, Any]]:
        return [record for record in records() if "block" in record]

    wait_until(process, lambda: bool(blocks()), timeout_s=90)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    (kept, *_) = blocks()
    (note,) = [record["note"] for record in records() if "note" in record]
    done = slmkit(*command, "--resume", "--max-time", "0", "--json")
    assert done.returncode == 0, done.stderr
    run = BenchRun.from_document(json.loads(done.stdout))
    assert run.warnings == (note,)
    assert {row.spec.n_threads for row in run.rows} == {kept["spec"]["n_threads"]}
    assert kept["block"]["tg_ns"] in [list(block.tg_ns) for row in run.rows for block in row.blocks]
    assert not list(journals.glob("*.jsonl"))
    again = slmkit(*command, "--resume")
    assert again.returncode == 2
    assert "nothing to resume" in again.stderr


def test_two_at_once_do_not_measure_the_same(furnished: Registry, slmkit: Run, start: Start) -> None:
    command = ("bench", f"{MODEL}:Q4_0", "-p", "16", "-n", "256", "-t", "1", "-r", "40")
    process = start(*command)
    end = time.monotonic() + 60
    while not list((furnished.home / "journals").glob("*.jsonl")) and time.monotonic() < end:
        time.sleep(0.02)
    second = slmkit(*command)
    assert second.returncode == 2
    assert "another slmkit is measuring just this" in second.stderr
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    third = slmkit(*command, "--resume", "--max-time", "0")
    assert third.returncode == 0, third.stderr


def test_a_kit_goes_to_another_machine_and_its_run_comes_home(furnished: Registry, slmkit: Run, tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    done = slmkit("bench", f"{MODEL}:Q4_0", *QUICK, "-r", "2", "--export-kit", folder)
    assert done.returncode == 0, done.stderr
    q4_0 = furnished.find(MODEL, "Q4_0")
    assert q4_0 is not None
    shutil.copy(q4_0.path, folder)
    there = {"SLMKIT_HOME": str(tmp_path / "there")}
    measured = slmkit("bench", "--job", folder, env=there)
    assert measured.returncode == 0, measured.stderr
    exported = slmkit("runs", "export", "latest", "-o", tmp_path / "run.json", env=there)
    assert exported.returncode == 0, exported.stderr
    assert slmkit("runs", "import", tmp_path / "run.json").returncode == 0
    document = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert document["rows"][0]["digest"] == q4_0.digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name models"),
        ((f"{MODEL}:Q4_0", "-t", "8-1"), "--threads"),
        ((f"{MODEL}:Q4_0", "-ctk", "q9"), "type_k"),
        ((f"{MODEL}:Q4_0", "-p", "0", "-n", "0"), "nothing to measure"),
        ((f"{MODEL}:Q4_0", "--plot", "x.txt"), "cannot draw"),
        ((f"{MODEL}:Q4_0", "--as", "xml"), "xml"),
        ((f"{MODEL}:Q4_0", "--max-rss", "much"), "not a size"),
        ((f"{MODEL}:Q4_0", "-t", "auto", "--export-kit", "kit"), "`--threads auto` beside `--export-kit`"),
        ((f"{MODEL}:Q4_0", "--vs", f"{MODEL}:F16", "--export-kit", "kit"), "`--vs` beside `--export-kit`"),
        ((f"{MODEL}:Q4_0", "--min-ram", "--export-kit", "kit"), "`--min-ram` beside `--export-kit`"),
        ((f"{MODEL}:Q4_0", "--precision", "1%", "--export-kit", "kit"), "`--precision` beside `--export-kit`"),
        ((f"{MODEL}:Q4_0", "-mmp", "7"), "--mmap is '7'"),
        ((f"{MODEL}:Q4_0", "-t", "auto", "-t", "4"), "'auto' is no number"),
        (("--job", "nowhere.json"), "cannot read"),
        ((f"{MODEL}:Q4_0", "--resume"), "nothing to resume"),
    ],
)
def test_what_cannot_be_meant_is_said(
    furnished: Registry, slmkit: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = slmkit("bench", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("option", [*OF_JOB, "--min-ram"])
def test_a_job_says_what_is_measured(slmkit: Run, option: str) -> None:
    """The value that is the default, too: it may not be the job's."""
    value = {"-p": ("512",), "--min-ram": ()}.get(option, ("1",))
    done = slmkit("bench", "--job", "job.json", option, *value)
    assert done.returncode == 2, done.stderr
    assert "beside `--job`: the job says what is measured" in " ".join(done.stderr.split())
    assert {"-p": "--n-prompt", "-n": "--n-gen", "-t": "--threads", "-r": "--repetitions"}.get(option, option) in (
        done.stderr
    )


def test_an_option_that_is_repeated_is_a_list(furnished: Registry, slmkit: Run) -> None:
    repeated = ("-p", "8", "-p", "16", "-n", "0", "-t", "1", "-t", "2", "-ctk", "f16", "-ctk", "q8_0", "-r", "1")
    run = BenchRun.from_document(_run(slmkit, f"{MODEL}:Q4_0", *repeated, "-mmp", "0", "-mmp", "1"))
    specs = [row.spec for row in run.rows]
    assert len(specs) == 16
    assert {spec.n_prompt for spec in specs} == {8, 16}
    assert {spec.n_threads for spec in specs} == {1, 2}
    assert {spec.type_k for spec in specs} == {"f16", "q8_0"}
    assert {spec.mmap for spec in specs} == {False, True}
