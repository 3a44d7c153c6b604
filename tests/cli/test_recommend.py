"""`slmkit recommend`: from estimates, from what was measured, and measuring what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.bench import BenchSpec
from slmkit.core.pick import LADDER
from slmkit.core.quality import Corpus, QualitySpec, Text
from slmkit.core.recommend import BOUND, ESTIMATED, MEASURED, OTHER_TEXT, Candidate, Recommendation, Wish
from slmkit.core.refs import ModelRef
from slmkit.recipes.pick import pick
from slmkit.recipes.recommend import Measuring, recommend
from slmkit.recipes.session import Session
from slmkit.recipes.trial import Trial
from slmkit.registry import runs
from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL, leftovers
from tests.cli.test_pick import WORDS, order
from tests.conftest import Run
from tests.watching import Watching

CORPUS = Corpus("words", (Text("words", " ".join(WORDS) * 60),))


@pytest.fixture
def ask(slmkit: Run) -> Callable[..., Any]:
    """The document that it prints."""

    def run(*arguments: str | Path, code: int = 0) -> Any:
        done = slmkit("recommend", *arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    return run


def everything(document: Any) -> dict[str, Any]:
    choice = document["choice"]
    found = [loser["candidate"] for loser in choice["losers"]] + ([choice["best"]] if choice["best"] else [])
    return {each["name"]: each for each in found}


def in_table(found: Recommendation) -> list[Candidate]:
    choice = found.choice
    return [*([choice.best] if choice.best else []), *(loser.candidate for loser in choice.losers)]


def measuring(budget_s: float) -> Measuring:
    bench = BenchSpec(n_prompt=16, n_gen=4, repetitions=2, n_threads=1)
    return Measuring(bench, QualitySpec(n_ctx=64, n_chunks=2, n_threads=1), CORPUS, budget_s)


def test_where_nothing_is_measured_all_is_an_estimate(ask: Callable[..., Any], checkpoint: Path) -> None:
    document = ask(checkpoint, "--max-kld", "100")
    assert document["choice"]["is_estimate"] is True
    found = everything(document)
    assert set(found) <= set(LADDER)
    assert {(each["quality"], each["speed"]) for each in found.values()} == {(ESTIMATED, BOUND)}
    assert not any(each["here"] for each in found.values())
    assert all(each["memory_bytes"] > each["size_bytes"] / 2 for each in found.values())
    assert "estimate" in document["sentences"][2]
    assert len(document["sentences"]) == 3


def test_what_was_measured_counts(ask: Callable[..., Any], session: Session, checkpoint: Path, tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text(CORPUS.texts[0].text, encoding="utf-8")
    pick(ModelRef("path", str(checkpoint)), order(text), session)
    document = ask(MODEL, "--max-kld", "5")
    choice = document["choice"]
    assert choice["best"]["name"] in ("Q8_0", "Q4_0")
    assert (choice["is_estimate"], choice["best"]["quality"], choice["best"]["speed"]) == (False, MEASURED, MEASURED)
    assert document["corpus_name"] == "words.txt"
    found = everything(document)
    assert "F16" not in found
    assert found["Q6_K"]["quality"] == ESTIMATED


def test_the_table_and_the_next_command(slmkit: Run, checkpoint: Path) -> None:
    done = slmkit("recommend", checkpoint, "--max-kld", "100", "--ctx", "256")
    assert done.returncode == 0, done.stderr
    titles = " ".join(done.stdout.splitlines()[0].split())
    assert titles == "type size bpw RAM @ 256 tg tok/s mean KLD verdict why not"
    assert done.stdout.splitlines()[1].startswith("★")
    assert "~" in done.stdout.splitlines()[1]
    assert "--measure" in done.stderr
    assert "at most ~" in done.stdout.splitlines()[1]


def test_a_speed_is_estimated_by_what_another_file_reached_here(
    slmkit: Run, furnished: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = everything(json.loads(slmkit("recommend", MODEL, "--max-kld", "100", "--json").stdout))
    known, other = every["Q4_0"], every["Q8_0"]
    assert (known["speed"], other["speed"]) == (MEASURED, ESTIMATED)
    assert other["speed_from"] == f"Q4_0's {known['tok_per_s']:.1f} tok/s here"
    assert other["tok_per_s"] < known["tok_per_s"]  # it has more to read, whatever the bandwidth is
    said = slmkit("recommend", MODEL, "--max-kld", "100", "--min-tps", f"{known['tok_per_s'] * 1e-3}")
    assert "may keep every limit" in " ".join(said.stdout.split())
    assert other["speed_from"] in " ".join(said.stdout.split())


@pytest.mark.parametrize("limit", [("--ram", "1MiB"), ("--min-tps", "1e12"), ("--max-kld", "1e-12")])
def test_nothing_fits(slmkit: Run, checkpoint: Path, limit: tuple[str, str]) -> None:
    done = slmkit("recommend", checkpoint, *limit)
    assert done.returncode == 3, done.stdout
    assert "nothing keeps every limit" in done.stderr
    assert "the nearest is" in done.stderr


def test_for_another_computer(ask: Callable[..., Any], checkpoint: Path) -> None:
    slow = everything(ask(checkpoint, "--max-kld", "100", "--device", "raspberry-pi-4-4gb"))
    fast = everything(ask(checkpoint, "--max-kld", "100", "--device", "steam-deck"))
    for name, one in slow.items():
        assert one["speed"] == ESTIMATED
        assert fast[name]["tok_per_s"] == pytest.approx(one["tok_per_s"] * 11)
    document = ask(checkpoint, "--max-kld", "100", "--device", "raspberry-pi-5-8gb")
    assert document["device"] == "Raspberry Pi 5, 8 GB"
    assert document["choice"]["wish"]["ram_bytes"] == 8 << 30
    assert any("GB/s" in note for note in document["notes"])


def test_a_model_of_which_only_a_quant_is_here(ask: Callable[..., Any], slmkit: Run, furnished: Registry) -> None:
    found = furnished.find(MODEL, "Q4_0")
    assert found is not None
    stray = furnished.home / "stray-Q4_0.gguf"
    stray.write_bytes(found.path.read_bytes())
    assert slmkit("adopt", stray).returncode == 0
    document = ask("local/stray", "--max-kld", "100")
    assert list(everything(document)) == ["Q4_0"]
    measured = slmkit("recommend", "local/stray", "--max-kld", "100", "--measure")
    assert measured.returncode == 2
    assert "local/stray is quantized: there is no float file of it to judge it against" in measured.stderr


def test_files_with_a_label_count_too(ask: Callable[..., Any], slmkit: Run, furnished: Registry) -> None:
    assert slmkit("quantize", MODEL, "-t", "Q4_0", "--pure").returncode == 0
    assert "Q4_0-pure" in everything(ask(MODEL, "--max-kld", "100"))


def test_the_speed_of_all_is_estimated_by_one_bandwidth(
    slmkit: Run, furnished: Registry, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([1e9, 2e9, 4e9, 8e9])
    monkeypatch.setattr("slmkit.host.bandwidth.read_bytes_per_s", lambda *_: next(rates))
    assert slmkit("quantize", MODEL, "-t", "Q8_0", "--name", "again").returncode == 0
    every = in_table(recommend(ModelRef.parse(MODEL), Wish(max_kld=100), replace(session, registry=furnished)))
    found = {c.name: c.tok_per_s for c in every}
    assert found["Q8_0-again"] == found["Q8_0"]


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["FOLDER", "--device", "toaster"], 2, "usage"),
        (["FOLDER", "--measure", "--budget", "10 apples"], 2, "usage"),
        (["FOLDER", "--ctx", "0"], 2, "usage"),
        (["org/name:Q4_0"], 2, "usage"),
        (["org/name", "--no-pull"], 1, "registry.not-found"),
    ],
)
def test_what_goes_wrong_is_told(slmkit: Run, checkpoint: Path, arguments: list[str], code: int, error: str) -> None:
    done = slmkit("recommend", *(str(checkpoint) if a == "FOLDER" else a for a in arguments), "--json")
    assert (done.returncode, json.loads(done.stderr.splitlines()[-1])["error"]) == (code, error), done.stderr


def test_a_budget_without_measuring_is_refused(slmkit: Run) -> None:
    done = slmkit("recommend", "org/name", "--budget", "5m", "--min-tps", "12.5", "--no-pull")
    assert done.returncode == 2, done.stdout
    assert "slmkit recommend org/name --min-tps 12.5 --no-pull --measure --budget 5m" in " ".join(done.stderr.split())


def test_the_hint_keeps_what_was_typed(slmkit: Run, checkpoint: Path) -> None:
    options = ["--ram", "4GiB", "--ctx", "256", "--min-tps", "1", "--max-kld", "100", "--device", "steam-deck"]
    done = slmkit("recommend", checkpoint, *options)
    assert done.returncode == 0, done.stderr
    assert f"{checkpoint} {' '.join(options)} --measure" in " ".join(done.stderr.split())


@pytest.mark.parametrize("option", ["--min-tps", "--max-kld"])
def test_a_limit_that_cannot_be_is_named_as_it_was_typed(slmkit: Run, option: str) -> None:
    done = slmkit("recommend", "org/name", "--no-pull", option, "-3")
    assert done.returncode == 2, done.stdout
    assert f"`{option}` is -3: it must be above 0" in " ".join(done.stderr.split())


# ------------------------------------------------------------------ measuring


def test_what_may_win_is_made_and_measured(checkpoint: Path, session: Session, registry: Registry) -> None:
    ref = ModelRef("path", str(checkpoint))
    found = recommend(ref, Wish(max_kld=5), session, measuring=measuring(600))
    assert found.measured
    assert found.open == ()
    assert found.choice.best is not None
    assert found.choice.best.is_measured
    assert not found.choice.is_estimate
    made = {a.variant for a in registry.artifacts(MODEL)}
    assert found.choice.best.name in made

    again = recommend(ref, Wish(max_kld=5), session, measuring=measuring(600))
    assert again.measured == ()
    assert again.choice.best == found.choice.best


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """That of the budget."""
    found = Clock()
    for module in ("deadline", "recommend"):
        monkeypatch.setattr(f"slmkit.recipes.{module}.time", found)
    return found


def test_what_would_not_end_in_time_is_not_begun(
    checkpoint: Path, session: Session, registry: Registry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str | None] = []
    judge = Trial.judge

    def slow(trial: Trial, only: str | None = None, *, timeout_s: float | None = None) -> int:
        begun.append(only)
        clock.now += 100
        return judge(trial, only)

    def smallest(unmeasured: Sequence[Candidate], *_: object) -> Candidate | None:
        return min(unmeasured, key=lambda c: c.size_bytes, default=None)

    monkeypatch.setattr(Trial, "judge", slow)
    monkeypatch.setattr("slmkit.recipes.recommend.worth_measuring", smallest)
    found = recommend(ModelRef("path", str(checkpoint)), Wish(), session, measuring=measuring(350))
    assert 2 <= len(begun) <= 3
    assert clock.now < 350
    assert list(found.measured) == [f"{MODEL}:{name}" for name in begun]
    assert {a.variant for a in registry.artifacts(MODEL)} == {"F16", *begun}
    assert found.open
    assert not set(found.open) & set(begun)


@pytest.mark.parametrize("work", ["convert", "quantize", "quality", "bench"])
def test_what_is_running_when_the_time_is_over_is_stopped(
    checkpoint: Path, session: Session, registry: Registry, clock: Clock, work: str
) -> None:
    class Late(Watching):
        def advance(self, amount: int = 1) -> None:
            if self.label.startswith(work):
                clock.now += 1000

    ref = ModelRef("path", str(checkpoint))
    late = replace(session, progress=Late())
    found = recommend(ref, Wish(max_kld=5), late, measuring=measuring(600))
    assert found.measured == ()
    stopped = found.open[0]
    assert not any(each.candidate.failure for each in found.choice.losers)
    made = {a.variant for a in registry.artifacts(MODEL)}
    assert made == {"convert": set(), "quantize": {"F16"}}.get(work, {"F16", stopped})
    assert leftovers(registry.home) == []
    assert len(runs.quality_runs(registry.home)[0]) == (work == "bench")
    assert list(runs.load(registry.home, "bench")) == []

    clock.now = 0.0
    again = recommend(ref, Wish(max_kld=5), session, measuring=measuring(600))
    assert again.measured
    assert again.open == ()


def test_what_was_read_of_other_text_is_an_estimate_and_is_read_again(checkpoint: Path, session: Session) -> None:
    ref = ModelRef("path", str(checkpoint))
    first = recommend(ref, Wish(max_kld=5), session, measuring=measuring(600))
    assert first.choice.best is not None
    name, kld = first.choice.best.name, first.choice.best.kld
    more = replace(measuring(0.0), quality=QualitySpec(n_ctx=64, n_chunks=3, n_threads=1))
    found = {c.name: c for c in in_table(recommend(ref, Wish(max_kld=5), session, measuring=more))}
    assert (found[name].quality, found[name].kld) == (OTHER_TEXT, kld)
    others = [c for c in found.values() if c.quality == ESTIMATED and c.bpw and c.kld is not None]
    assert others
    assert all(c.kld < 5 for c in others if c.kld)  # by the bits per weight alone it would be some hundred

    again = recommend(ref, Wish(max_kld=5), session, measuring=replace(more, budget_s=600))
    assert f"{MODEL}:{name}" in again.measured


def test_a_no_is_measured_where_that_was_asked_for(checkpoint: Path, session: Session) -> None:
    found = recommend(ModelRef("path", str(checkpoint)), Wish(max_kld=1e-9), session, measuring=measuring(600))
    assert found.choice.best is None
    assert found.choice.nearest is not None
    assert found.choice.nearest.candidate.is_proven
    assert found.choice.nearest.candidate.ref in found.measured


def test_files_are_measured_whatever_they_are_called(
    slmkit: Run, furnished: Registry, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labelled(unmeasured: Sequence[Candidate], *_: object) -> Candidate | None:
        return next((c for c in unmeasured if c.name == "Q4_0-pure"), None)

    assert slmkit("quantize", MODEL, "-t", "Q4_0", "--pure").returncode == 0
    before = {a.variant for a in furnished.artifacts(MODEL)}
    monkeypatch.setattr("slmkit.recipes.recommend.worth_measuring", labelled)
    here = replace(session, registry=furnished)
    found = recommend(ModelRef.parse(MODEL), Wish(max_kld=5), here, measuring=measuring(600))
    assert found.measured == (f"{MODEL}:Q4_0-pure",)
    assert {c.name for c in in_table(found) if c.is_measured} == {"Q4_0-pure"}
    assert {a.variant for a in furnished.artifacts(MODEL)} == before


def test_a_lone_quant_with_a_label_stands_there_once(slmkit: Run, furnished: Registry, tmp_path: Path) -> None:
    assert slmkit("quantize", MODEL, "-t", "Q4_0", "--pure").returncode == 0
    made = furnished.find(MODEL, "Q4_0-pure")
    assert made is not None
    lone = shutil.copy(made.path, tmp_path / "lone-Q4_0-pure.gguf")
    done = slmkit("recommend", lone, "--json", env={"SLMKIT_HOME": str(tmp_path / "other")})
    choice = json.loads(done.stdout)["choice"]
    shown = [row["candidate"]["name"] if "candidate" in row else row["name"] for row in choice["losers"]]
    assert [*([choice["best"]["name"]] if choice["best"] else []), *shown] == ["Q4_0-pure"]


def test_without_time_nothing_is_begun(checkpoint: Path, session: Session, registry: Registry) -> None:
    found = recommend(ModelRef("path", str(checkpoint)), Wish(max_kld=5), session, measuring=measuring(0.0))
    assert found.measured == ()
    assert found.open
    assert found.choice.is_estimate
    assert registry.artifacts(MODEL) == []
