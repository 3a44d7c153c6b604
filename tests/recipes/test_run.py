"""Recipes run: in order, nothing twice, one failure does not stop the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from slmkit.core.refs import ModelRef
from slmkit.errors import EngineMissingError
from slmkit.recipes.plan import plan
from slmkit.recipes.run import run
from slmkit.recipes.schema import Recipe, load
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests.conftest import Run

MODEL = "local/tiny-llama"


def recipe_of(folder: Path, *refs: str | Path, types: str = '["F16", "Q4_0"]', more: str = "") -> Path:
    models = "".join(f'[[models]]\nref = "{ref}"\ntypes = {types}\n' for ref in refs)
    bench = "[bench]\nn_prompt = 8\nn_gen = 4\nrepetitions = 2\nn_threads = 1\n"
    path = folder / "tiny.toml"
    path.write_text(models + bench + more, encoding="utf-8")
    return path


def todo(recipe: Recipe, session: Session) -> list[tuple[str, str, bool]]:
    return [(step.verb, step.ref.rpartition(":")[2], step.to_do) for step in plan(recipe, session)]


def test_everything_once_and_then_nothing_again(tmp_path: Path, checkpoint: Path, session: Session) -> None:
    recipe = load(recipe_of(tmp_path, checkpoint))
    assert todo(recipe, session)[1:] == [
        ("convert", "F16", True),
        ("quantize", "Q4_0", True),
        ("bench", "F16", True),
        ("bench", "Q4_0", True),
    ]
    first = run(recipe, session)
    assert first.failures == ()
    assert [a.ref for a in first.artifacts] == [f"{MODEL}:F16", f"{MODEL}:Q4_0"]
    assert first.run is not None
    assert [len(row.blocks[0].pp_ns) for row in first.run.rows] == [2, 2]  # a busy machine has it measured once more
    assert first.comparison is not None
    assert first.comparison.missing == ()
    assert [row.bench is not None for row in first.comparison.rows] == [True, True]
    assert [to_do for _, _, to_do in todo(recipe, session)] == [False] * 5

    second = run(recipe, session)
    assert (second.run, second.failures) == (None, ())
    assert second.artifacts == first.artifacts
    assert second.comparison == first.comparison


def test_other_settings_are_measured_again(tmp_path: Path, checkpoint: Path, session: Session) -> None:
    recipe = load(recipe_of(tmp_path, checkpoint, types='["Q4_0"]'))
    run(recipe, session)
    assert recipe.bench is not None
    again = replace(recipe, bench=replace(recipe.bench, n_gen=5))
    assert todo(again, session)[1:] == [("quantize", "Q4_0", False), ("bench", "Q4_0", True)]
    result = run(again, session)
    assert result.run is not None
    assert [row.spec.n_gen for row in result.run.rows] == [5]


def test_a_model_that_fails_does_not_stop_the_others(tmp_path: Path, checkpoint: Path, session: Session) -> None:
    recipe = load(recipe_of(tmp_path, tmp_path / "nowhere", checkpoint, types='["IQ2_XXS", "Q4_0"]'))
    result = run(recipe, session)
    assert [a.ref for a in result.artifacts] == [f"{MODEL}:Q4_0"]
    assert [failure.item for failure in result.failures] == [f"{tmp_path / 'nowhere'}", f"{checkpoint}:IQ2_XXS"]
    assert "no such file or folder" in result.failures[0].message
    assert result.failures[1].code == "engine.imatrix"
    assert result.run is not None
    assert [row.ref for row in result.run.rows] == [f"{MODEL}:Q4_0"]


def test_an_alias_that_is_gone_from_the_catalog_fails_alone(tmp_path: Path, checkpoint: Path, session: Session) -> None:
    recipe = load(recipe_of(tmp_path, "./x", checkpoint, types='["Q4_0"]'))
    gone = replace(recipe.models[0], ref=ModelRef("alias", "no-such-model"))
    result = run(replace(recipe, models=(gone, recipe.models[1]), bench=None), session)
    assert [failure.item for failure in result.failures] == ["no-such-model"]
    assert len(result.artifacts) == 1


def test_nothing_made_is_no_comparison(tmp_path: Path, session: Session) -> None:
    result = run(load(recipe_of(tmp_path, "org/absent")), session)
    assert (result.artifacts, result.comparison, result.run) == ((), None, None)
    assert [failure.code for failure in result.failures] == ["registry.not-found"]


def test_a_recipe_says_how_to_convert(tmp_path: Path, checkpoint: Path, session: Session, registry: Registry) -> None:
    run(load(recipe_of(tmp_path, checkpoint)), session)
    path = recipe_of(tmp_path, checkpoint)
    path.write_text(path.read_text().replace("[bench]", 'convert = { split_max_size = "1M" }\n[bench]'))
    recipe = load(path)
    assert todo(recipe, session)[1:3] == [("convert", "F16", True), ("quantize", "Q4_0", True)]
    result = run(recipe, session)
    assert result.failures == ()
    assert [len(a.files) for a in result.artifacts] == [4, 1]
    assert result.artifacts[1].provenance.parents == (result.artifacts[0].digest,)
    assert [to_do for _, _, to_do in todo(recipe, session)] == [False] * 5


def test_a_missing_engine_ends_it(
    tmp_path: Path, checkpoint: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineMissingError):
        run(load(recipe_of(tmp_path, checkpoint, types='["Q4_0"]')), session)


def test_a_gguf_is_a_source_too(tmp_path: Path, f16: Path, session: Session) -> None:
    recipe = replace(load(recipe_of(tmp_path, f16)), bench=None)
    assert todo(recipe, session) == [
        ("pull", str(f16), False),
        ("quantize", "F16", False),
        ("quantize", "Q4_0", True),
    ]
    assert [a.ref for a in run(recipe, session).artifacts] == [str(f16), f"{MODEL}:Q4_0"]
    assert [to_do for _, _, to_do in todo(recipe, session)] == [False, False, False]


def test_a_plan_does_nothing_and_says_why(
    tmp_path: Path, checkpoint: Path, session: Session, registry: Registry
) -> None:
    steps = plan(load(recipe_of(tmp_path, "smollm2-360m", checkpoint)), session)
    assert registry.artifacts() == []
    assert (steps[0].verb, steps[0].to_do, steps[0].why) == ("pull", True, "not here yet")
    assert steps[0].ref == "HuggingFaceTB/SmolLM2-360M-Instruct"
    assert all(step.why for step in steps)


def test_the_program_runs_it_and_writes_the_reports(
    slmkit: Run, tmp_path: Path, checkpoint: Path, registry: Registry
) -> None:
    more = '[report]\nfiles = ["c.md", "c.csv", "c.json", "c.jsonl", "c.html", "c.svg", "no/folder.md", "c.png"]\n'
    path = recipe_of(tmp_path, tmp_path / "nowhere", checkpoint, types='["F16", "Q4_0"]', more=more)
    planned = slmkit("recipe", "plan", path)
    assert planned.returncode == 0, planned.stderr
    assert f"will fail: no such file or folder: {tmp_path / 'nowhere'}" in planned.stdout

    done = slmkit("recipe", "run", path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    errors = done.stderr.splitlines()
    (error,) = (line for line in errors if line.startswith("error: "))
    assert f"{tmp_path / 'nowhere'} (no such file or folder: {tmp_path / 'nowhere'})" in error
    assert "report no/folder.md (cannot write no/folder.md: No such file or directory)" in error
    assert errors[-1] == "hint: the others were done; run the same command again to go on"
    assert [line.split()[0] for line in done.stdout.splitlines()[:3]] == ["type", "F16", "Q4_0"]

    written = {p.name: p for p in (tmp_path / "cwd").iterdir()}
    assert sorted(written) == ["c.csv", "c.html", "c.json", "c.jsonl", "c.md", "c.png", "c.svg"]
    rows = json.loads(written["c.json"].read_text())
    assert [row["variant"] for row in rows] == ["F16", "Q4_0"]
    assert rows == [json.loads(line) for line in written["c.jsonl"].read_text().splitlines()]
    assert written["c.md"].read_text().startswith("| type |")
    assert all(path.stat().st_size for path in written.values())

    runs = sorted((registry.home / "runs").iterdir())
    assert slmkit("recipe", "run", path).returncode == 1
    assert sorted((registry.home / "runs").iterdir()) == runs  # nothing was measured again
