"""Recipes that say how to quantize: made as they say, planned as they are made."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmkit.core.imatrix import Calibration
from slmkit.core.refs import ModelRef
from slmkit.ops import corpora
from slmkit.recipes import verbs
from slmkit.recipes.plan import plan
from slmkit.recipes.run import RecipeResult, run
from slmkit.recipes.schema import Recipe, load
from slmkit.recipes.session import Session
from tests.conftest import Run

MODEL = "local/tiny-llama"


def recipe_of(folder: Path, checkpoint: Path, *lines: str) -> Recipe:
    path = folder / "tiny.toml"
    path.write_text("\n".join(["[[models]]", f'ref = "{checkpoint}"', *lines, ""]), encoding="utf-8")
    return load(path)


def todo(recipe: Recipe, session: Session) -> dict[str, bool]:
    return {f"{s.verb} {s.ref.removeprefix(f'{MODEL}:')}": s.to_do for s in plan(recipe, session) if s.verb != "pull"}


def made(result: RecipeResult) -> list[str | None]:
    assert result.failures == ()
    return [artifact.variant for artifact in result.artifacts]


@pytest.mark.parametrize(
    ("table", "label"),
    [
        ('{ pure = true, output_type = "Q8_0" }', "-pure-output-Q8_0"),
        ('{ rules = ["ffn_down=Q6_K"], name = "lean" }', "-lean"),
        ("{ keep_split = true, allow_requantize = true }", ""),
        ('{ strict = "100 %" }', ""),
    ],
)
def test_the_plan_names_what_is_made(
    tmp_path: Path, checkpoint: Path, session: Session, table: str, label: str
) -> None:
    recipe = recipe_of(tmp_path, checkpoint, 'types = ["F16", "Q4_0"]', f"quantize = {table}")
    wanted = ["convert F16", f"quantize Q4_0{label}"]
    assert todo(recipe, session) == dict.fromkeys(wanted, True)
    assert made(run(recipe, session)) == ["F16", f"Q4_0{label}"]
    assert todo(recipe, session) == dict.fromkeys(wanted, False)
    f16 = session.registry.find(MODEL, "F16")
    assert f16
    with session.registry.locked(MODEL):
        session.registry.drop(f16)  # then only the F16 is to be made
    assert todo(recipe, session) == {wanted[0]: True, wanted[1]: False}


def test_another_spec_of_the_same_name_is_made_again(tmp_path: Path, checkpoint: Path, session: Session) -> None:
    types = 'types = ["Q4_K_M"]'
    first = recipe_of(tmp_path, checkpoint, types, 'quantize = { rules = ["ffn_down=Q6_K"], name = "lean" }')
    (before,) = run(first, session).artifacts
    other = recipe_of(tmp_path, checkpoint, types, 'quantize = { rules = ["ffn_down=Q8_0"], name = "lean" }')
    (step,) = [s for s in plan(other, session) if s.verb == "quantize"]
    assert (step.to_do, step.why) == (True, "made in another way than the recipe's")
    (after,) = run(other, session).artifacts
    assert (after.variant, after.digest != before.digest) == ("Q4_K_M-lean", True)
    assert not any(todo(other, session).values())
    assert todo(first, session)["quantize Q4_K_M-lean"]


def test_an_importance_matrix_is_planned_and_collected(tmp_path: Path, checkpoint: Path, session: Session) -> None:
    text = Calibration("mixed", corpora.corpus().text[:3_000])
    recipe = recipe_of(tmp_path, checkpoint, 'types = ["IQ2_XXS"]', 'quantize = { imatrix = "auto" }')
    assert todo(recipe, session) == {f"imatrix {MODEL}": True, "quantize IQ2_XXS-imatrix": True}
    verbs.imatrix(ModelRef("path", str(checkpoint)), text, session, n_chunks=1)
    assert todo(recipe, session) == {f"imatrix {MODEL}": False, "quantize IQ2_XXS-imatrix": True}
    assert made(run(recipe, session)) == ["IQ2_XXS-imatrix"]
    assert not any(todo(recipe, session).values())


def test_an_importance_matrix_that_is_no_file_fails(tmp_path: Path, checkpoint: Path, session: Session) -> None:
    recipe = recipe_of(tmp_path, checkpoint, 'types = ["F16", "Q4_0"]', 'quantize = { imatrix = "no.gguf" }')
    assert todo(recipe, session) == {"convert F16": True, "quantize Q4_0-imatrix": True}
    result = run(recipe, session)
    assert [a.variant for a in result.artifacts] == ["F16"]
    assert "no such file" in result.failures[0].message


def test_a_target_beside_types(tmp_path: Path, checkpoint: Path, session: Session) -> None:
    lines = ['types = ["Q8_0", "F16"]', "target = { bpw = 6 }"]
    recipe = recipe_of(tmp_path, checkpoint, *lines)
    wanted = ["quantize Q8_0", "convert F16", "quantize MIX-6.00bpw"]
    assert todo(recipe, session) == dict.fromkeys(wanted, True)
    assert made(run(recipe, session)) == ["Q8_0", "F16", "MIX-6.00bpw"]
    assert todo(recipe, session) == dict.fromkeys(wanted, False)
    text = Calibration("words.txt", corpora.corpus().text[:20_000])
    verbs.imatrix(ModelRef("path", str(checkpoint)), text, session, n_chunks=1)
    assert todo(recipe, session)["quantize MIX-6.00bpw"], "the newest importance matrix makes another mix"
    assert made(run(recipe, session)) == ["Q8_0", "F16", "MIX-6.00bpw"]
    assert not any(todo(recipe, session).values())


def test_a_target_that_cannot_be_reached_is_a_failed_item(tmp_path: Path, checkpoint: Path, session: Session) -> None:
    result = run(recipe_of(tmp_path, checkpoint, 'types = ["F16"]', 'target = { size = "1KiB" }'), session)
    assert [a.variant for a in result.artifacts] == ["F16"]
    assert [failure.item for failure in result.failures] == [f"{checkpoint} at 1.0 KiB"]


def test_a_promise_that_is_not_kept_is_a_failed_item(tmp_path: Path, slmkit: Run) -> None:
    from tests import factories

    folder = factories.make_llama(tmp_path / "odd", hidden=96)
    recipe_of(tmp_path, folder, 'types = ["F16", "Q4_K_M", "Q4_0"]', 'quantize = { strict = "50 %" }')
    planned = slmkit("recipe", "plan", tmp_path / "tiny.toml")
    assert planned.returncode == 0, planned.stderr
    done = slmkit("recipe", "run", tmp_path / "tiny.toml")
    assert done.returncode == 1
    assert "Q4_K_M of local/odd:F16 would not be what it is called" in done.stderr
    assert "Traceback" not in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:3]] == ["F16", "Q4_0"]
