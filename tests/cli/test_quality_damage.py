"""`slmkit quality --damage` and `--sensitivity`, as typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from slmkit.errors import EngineCrashedError
from slmkit.ops import corpora
from slmkit.registry import runs
from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL, Start, leftovers, wait_until
from tests.cli.test_convert import in_process
from tests.cli.test_trouble import interrupt
from tests.conftest import Run

pytestmark = pytest.mark.usefixtures("furnished")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(corpora.corpus().text[:6000] + "He paid Mr Smith 42 crowns.\n", encoding="utf-8")
    return path


def options(text: Path, n_chunks: int = 4) -> tuple[str, ...]:
    return ("--corpus", str(text), "--ctx", "64", "--chunks", str(n_chunks))


def test_damage_on_the_screen(slmkit: Run, text: Path) -> None:
    done = slmkit("quality", MODEL, *options(text), "--damage")
    assert done.returncode == 0, done.stderr
    assert "kind of token" in done.stdout
    assert "tokens before it" in done.stdout
    assert "Latin words" in done.stdout
    assert re.search(r"Q4_0 KLD +of all +Q8_0 KLD +of all", done.stdout)
    assert re.search(r"^worst contexts of tiny-llama-Q4_0$", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^[1-5]\. KLD \d", done.stdout, re.MULTILINE)) == 10
    assert re.search(r"^   Q4_0|^   tiny-llama-Q4_0", done.stdout, re.MULTILINE)


def test_damage_as_markdown(slmkit: Run, text: Path) -> None:
    done = slmkit("quality", f"{MODEL}:Q4_0", *options(text), "--damage", "--behaviour", "--format", "md")
    assert done.returncode == 0, done.stderr
    titles = re.findall(r"^\| ([\w ]+\w) +\|.*\n\|[ :|-]+\|$", done.stdout, re.MULTILINE)
    assert titles == ["model", "greedy answers", "kind of token", "tokens before it"]
    assert "\n```\nworst contexts of tiny-llama-Q4_0\n" in done.stdout


def test_all_of_it_is_on_one_page(slmkit: Run, text: Path, tmp_path: Path) -> None:
    page, again = tmp_path / "a.html", tmp_path / "again.html"
    done = slmkit("quality", f"{MODEL}:Q4_0", *options(text), "--damage", "--format", "html", "--report", page)
    assert done.returncode == 0, done.stderr
    assert done.stdout == page.read_text("utf-8")
    for shown in ("<!doctype html>", "same top", "kind of token", "Worst contexts of tiny-llama-Q4_0"):
        assert shown in done.stdout
    shown_again = slmkit("runs", "show", "latest", "--format", "html", "--report", again)
    assert shown_again.stdout == again.read_text("utf-8") == done.stdout
    table = tmp_path / "a.md"
    assert slmkit("runs", "show", "latest", "--report", table).returncode == 0
    assert "```\nworst contexts of tiny-llama-Q4_0\n" in table.read_text("utf-8")


def test_what_is_measured_is_shown_whatever_becomes_of_the_damage(monkeypatch: pytest.MonkeyPatch, text: Path) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise EngineCrashedError("the engine crashed (SIGSEGV)")

    monkeypatch.setattr("slmkit.recipes.damage.op", fail)
    shown = in_process("quality", f"{MODEL}:Q4_0", *options(text), "--damage")
    assert shown.exit_code == 1
    assert "same top" in shown.stdout
    assert "the engine crashed (SIGSEGV)" in shown.stderr
    document = in_process("quality", f"{MODEL}:Q4_0", *options(text), "--damage", "--json")
    assert document.exit_code == 1
    assert json.loads(document.stdout)[0]["rows"][1]["scores"]
    again = in_process("runs", "show", "latest", "--json")
    assert json.loads(again.stdout)["rows"][1]["scores"]
    assert "damage" not in json.loads(again.stdout)["rows"][1]


def test_damage_is_kept(slmkit: Run, text: Path, registry: Registry) -> None:
    done = slmkit("quality", f"{MODEL}:Q4_0", *options(text), "--damage")
    assert done.returncode == 0, done.stderr
    assert len(list((registry.home / "runs").glob("*-quality-*"))) == 1
    shown = slmkit("runs", "show", "latest")
    assert done.stdout[done.stdout.index("kind of token") :] in shown.stdout
    assert json.loads(slmkit("runs", "show", "latest", "--json").stdout)["rows"][1]["damage"]["worst"]


def test_ctrl_c_in_the_damage_leaves_the_run_as_it_was(
    start: Start, slmkit: Run, text: Path, registry: Registry
) -> None:
    process = start("quality", f"{MODEL}:Q4_0", *options(text, 40), "--damage")
    wait_until(process, lambda: any((registry.home / "runs").glob("[!.]*-quality-*")))
    interrupt(process)
    assert process.returncode == 130
    (kept,) = runs.quality_runs(registry.home)[0]
    assert kept.run.rows[1].chunks
    assert kept.run.damages == ()
    assert leftovers(registry.home) == []
    assert slmkit("runs", "show", "latest").returncode == 0


def test_damage_as_json(slmkit: Run, text: Path) -> None:
    done = slmkit("quality", f"{MODEL}:Q4_0", *options(text), "--damage", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    base, quant = run["rows"]
    assert "damage" not in base
    assert {group["kind"] for group in quant["damage"]["groups"]} == {"class", "domain", "place"}
    assert len(quant["damage"]["worst"]) == 5
    assert len(quant["damage"]["worst"][0]["base_top"]) == 5


def test_sensitivity_on_the_screen_and_in_files(slmkit: Run, text: Path, tmp_path: Path) -> None:
    recipe, plot, page = tmp_path / "kept.toml", tmp_path / "costs.svg", tmp_path / "costs.html"
    arguments = ("quality", MODEL, *options(text), "--sensitivity", "q4_0", "--recipe", recipe, "--plot", plot)
    done = slmkit(*arguments, "--report", page)
    assert done.returncode == 0, done.stderr
    assert "quantized alone" in done.stdout
    assert re.search(r"attn_v\b.*█", done.stdout)
    assert re.search(r"blk\.1\b.*█", done.stdout)
    assert re.search(r"roles add up to 0\.\d+, layers and what is in none to 0\.\d+; all together cost", done.stdout)
    assert "<svg" in plot.read_text("utf-8")
    assert page.read_text("utf-8").count("<figure>") == 1
    assert slmkit("runs", "show", "latest", "--format", "html").stdout == page.read_text("utf-8")
    assert f"slmkit recipe run {recipe}" in done.stderr
    planned = slmkit("recipe", "plan", recipe)
    assert planned.returncode == 0, planned.stderr
    assert "Q4_0" in planned.stdout


def test_sensitivity_as_json(slmkit: Run, text: Path) -> None:
    done = slmkit("quality", MODEL, *options(text), "--sensitivity", "Q4_0", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["kind"], found["type"]) == ("sensitivity", "Q4_0")
    assert {group["kind"] for group in found["groups"]} == {"role", "layer", "all"}
    assert found["sums"]["role"] > 0


def test_ctrl_c_leaves_no_file_and_resume_goes_on(start: Start, slmkit: Run, text: Path, registry: Registry) -> None:
    command = ("quality", MODEL, *options(text, 8), "--sensitivity", "Q4_0")
    process = start(*command)

    def in_the_second_batch() -> bool:
        measured = any(path.stat().st_size for path in (registry.home / "journals").glob("*.jsonl"))
        return measured and len(list(registry.home.glob(".partial-*/*.gguf"))) == 1

    wait_until(process, in_the_second_batch)
    interrupt(process)
    assert process.returncode == 130
    assert leftovers(registry.home) == []
    done = slmkit(*command, "--resume", timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert "all together" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--recipe", "x.toml"), "`--recipe` and `--plot` go with `--sensitivity`"),
        (("--sensitivity", "Q4_0", "--damage"), "does not go with `--damage`"),
        (("--sensitivity", "Q4_0", "--max-kld", "0.1"), "does not go with `--max-kld`"),
        (("--sensitivity", "Q9_9"), "no quant type 'Q9_9'"),
        (("--damage", "--format", "csv"), "`--format csv` has one table: no room for `--damage`"),
        (("--tasks", "basics", "--format", "jsonl"), "no room for `--tasks`"),
        (("--behaviour", "--report", "a.csv"), "a.csv has no room for `--behaviour`"),
        (("--report", "a.pdf"), "cannot write a.pdf"),
        (("--sensitivity", "Q4_0", "--report", "a.pdf"), "cannot write a.pdf"),
        (("--behaviour", "--format", "json"), "`--format md`, or `--json`"),
        (("--sensitivity", "Q4_0", "--plot", "x.jpg"), "cannot draw x.jpg"),
        ((f"{MODEL}:Q4_0", "--sensitivity", "Q4_0"), "takes one model"),
    ],
)
def test_what_makes_no_sense_is_refused(slmkit: Run, text: Path, arguments: tuple[str, ...], what: str) -> None:
    done = slmkit("quality", MODEL, *arguments, *options(text))
    assert done.returncode == 2
    assert what in done.stderr
