"""`slmkit pick` as users run it, with the real engine and a tiny model."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.bench import BenchSpec
from slmkit.core.progress import SILENT
from slmkit.core.quality import QualitySpec
from slmkit.core.quant import quant_types
from slmkit.core.recommend import Wish
from slmkit.core.refs import ModelRef
from slmkit.ops import corpora
from slmkit.recipes.pick import REPETITIONS, PickOrder
from slmkit.recipes.pick import pick as pick_recipe
from slmkit.recipes.session import Session
from slmkit.registry import dropped, runs
from slmkit.registry.store import Registry
from tests import factories
from tests.cli.conftest import MODEL, Start, wait_until
from tests.cli.test_convert import files_of, in_process, reach
from tests.conftest import Run
from tests.hubserver import HubServer

QUICK = ("--chunks", "2", "-p", "16", "-n", "4", "-t", "1", "--max-kld", "5")
SENTENCE = "the quick brown fox jumps over lazy dogs while seven wizards mix a potion of honey and rain"
WORDS = sorted(SENTENCE.split())


def order(text: Path) -> PickOrder:
    """What `QUICK` says."""
    return PickOrder(
        types=quant_types(["Q8_0,Q4_0"]),
        wish=Wish(max_kld=5),
        bench=BenchSpec(n_prompt=16, n_gen=4, n_threads=1, repetitions=REPETITIONS),
        quality=QualitySpec(n_chunks=2, n_threads=1),
        corpus=corpora.evaluation([str(text)]),
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some chunks of words in random order."""
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(draw.choice(WORDS) for _ in range(1500)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def _picked(checkpoint: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("picked") / "home"
    session = Session(Registry(home), SILENT, may_pull=False, offline=True)
    pick_recipe(ModelRef("path", str(checkpoint)), order(text), session)
    return home


@pytest.fixture
def picked(_picked: Path, registry: Registry) -> Registry:
    """This test's own registry: the tiny model as F16, Q8_0 and Q4_0, all measured."""
    shutil.copytree(_picked, registry.home)
    return registry


@pytest.fixture
def pick(slmkit: Run, text: Path) -> Callable[..., Any]:
    """The document that it prints."""

    def run(ref: str | Path, *arguments: str, code: int = 0, types: str = "Q8_0,Q4_0", **options: Any) -> Any:
        done = slmkit("pick", ref, "--types", types, "--corpus", text, *QUICK, *arguments, "--json", **options)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def rows(document: Any) -> dict[str, Any]:
    return {row["name"]: row for row in document["rows"]}


def here(registry: Registry) -> set[str | None]:
    return {a.variant for a in registry.artifacts(MODEL)}


def test_from_a_checkpoint_to_the_file_to_take(pick: Callable[..., Any], checkpoint: Path, registry: Registry) -> None:
    document = pick(checkpoint)
    found = rows(document)
    assert list(found) == ["F16", "Q8_0", "Q4_0"]
    assert [row["is_base"] for row in found.values()] == [True, False, False]
    for name, row in found.items():
        assert row["tg_tok_per_s"] > 0
        assert row["pp_tok_per_s"] > 0
        assert row["ttft_ms"] > 0
        assert row["peak_rss_bytes"] > 0
        assert row["ref"] == f"{MODEL}:{name}"
    assert found["F16"]["kld"] == 0
    assert 0 < found["Q8_0"]["kld"] < found["Q4_0"]["kld"]
    assert found["Q4_0"]["scores"]["ppl_ratio"]["value"] > 0
    best = document["choice"]["best"]["name"]
    assert best in ("Q8_0", "Q4_0")
    assert best in document["sentences"][0]
    assert set(document["fresh"]) == {f"{MODEL}:{name}" for name in ("F16", "Q8_0", "Q4_0")}
    assert (document["n_benched"], document["n_judged"]) == (3, 2)
    assert here(registry) == {"F16", "Q8_0", "Q4_0"}


def test_the_second_time_nothing_is_done(pick: Callable[..., Any], checkpoint: Path, picked: Registry) -> None:
    n_runs = len(list((picked.home / "runs").iterdir()))
    first, second = pick(checkpoint), pick(MODEL)
    for document in (first, second):
        assert (document["fresh"], document["n_benched"], document["n_judged"]) == ([], 0, 0)
    assert second["choice"] == first["choice"]
    assert second["rows"] == first["rows"]
    assert len(list((picked.home / "runs").iterdir())) == n_runs
    more = pick(checkpoint, types="Q8_0,Q4_0,Q5_1")
    assert (more["fresh"], more["n_benched"], more["n_judged"]) == ([f"{MODEL}:Q5_1"], 1, 1)


def test_other_settings_are_measured_anew(pick: Callable[..., Any], picked: Registry) -> None:
    again = pick(MODEL, "--chunks", "1")
    assert (again["fresh"], again["n_benched"], again["n_judged"]) == ([], 0, 2)
    again = pick(MODEL, "--chunks", "1", "-n", "5", types="Q4_0")
    assert (again["fresh"], again["n_benched"], again["n_judged"]) == ([], 2, 0)


def test_the_table(slmkit: Run, picked: Registry, text: Path) -> None:
    done = slmkit("pick", MODEL, "--types", "Q8_0,Q4_0,IQ2_XXS", "--corpus", text, *QUICK)
    assert done.returncode == 0, done.stderr
    titles = " ".join(done.stdout.splitlines()[0].split())
    assert titles == ("type size tg tok/s pp tok/s TTFT peak RSS mean KLD KLD p99 same top PPL change verdict state")
    marked = [line for line in done.stdout.splitlines() if line.startswith("★")]
    assert len(marked) == 2  # the row, and the sentence
    assert "mean KLD" in marked[1]
    assert "not tried: IQ2_XXS: it needs an importance matrix" in done.stdout
    assert "2 chunks of words.txt" in done.stdout
    assert "hint: slmkit show" in done.stderr


def test_nothing_keeps_the_limits(slmkit: Run, pick: Callable[..., Any], picked: Registry, text: Path) -> None:
    document = pick(MODEL, "--min-tps", "1e9", code=3)
    assert document["choice"]["best"] is None
    assert "is less than 1e+09" in document["choice"]["nearest"]["reason"]
    done = slmkit("pick", MODEL, "--types", "Q4_0", "--corpus", text, *QUICK, "--max-kld", "1e-9", "--keep", "best")
    assert done.returncode == 3
    assert "nothing keeps every limit" in done.stderr
    assert "the nearest is" in done.stderr
    assert here(picked) == {"F16", "Q4_0", "Q8_0"}


def test_only_the_best_is_kept_and_what_is_known_stays_known(
    slmkit: Run, pick: Callable[..., Any], checkpoint: Path, registry: Registry
) -> None:
    assert slmkit("adopt", checkpoint).returncode == 0
    first = pick(MODEL, "--keep", "best")
    best = first["choice"]["best"]["name"]
    loser = ({"Q8_0", "Q4_0"} - {best}).pop()
    assert here(registry) == {None, best}
    assert {(each["ref"], each["is_recipe_kept"]) for each in first["removed"]} == {
        (f"{MODEL}:{loser}", True),
        (f"{MODEL}:F16", True),
    }
    assert first["freed_bytes"] == sum(each["size_bytes"] for each in first["removed"])
    assert {a.variant for a in dropped.all_of(registry.home, MODEL)} == {loser, "F16"}

    second = pick(MODEL, "--keep", "best")
    assert (second["fresh"], second["n_benched"], second["n_judged"]) == ([], 0, 0)
    assert second["choice"]["best"]["name"] == best
    assert rows(second)[loser]["here"] is False
    assert here(registry) == {None, best}
    assert slmkit("get", f"{MODEL}:{loser}").returncode == 0


@pytest.fixture
def without_q8_0(slmkit: Run, picked: Registry, checkpoint: Path, pick: Callable[..., Any]) -> str:
    """Of Q8_0 and F16 only the recipes are left; gives a limit of the KLD that only Q8_0 keeps."""
    assert slmkit("adopt", checkpoint).returncode == 0
    klds = [rows(pick(MODEL))[name]["kld"] for name in ("Q8_0", "Q4_0")]
    for variant in ("Q8_0", "F16"):
        picked.drop(picked.find(MODEL, variant) or pytest.fail("it is not here"))
    return str(sum(klds) / 2)


@pytest.mark.parametrize("keep", ["all", "best"])
def test_a_winner_that_was_removed_is_made_again(
    pick: Callable[..., Any], picked: Registry, without_q8_0: str, keep: str
) -> None:
    document = pick(MODEL, "--max-kld", without_q8_0, "--keep", keep)
    assert document["choice"]["best"]["name"] == "Q8_0"
    assert document["choice"]["best"]["here"] is rows(document)["Q8_0"]["here"] is True
    assert document["fresh"] == [f"{MODEL}:F16", f"{MODEL}:Q8_0"]
    assert (document["n_benched"], document["n_judged"]) == (0, 0)
    assert [each["ref"] for each in document["removed"]] == ([f"{MODEL}:F16"] if keep == "best" else [])
    assert here(picked) == {None, "Q4_0", "Q8_0"} | ({"F16"} if keep == "all" else set())


def test_a_winner_that_cannot_be_made_again_is_said_not_to_be_here(
    slmkit: Run, picked: Registry, without_q8_0: str, text: Path
) -> None:
    recipe = dropped.find(picked.home, MODEL, "Q8_0")
    assert recipe
    provenance = replace(recipe.provenance, parameters={**recipe.provenance.parameters, "type": "gone"})
    dropped.keep(picked.home, replace(recipe, provenance=provenance))
    arguments = ("--types", "Q8_0,Q4_0", "--corpus", text, *QUICK, "--max-kld", without_q8_0, "--keep", "best")
    done = slmkit("pick", MODEL, *arguments)
    assert done.returncode == 0, done.stderr
    assert f"warning: {MODEL}:Q8_0 is not here: " in done.stderr
    assert f"hint: slmkit get {MODEL}:Q8_0" in done.stderr
    assert here(picked) == {None, "Q4_0"}


def test_what_was_there_before_is_never_removed(pick: Callable[..., Any], picked: Registry) -> None:
    document = pick(MODEL, "--keep", "best", types="Q8_0,Q5_1,Q4_0,Q4_1")
    best = document["choice"]["best"]["name"]
    assert here(picked) == {"F16", "Q4_0", "Q8_0", best}
    assert {each["ref"] for each in document["removed"]} == {f"{MODEL}:Q5_1", f"{MODEL}:Q4_1"} - {f"{MODEL}:{best}"}


def test_a_file_that_was_brought_is_taken_as_it_is(
    slmkit: Run, pick: Callable[..., Any], furnished: Registry, tmp_path: Path
) -> None:
    brought = tmp_path / "brought"
    brought.mkdir()
    for variant in ("F16", "Q4_0"):
        found = furnished.find(MODEL, variant)
        assert found is not None
        shutil.copy(found.path, brought / f"mine-{variant}.gguf")
        assert slmkit("adopt", brought / f"mine-{variant}.gguf").returncode == 0
    document = pick("local/mine", "--keep", "best")
    assert document["fresh"] == ["local/mine:Q8_0"]
    assert (brought / "mine-Q4_0.gguf").exists()
    assert rows(document)["Q4_0"]["kld"] > 0


def test_types_that_come_to_the_same_are_tried_once(pick: Callable[..., Any], tmp_path: Path) -> None:
    odd = factories.make_llama(tmp_path / "odd", hidden=96)
    document = pick(odd, types="Q8_0,Q6_K")
    left_out = {each["name"]: each["reason"] for each in document["left_out"]}
    assert "Q6_K" in left_out
    assert "the same as Q8_0" in left_out["Q6_K"]
    assert list(rows(document)) == ["F16", "Q8_0"]


def test_types_are_made_with_an_importance_matrix(
    pick: Callable[..., Any], slmkit: Run, checkpoint: Path, registry: Registry
) -> None:
    assert slmkit("adopt", checkpoint).returncode == 0
    first = pick(MODEL, "--imatrix", "auto", "--keep", "best", types="IQ2_XXS,Q4_0")
    assert list(rows(first)) == ["F16", "IQ2_XXS-imatrix", "Q4_0-imatrix"]
    assert all(row["memory_bytes"] for row in rows(first).values())
    assert set(first["fresh"]) == {f"{MODEL}:{name}" for name in rows(first)}
    best = first["choice"]["best"]["name"]
    loser = ({"IQ2_XXS-imatrix", "Q4_0-imatrix"} - {best}).pop()
    assert here(registry) == {None, best}
    assert {each["ref"] for each in first["removed"]} == {f"{MODEL}:F16", f"{MODEL}:{loser}"}
    again = pick(MODEL, "--imatrix", "auto", "--keep", "best", types="IQ2_XXS,Q4_0")
    assert (again["fresh"], again["n_benched"], again["n_judged"]) == ([], 0, 0)
    assert again["choice"]["best"]["name"] == best
    plain = pick(MODEL, types="Q4_0")
    assert list(rows(plain)) == ["F16", "Q4_0"]
    assert f"{MODEL}:Q4_0" in plain["fresh"]


def test_from_the_hub(pick: Callable[..., Any], hub: HubServer, checkpoint: Path) -> None:
    hub.add("org/tiny-llama", files_of(checkpoint))
    document = pick("org/tiny-llama", types="Q4_0", env=reach(hub))
    assert document["choice"]["best"]["ref"].startswith("org/tiny-llama:Q")


def test_interrupted_it_goes_on(
    start: Start, pick: Callable[..., Any], slmkit: Run, checkpoint: Path, registry: Registry, text: Path
) -> None:
    assert slmkit("adopt", checkpoint).returncode == 0
    process = start("pick", MODEL, "--types", "Q8_0,Q4_0", "--corpus", text, *QUICK)
    journals = registry.home / "journals"
    wait_until(process, lambda: any('"block"' in path.read_text() for path in journals.glob("*.jsonl")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert here(registry) >= {"F16", "Q8_0", "Q4_0"}
    measured_before = list(runs.load(registry.home, "bench"))

    document = pick(MODEL, "--keep", "best")
    assert document["fresh"] == []
    assert {each["ref"] for each in document["removed"]} >= {f"{MODEL}:F16"}  # made by the one that was interrupted
    assert measured_before == []
    (run,) = runs.load(registry.home, "bench")
    assert len(run["rows"]) == 3
    assert not list(journals.glob("*.jsonl"))


def size_of(*folders: Path) -> int:
    """Of all model files, and all that is downloaded."""
    files = [file for folder in folders for pattern in ("*.gguf", "blobs/*") for file in folder.rglob(pattern)]
    return sum(file.stat().st_size for file in files)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_the_disk_that_it_says_is_the_disk_that_it_takes(
    slmkit: Run, pick: Callable[..., Any], hub: HubServer, registry: Registry, tmp_path: Path, dtype: str
) -> None:
    config = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    made = factories.make_checkpoint(tmp_path / "m", "LlamaForCausalLM", "llama", config, dtype=dtype)
    hub.add("org/tiny-llama", files_of(made))
    cache = tmp_path / "hf"
    assert slmkit("plan", "org/tiny-llama", env=reach(hub)).returncode == 0  # that brings all but the weights
    before = size_of(registry.home, cache)
    document = pick("org/tiny-llama", types="F32,BF16,Q8_0", env=reach(hub))
    assert {a.variant for a in registry.artifacts("org/tiny-llama")} == {None, "F16", "BF16", "F32", "Q8_0"}
    assert document["disk_bytes"] == size_of(registry.home, cache) - before
    assert pick("org/tiny-llama", types="F32,BF16", env=reach(hub))["disk_bytes"] == 0
    more = pick("org/tiny-llama", types="F16,Q4_0", env=reach(hub))
    found = registry.find("org/tiny-llama", "Q4_0")
    assert found is not None
    assert more["disk_bytes"] == found.size_bytes


@pytest.mark.parametrize("quietly", [["--quiet"], []])
def test_room_is_spoken_of_unless_it_is_to_be_quiet(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, registry: Registry, text: Path, quietly: list[str]
) -> None:
    done = in_process("pick", checkpoint, "--types", "Q8_0", "--corpus", text, *QUICK, *quietly)
    assert done.exit_code == 0
    assert ("trying 1 type needs" in done.stderr) is not bool(quietly)

    class Full:
        free = 1000

    monkeypatch.setattr("slmkit.recipes.disk.shutil.disk_usage", lambda _: Full)
    done = in_process("pick", checkpoint, "--types", "Q4_0", "--corpus", text, *QUICK, *quietly)
    assert done.exit_code == 1
    assert "of disk" in done.stderr
    assert {a.variant for a in registry.artifacts()} == {"F16", "Q8_0"}


def test_there_must_be_room_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, registry: Registry, text: Path
) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr("slmkit.recipes.disk.shutil.disk_usage", lambda _: Full)
    done = in_process("pick", checkpoint, "--types", "Q8_0", "--corpus", text, *QUICK, "--json")
    said = json.loads(done.stderr.splitlines()[-1])
    assert (done.exit_code, said["error"]) == (1, "disk.full")
    assert "of disk" in said["message"]
    assert registry.artifacts() == []


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["./nowhere"], 2, "usage"),
        (["FOLDER", "--keep", "some"], 2, "usage"),
        (["FOLDER", "--types", "Q4_9"], 2, "usage.type"),
        (["FOLDER", "--types", "IQ2_XXS"], 2, "usage"),
        (["FOLDER", "--max-kld", "0"], 2, "usage"),
        (["FOLDER", "--ram", "much"], 2, "usage"),
        (["org/name", "--no-pull"], 1, "registry.not-found"),
    ],
)
def test_what_goes_wrong_is_told(
    slmkit: Run, checkpoint: Path, text: Path, arguments: list[str], code: int, error: str
) -> None:
    typed = [str(checkpoint) if a == "FOLDER" else a for a in arguments]
    done = slmkit("pick", *typed, "--corpus", text, "--chunks", "2", "-n", "4", "--json")
    assert (done.returncode, json.loads(done.stderr.splitlines()[-1])["error"]) == (code, error), done.stderr
