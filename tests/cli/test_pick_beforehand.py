"""What `slmkit pick` finds out before it makes anything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.plan import ROOMY_SHARE
from slmkit.registry import runs
from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL
from tests.cli.test_pick import here, rows
from tests.cli.test_pick import pick as pick  # a fixture
from tests.cli.test_pick import text as text  # a fixture
from tests.conftest import Run

ALONE = "is quantized: there is no float file of it to judge it against"


@pytest.fixture
def lone(furnished: Registry, tmp_path: Path) -> Path:
    """A Q4_0 of a model of which nothing else is here."""
    found = furnished.find(MODEL, "Q4_0")
    assert found is not None
    return Path(shutil.copy(found.path, tmp_path / "lone.gguf"))


@pytest.mark.parametrize("verb", [("pick", "--types", "Q8_0,Q4_0"), ("recommend", "--measure")])
def test_a_quantized_file_is_no_base_of_its_own(slmkit: Run, lone: Path, verb: tuple[str, ...]) -> None:
    done = slmkit(verb[0], lone, *verb[1:])
    assert done.returncode == 2, done.stdout
    assert f"error: {lone} {ALONE}" in done.stderr
    assert "float GGUF of it" in done.stderr
    assert slmkit("adopt", lone).returncode == 0
    done = slmkit(verb[0], "local/lone", *verb[1:])
    assert done.returncode == 2, done.stdout
    assert f"local/lone {ALONE}" in done.stderr


def test_a_float_is_what_is_one_whatever_it_is_called(slmkit: Run, lone: Path, furnished: Registry) -> None:
    pretended = lone.rename(lone.with_name("lone-F16.gguf"))
    done = slmkit("pick", pretended, "--types", "F16")
    assert (done.returncode, ALONE in done.stderr) == (2, True), done.stderr
    assert slmkit("adopt", pretended).returncode == 0
    done = slmkit("pick", "local/lone:F16", "--types", "F16")
    assert (done.returncode, ALONE in done.stderr) == (2, True), done.stderr
    real = furnished.find(MODEL, "F16")
    assert real is not None
    called = shutil.copy(real.path, lone.with_name("called-Q4_0.gguf"))
    done = slmkit("pick", called, "--types", "Q8_0", "--max-kld", "1e-9")
    assert ALONE not in done.stderr


def test_the_float_of_the_registry_is_the_base_of_a_quantized_file(pick: Any, furnished: Registry, lone: Path) -> None:
    found = rows(pick(f"{MODEL}:Q4_0", types="Q4_0"))
    assert list(found) == ["F16", "Q4_0"]
    assert found["Q4_0"]["kld"] > 0
    mine = lone.rename(lone.with_name("tiny-llama-Q4_0.gguf"))
    q8 = furnished.find(MODEL, "Q8_0")
    assert q8 is not None
    shutil.copy(q8.path, mine)  # another file than the registry's Q4_0
    named = rows(pick(mine, types="Q4_0"))["Q4_0"]
    assert named["ref"] == str(mine)
    assert 0 < named["kld"] < found["Q4_0"]["kld"]
    assert here(furnished) == {"F16", "Q4_0", "Q8_0"}


def test_a_corpus_that_is_too_short_is_known_before_anything_but_the_float_is_made(
    slmkit: Run, checkpoint: Path, registry: Registry, tmp_path: Path
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("ten words are not enough for a chunk of text\n", encoding="utf-8")
    done = slmkit("pick", checkpoint, "--types", "Q8_0,Q4_0", "--corpus", short)
    assert done.returncode == 2, done.stderr
    assert "less than one chunk of 512" in done.stderr
    assert "`--corpus FILE`" in done.stderr
    assert "--ctx" not in done.stderr  # that is the memory's
    assert here(registry) == {"F16"}
    assert not list(runs.load(registry.home, "bench"))


def test_what_cannot_fit_is_not_made(slmkit: Run, pick: Any, checkpoint: Path, registry: Registry) -> None:
    document = pick(checkpoint, "--ram", "1KiB", code=3)
    assert (document["rows"], document["choice"]["best"]) == ([], None)
    q8, q4 = sorted(document["left_out"], key=lambda each: -each["need_bytes"])
    assert (q8["name"], q4["name"]) == ("Q8_0", "Q4_0")
    assert q4["reason"].startswith("it needs ")
    assert q4["reason"].endswith(" MiB at 2,048 tokens: more than 80% of 1.0 KiB")
    done = slmkit("pick", checkpoint, "--types", "Q8_0,Q4_0", "--ram", "1KiB")
    assert done.returncode == 3
    assert f"the nearest is Q4_0: {q4['reason']}" in done.stderr
    assert registry.artifacts() == []
    between = (q8["need_bytes"] + q4["need_bytes"]) / 2 / ROOMY_SHARE
    document = pick(checkpoint, "--ram", f"{between:.0f}", code=3)  # it takes more than planned: so small is the model
    assert [each["name"] for each in document["left_out"]] == ["Q8_0"]
    assert list(rows(document)) == ["F16", "Q4_0"]
    assert here(registry) == {"F16", "Q4_0"}


def test_what_the_plan_remarks_is_said(pick: Any, furnished: Registry) -> None:
    document = pick(MODEL, "--ctx", "9999999", types="Q4_0")
    assert "beyond the 2,048 tokens that the model was trained for: 9,999,999" in document["notes"]
