"""`slmkit quantize` with its options, as users type it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slmkit.registry import imatrices
from slmkit.registry.store import Registry
from tests import factories
from tests.cli.conftest import MODEL, Start
from tests.cli.test_convert import files_of, reach
from tests.cli.test_trouble import limited
from tests.conftest import Run
from tests.hubserver import HubServer


def test_options_make_a_variant_that_can_be_named(slmkit: Run, furnished: Registry, tmp_path: Path) -> None:
    rules = tmp_path / "cwd" / "rules.txt"
    rules.parent.mkdir()
    rules.write_text("attn_v=Q8_0  # larger\n", encoding="utf-8")
    types = ("--rule", "FFN_down=q6_k", "--rules", "rules.txt", "--output-type", "q8_0")
    rest = ("--max-buffer", "1MiB", "--prune-layers", "1", "--override-kv", "general.name=str:x")
    done = slmkit("quantize", MODEL, "-t", "Q4_0", *types, *rest, "--name", "lean")
    assert done.returncode == 0, done.stderr
    assert f"{MODEL}:Q4_0-lean" in done.stdout
    (shown,) = json.loads(slmkit("show", f"{MODEL}:Q4_0-lean", "--json").stdout)
    assert shown["parameters"] | {"n_threads": 0} == {
        "type": "Q4_0",
        "source": f"{MODEL}:F16",
        "n_threads": 0,
        "rules": [["ffn_down", "Q6_K"], ["attn_v", "Q8_0"]],
        "output_type": "Q8_0",
        "prune_layers": [1],
        "overrides": {"general.name": "x"},
    }
    again = slmkit("quantize", MODEL, "-t", "Q4_0", "--name", "lean")
    assert again.returncode == 2
    assert "is there already, made in another way" in again.stderr


def test_a_file_that_was_brought_is_not_replaced(slmkit: Run, furnished: Registry, tmp_path: Path) -> None:
    for variant in ("F16", "Q4_0"):
        found = furnished.find(MODEL, variant)
        assert found is not None
        shutil.copy(found.path, tmp_path / f"mine-{variant}.gguf")
        assert slmkit("adopt", tmp_path / f"mine-{variant}.gguf").returncode == 0
    before = furnished.find("local/mine", "Q4_0")
    done = slmkit("quantize", "local/mine", "-t", "Q4_0")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"local/mine:Q4_0 is there already and was not made here: {tmp_path / 'mine-Q4_0.gguf'}" in done.stderr
    assert "`--force`" in done.stderr
    assert "`--name LABEL`" in done.stderr
    assert furnished.find("local/mine", "Q4_0") == before
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[models]]\nref = "local/mine"\ntypes = ["Q4_0"]\n', encoding="utf-8")
    planned = slmkit("recipe", "plan", recipe)
    assert "will fail: local/mine:Q4_0 is there already" in planned.stdout, planned.stderr
    assert slmkit("recipe", "run", recipe).returncode == 1
    assert furnished.find("local/mine", "Q4_0") == before

    assert slmkit("quantize", "local/mine", "-t", "Q4_0,Q8_0").returncode == 1, "the other one is made"
    assert slmkit("quantize", "local/mine", "-t", "Q4_0", "--name", "own").returncode == 0
    assert furnished.find("local/mine", "Q4_0") == before
    assert slmkit("quantize", "local/mine", "-t", "Q4_0", "--force").returncode == 0
    made = {a.variant: a.provenance.action for a in furnished.artifacts("local/mine")}
    assert made == {"F16": "adopt", "Q4_0": "quantize", "Q4_0-own": "quantize", "Q8_0": "quantize"}
    assert (tmp_path / "mine-Q4_0.gguf").exists()
    assert slmkit("quantize", "local/mine", "-t", "Q4_0").returncode == 0, "made here: nothing to do"


def test_strict_is_a_no_with_a_way_out(slmkit: Run, tmp_path: Path) -> None:
    odd = factories.make_llama(tmp_path / "odd", hidden=288)
    done = slmkit("quantize", odd, "-t", "Q4_K_M", "--strict", "5", "--json")
    assert (done.returncode, done.stdout) == (3, "")
    told = json.loads(done.stderr)
    assert told["error"] == "verdict"
    assert "keeps the promise" in told["hint"]


def test_strict_is_a_no_also_when_others_were_made(slmkit: Run, tmp_path: Path) -> None:
    odd = factories.make_llama(tmp_path / "odd", hidden=288)
    done = slmkit("quantize", odd, "-t", "Q4_K_M,Q8_0", "--strict", "5", "--json")
    assert done.returncode == 3
    assert [row["ref"] for row in json.loads(done.stdout)] == ["local/odd:Q8_0"]
    assert json.loads(done.stderr)["error"] == "verdict"
    assert slmkit("quantize", odd, "-t", "Q8_0", "--pure", "--name", "x").returncode == 0
    failed = slmkit("quantize", odd, "-t", "Q4_K_M,Q8_0", "--name", "x", "--strict", "5", "--json")
    told = json.loads(failed.stderr)
    assert (failed.returncode, told["error"]) == (1, "some-failed")
    assert "would fall back" in told["message"]
    assert "made in another way" in told["message"]


def test_when_nothing_could_be_made_each_type_has_its_reason(slmkit: Run, furnished: Registry) -> None:
    done = slmkit("quantize", MODEL, "-t", "IQ1_S,IQ2_XXS", "--json")
    assert done.returncode == 1
    told = json.loads(done.stderr)
    assert told["error"] == "engine.imatrix"
    assert all(f"{kind}: {kind} of this model needs" in told["message"] for kind in ("IQ1_S", "IQ2_XXS"))


def test_a_full_disk_is_said_of_each_type_and_what_to_do_once(start: Start, furnished: Registry) -> None:
    process = start("quantize", MODEL, "-t", "Q4_1,Q5_1", **limited(100_000))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    for kind in ("Q4_1", "Q5_1"):
        assert f"{kind}: no space left on the disk of {furnished.home} for {kind} of {MODEL}:F16, which takes " in err
    assert err.count("free some") == 1
    assert ".partial" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("-t", "Q4_K_M,Q6_K", "--strict", "5"), 3, "would not be what it is called"),
        (("-t", "IQ1_S"), 1, "IQ1_S of this model needs an importance matrix"),
        (("-t", "Q4_0", "--rule", "nothing=Q8_0"), 2, "has 'nothing' in its name"),
        (("-t", "Q4_0", "--rule", "nothing=Q8_0", "--imatrix", "auto"), 2, "has 'nothing' in its name"),
        (("-t", "Q4_0", "--output-type", "IQ2_XXS", "--imatrix", "auto"), 1, "slmkit collects none of output"),
        (("-t", "Q4_K_M", "--strict", "5", "--imatrix", "auto"), 3, "--imatrix auto"),
        (("-t", "Q4_0", "--prune-layers", "9"), 2, "has no layer 9"),
        (("-t", "Q4_0", "--imatrix", "no.gguf"), 2, "no such file"),
    ],
)
def test_what_is_refused_is_refused_before_it_pulls_and_converts(
    slmkit: Run, registry: Registry, tmp_path: Path, arguments: tuple[str, ...], code: int, why: str
) -> None:
    hidden = 256 if {"IQ1_S", "IQ2_XXS"} & set(arguments) else 288
    odd = factories.make_llama(tmp_path / "odd", hidden=hidden)
    done = slmkit("quantize", odd, *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert why in done.stderr
    assert "converting it first" not in done.stderr
    with HubServer() as hub:
        hub.add("org/odd", files_of(odd))
        pulled = slmkit("quantize", "org/odd", *arguments, env=reach(hub))
        asked = [seen for seen in hub.log if seen.path.endswith(".safetensors") and seen.host == "storage"]
    assert (pulled.returncode, pulled.stdout) == (code, ""), pulled.stderr
    assert why in pulled.stderr
    assert "pulling it first" not in pulled.stderr
    assert all(seen.range for seen in asked), "of the weights only headers"
    assert registry.artifacts() == []


@pytest.mark.parametrize(
    ("hidden", "options", "code"),
    [(288, ("-t", "Q4_K_M", "--strict", "5"), 3), (256, ("-t", "Q4_0", "--output-type", "IQ2_XXS"), 1)],
)
def test_no_importance_matrix_is_collected_for_what_is_refused(
    slmkit: Run, registry: Registry, tmp_path: Path, hidden: int, options: tuple[str, ...], code: int
) -> None:
    odd = factories.make_llama(tmp_path / "odd", hidden=hidden)
    assert slmkit("convert", odd).returncode == 0
    done = slmkit("quantize", odd, *options, "--imatrix", "auto")
    assert done.returncode == code, done.stderr
    assert "collecting it first" not in done.stderr
    assert imatrices.every(registry, "local/odd") == []


def test_what_is_not_refused_is_made(slmkit: Run, registry: Registry, tmp_path: Path) -> None:
    odd = factories.make_llama(tmp_path / "odd", hidden=288)
    done = slmkit("quantize", odd, "-t", "Q4_K_M,Q8_0", "--strict", "5")
    assert done.returncode == 3
    assert "Q4_K_M" in done.stderr
    assert [a.variant for a in registry.artifacts()] == ["F16", "Q8_0"]
    strict = slmkit("quantize", odd, "-t", "F16,Q4_K_M", "--strict", "5", "--json")
    assert strict.returncode == 3, "the F16 is wanted itself"


def test_the_table_says_what_was_really_made(slmkit: Run, tmp_path: Path) -> None:
    odd = factories.make_llama(tmp_path / "odd", hidden=288)
    done = slmkit("quantize", odd, "-t", "Q4_K_M")
    assert done.returncode == 0, done.stderr
    assert "on label" in done.stdout
    assert "Q4_K_M: 0.0 % of the parameters are Q4_K; " in done.stdout
    assert "because rows of 288 and 576 do not divide into blocks of 256" in done.stdout


def test_a_requantized_file_is_marked_in_the_list(slmkit: Run, furnished: Registry) -> None:
    assert slmkit("quantize", f"{MODEL}:Q8_0", "-t", "Q4_0").returncode == 2
    done = slmkit("quantize", f"{MODEL}:Q8_0", "-t", "Q4_0", "--allow-requantize")
    assert done.returncode == 0, done.stderr
    assert "Q4_0-requantized: made from Q8_0" in done.stdout
    assert "quantize from Q8_0" in slmkit("list").stdout


@pytest.mark.parametrize(
    "options",
    [
        "--rule ffn_down",
        "--rule ffn_down=Q6K",
        "--rule ffn(=Q6_K",
        "--rule nothing_has_this=Q6_K",
        "--rules not-here.txt",
        "--output-type Q8_1",
        "--prune-layers 1-0",
        "--prune-layers 7",
        "--override-kv a",
        "--max-buffer much",
        "--strict 101",
        "--name a/b",
    ],
)
def test_what_was_mistyped_is_said_before_anything_is_made(slmkit: Run, furnished: Registry, options: str) -> None:
    before = [artifact.ref for artifact in furnished.artifacts()]
    done = slmkit("quantize", MODEL, "-t", "Q4_1", *options.split(), "--json")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert json.loads(done.stderr)["error"].startswith("usage")
    assert [artifact.ref for artifact in furnished.artifacts()] == before


def test_a_registry_that_cannot_be_written_still_answers_what_is_there(slmkit: Run, furnished: Registry) -> None:
    locks = furnished.home / "locks"
    for path in locks.iterdir():
        path.unlink()
    locks.rmdir()
    locks.write_text("no folder", encoding="utf-8")
    there = slmkit("quantize", MODEL, "-t", "Q4_0,Q8_0")
    assert (there.returncode, there.stdout.count("there already")) == (0, 2)
    done = slmkit("quantize", MODEL, "-t", "Q4_1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the registry cannot be written: ")
    assert "hint: set SLMKIT_HOME" in done.stderr
