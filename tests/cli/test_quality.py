"""`slmkit quality` as users run it, with the real engine and a tiny model."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmkit.core.divergence import BROKEN
from slmkit.core.quality import QualityRun
from slmkit.errors import EngineCrashedError
from slmkit.formats.gguf.header import read_header
from slmkit.registry import runs
from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL, Start, wait_until
from tests.cli.test_convert import in_process
from tests.conftest import Run

QUICK = ("--ctx", "64", "-t", "2")
SENTENCE = "the quick brown fox jumps over one lazy dog for which seven wizards mix a potion of honey in their old jars"
WORDS = sorted(SENTENCE.split())


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Some 200 chunks of words in random order."""
    draw = random.Random(0)
    path = tmp_path / "words.txt"
    path.write_text(" ".join(draw.choice(WORDS) for _ in range(4000)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def quality(slmkit: Run, furnished: Registry, text: Path) -> Callable[..., Any]:
    """The documents that it prints."""

    def run(*arguments: str | Path, code: int = 0) -> Any:
        done = slmkit("quality", *(arguments or (MODEL,)), "--corpus", text, *QUICK, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    return run


def rows(document: Any) -> dict[str, Any]:
    return {row["ref"].rpartition(":")[2]: row for row in document["rows"]}


def test_every_file_of_a_model_beside_its_f16(quality: Callable[..., Any], furnished: Registry) -> None:
    (document,) = quality(MODEL, "--chunks", "12")
    found = rows(document)
    assert list(found) == ["F16", "Q8_0", "Q4_0"] or set(found) == {"F16", "Q8_0", "Q4_0"}
    assert found["F16"]["verdict"] == "base"
    assert found["F16"]["scores"]["kld"] is None
    assert found["Q8_0"]["scores"]["kld"]["value"] < found["Q4_0"]["scores"]["kld"]["value"]
    assert found["Q8_0"]["scores"]["n_tokens"] == 12 * 31
    assert document["base"] == found["F16"]["digest"]
    assert document["peak_rss"] > 0
    (kept,) = runs.load(furnished.home, "quality")
    run = QualityRun.from_document(kept)
    assert [len(row.chunks) for row in run.rows] == [12, 12, 12]
    assert not list((furnished.home / "journals").glob("*.jsonl"))


def test_the_table(slmkit: Run, furnished: Registry, text: Path) -> None:
    done = slmkit("quality", MODEL, "--corpus", text, *QUICK, "--chunks", "12")
    assert done.returncode == 0, done.stderr
    assert "same top" in done.stdout
    assert "12 chunks of 64 tokens of words.txt" in done.stdout
    assert "beside tiny-llama-F16" in done.stdout
    wide = slmkit("quality", f"{MODEL}:Q4_0", "--corpus", text, *QUICK, "--chunks", "12", "--wide", "--format", "md")
    assert "RMS Δp" in wide.stdout


def test_domains_are_shown_by_themselves(slmkit: Run, furnished: Registry, text: Path, tmp_path: Path) -> None:
    other = tmp_path / "numbers.txt"
    other.write_text(" ".join(str(n * n) for n in range(3000)), encoding="utf-8")
    done = slmkit("quality", f"{MODEL}:Q4_0", "--corpus", text, "--corpus", other, *QUICK, "--chunks", "8")
    assert done.returncode == 0, done.stderr
    assert "mean KLD by domain" in done.stdout
    assert "numbers.txt" in done.stdout


def test_a_base_is_made_where_it_is_missing(slmkit: Run, checkpoint: Path, text: Path) -> None:
    assert slmkit("adopt", checkpoint).returncode == 0
    made = slmkit("quantize", MODEL, "-t", "Q8_0")
    assert made.returncode == 0, made.stderr
    assert slmkit("rm", f"{MODEL}:F16").returncode == 0
    done = slmkit("quality", f"{MODEL}:Q8_0", "--corpus", text, *QUICK, "--chunks", "4")
    assert done.returncode == 0, done.stderr
    assert "converting it first" in done.stderr
    assert "F16" in done.stdout


def test_perplexity_alone_where_nothing_can_be_the_base(
    slmkit: Run, furnished: Registry, text: Path, tmp_path: Path
) -> None:
    stray = tmp_path / "stray-Q4_0.gguf"
    stray.write_bytes(Registry().find(MODEL, "Q4_0").path.read_bytes())  # type: ignore[union-attr]
    done = slmkit("quality", stray, "--corpus", text, *QUICK, "--chunks", "4", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)[0]["rows"]
    assert row["scores"]["ppl"]["value"] > 1
    assert row["scores"]["kld"] is None
    assert row["verdict"] is None


@pytest.mark.parametrize("limits", [("--max-kld", "5"), ("--until", "decided", "--max-ppl-ratio", "2")])
def test_a_limit_that_nothing_is_held_to_is_no_pass(
    slmkit: Run, furnished: Registry, text: Path, tmp_path: Path, limits: tuple[str, ...]
) -> None:
    stray = tmp_path / "stray-Q4_0.gguf"
    stray.write_bytes(Registry().find(MODEL, "Q4_0").path.read_bytes())  # type: ignore[union-attr]
    without = slmkit("quality", stray, "--corpus", text, *QUICK, *limits)
    assert without.returncode == 2, without.stdout
    assert f"`{limits[-2]}`: there is no float file" in without.stderr
    itself = slmkit("quality", f"{MODEL}:F16", "--corpus", text, *QUICK, *limits)
    assert itself.returncode == 2, itself.stdout
    assert "is the base itself" in itself.stderr


def test_it_says_which_domains_were_read_and_what_is_too_long(slmkit: Run, furnished: Registry) -> None:
    done = slmkit("quality", f"{MODEL}:Q4_0", "--chunks", "2", "--ctx", "4096")
    assert done.returncode == 0, done.stderr
    assert "2 chunks of 4096 tokens of the first 2 of 8 domains (" in done.stdout
    assert "chunks of 4,096 tokens are beyond the 2,048 that the model was trained for" in done.stderr


def test_decided_early(quality: Callable[..., Any]) -> None:
    limits = ("--until", "decided", "--max-kld", "5")
    (document,) = quality(f"{MODEL}:Q4_0", *limits)
    row = rows(document)["Q4_0"]
    assert row["decided"] is True
    assert row["scores"]["n_tokens"] < 60 * 31


def test_over_the_limit(slmkit: Run, furnished: Registry, text: Path) -> None:
    done = slmkit("quality", f"{MODEL}:Q4_0", "--corpus", text, *QUICK, "--chunks", "12", "--max-kld", "0.0000001")
    assert done.returncode == 3
    assert f"over the limit: {MODEL}:Q4_0" in done.stderr


def test_an_interrupted_run_goes_on(start: Start, quality: Callable[..., Any], furnished: Registry, text: Path) -> None:
    command = (MODEL, "--chunks", "60")
    process = start("quality", *command, "--corpus", text, *QUICK)
    journals = furnished.home / "journals"

    def begun() -> bool:
        return any(path.stat().st_size > 0 for path in journals.glob("*.jsonl"))

    wait_until(process, begun)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "--resume" in said
    (resumed,) = quality(*command, "--resume")
    (whole,) = quality(*command)
    assert [row["scores"] for row in resumed["rows"]] == [row["scores"] for row in whole["rows"]]


def test_nothing_to_resume(slmkit: Run, furnished: Registry, text: Path) -> None:
    done = slmkit("quality", MODEL, "--corpus", text, *QUICK, "--resume")
    assert done.returncode == 2
    assert "nothing to resume" in done.stderr


def test_a_shuffled_vocabulary_is_broken(slmkit: Run, furnished: Registry, text: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "shuffled.gguf"
    shuffled.write_bytes(_other_words(Registry().find(MODEL, "Q8_0").path.read_bytes()))  # type: ignore[union-attr]
    done = slmkit("quality", shuffled, "--base", f"{MODEL}:F16", "--corpus", text, *QUICK, "--chunks", "4", "--json")
    assert done.returncode == 0, done.stderr
    row = rows(json.loads(done.stdout)[0])[str(shuffled)]
    assert row["verdict"] == BROKEN
    assert "other tokens" in row["defect"]


def test_a_pruned_file_is_worse_and_not_damaged(slmkit: Run, quality: Callable[..., Any]) -> None:
    made = slmkit("quantize", MODEL, "-t", "Q8_0", "--prune-layers", "1", "--name", "short")
    assert made.returncode == 0, made.stderr
    (document,) = quality(f"{MODEL}:Q8_0-short", "--chunks", "4")
    row = rows(document)["Q8_0-short"]
    assert row["scores"]["kld"]["value"] > 0.05
    assert row["defect"] is None


def _other_words(content: bytes) -> bytes:
    """A file of the same size whose tokens for two words have changed places."""
    one, other = b"\xe2\x96\x81the", b"\xe2\x96\x81for"
    for word in (one, other):
        assert content.count(word) >= 1, "the tiny vocabulary has other words now"
    between = b"\xff\xfe\xfd\xfc\xfb\xfa"
    assert between not in content
    return content.replace(one, between).replace(other, one).replace(between, other)


def test_shuffled_weights_are_told_from_a_quant(slmkit: Run, furnished: Registry, text: Path, tmp_path: Path) -> None:
    source = Registry().find(MODEL, "F16").path  # type: ignore[union-attr]
    header = read_header(source)
    content = np.frombuffer(source.read_bytes(), np.uint8).copy()
    tensor = next(t for t in header.tensors if t.name == "token_embd.weight")
    begin = header.data_offset + tensor.offset
    part = content[begin : begin + tensor.size_bytes].reshape(tensor.shape[1], -1)
    np.random.default_rng(0).shuffle(part)
    broken = tmp_path / "shuffled.gguf"
    broken.write_bytes(content.tobytes())
    done = slmkit(
        "quality",
        broken,
        f"{MODEL}:Q4_0",
        "--base",
        f"{MODEL}:F16",
        "--corpus",
        text,
        *QUICK,
        "--chunks",
        "12",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = {row["ref"]: row["scores"] for row in json.loads(done.stdout)[0]["rows"]}
    assert found[str(broken)]["kld"]["value"] > 10 * found[f"{MODEL}:Q4_0"]["kld"]["value"]


def test_a_damaged_file_is_a_row_and_the_others_are_read(
    slmkit: Run, furnished: Registry, text: Path, tmp_path: Path
) -> None:
    whole = Registry().find(MODEL, "Q4_0").path.read_bytes()  # type: ignore[union-attr]
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(whole[: len(whole) * 2 // 3])
    done = slmkit("quality", torn, f"{MODEL}:Q8_0", "--base", f"{MODEL}:F16", "--corpus", text, *QUICK, "--chunks", "4")
    assert done.returncode == 1
    assert "torn.gguf" in done.stdout + done.stderr


@pytest.mark.parametrize(("job", "option"), [("choices", "--tasks=basics"), ("greedy", "--behaviour")])
def test_what_cannot_answer_is_a_failure_though_it_could_be_read(
    furnished: Registry, text: Path, monkeypatch: pytest.MonkeyPatch, job: str, option: str
) -> None:
    victim = furnished.find(MODEL, "Q4_0")
    module = f"slmkit.ops.quality.{'tasks' if job == 'choices' else 'behaviour'}.{job}"
    real = getattr(import_module(module.rpartition(".")[0]), job)

    def crashing(path: Path, *arguments: Any, **options: Any) -> Any:
        if victim and path == victim.path:
            raise EngineCrashedError("the engine crashed (SIGSEGV)")
        return real(path, *arguments, **options)

    monkeypatch.setattr(module, crashing)
    done = in_process("quality", f"{MODEL}:Q4_0", "--corpus", text, *QUICK, "--chunks", "2", option)
    assert done.exit_code == 1
    assert f"1 of 2 could not be measured: {MODEL}:Q4_0" in done.stderr
    assert "the engine crashed (SIGSEGV)" in done.stdout


class TestBaseline:
    """What `--save-base` keeps."""

    @pytest.fixture
    def saved(self, slmkit: Run, furnished: Registry, text: Path, tmp_path: Path) -> Path:
        path = tmp_path / "base.slm"
        done = slmkit("quality", f"{MODEL}:F16", "--corpus", text, *QUICK, "--chunks", "12", "--save-base", path)
        assert done.returncode == 0, done.stderr
        return path

    def test_says_nearly_what_the_file_says(self, quality: Callable[..., Any], saved: Path) -> None:
        (exact,) = quality(f"{MODEL}:Q4_0", "--chunks", "12")
        (coarse,) = quality(f"{MODEL}:Q4_0", "--chunks", "12", "--base", saved)
        kld, least = (rows(d)["Q4_0"]["scores"]["kld"]["value"] for d in (exact, coarse))
        assert least <= kld * (1 + 1e-4)
        assert least > 0.8 * kld
        assert rows(coarse)["Q4_0"]["scores"]["ppl_ratio"] == pytest.approx(rows(exact)["Q4_0"]["scores"]["ppl_ratio"])
        assert (coarse["base"], coarse["base_precision"]) == (exact["base"], "coarse")

    def test_is_named_as_a_file_and_says_what_it_has(self, slmkit: Run, furnished: Registry, text: Path) -> None:
        arguments = ("--corpus", text, *QUICK)
        done = slmkit("quality", f"{MODEL}:F16", *arguments, "--chunks", "3", "--save-base", "tiny.base")
        assert "written: tiny.base (" in done.stderr
        read = slmkit("quality", f"{MODEL}:Q4_0", *arguments, "--chunks", "8", "--base", "tiny.base")
        assert read.returncode == 0, read.stderr
        assert "the saved base has no more than 3 chunks, not 8" in read.stdout
        again = slmkit("quality", f"{MODEL}:Q4_0", *arguments, "--base", "tiny.base", "--save-base", "x.base")
        assert again.returncode == 2
        assert "a baseline cannot be saved from a baseline" in again.stderr

    def test_is_of_one_text(self, slmkit: Run, saved: Path, text: Path) -> None:
        text.write_text("another text\n" * 2000, encoding="utf-8")
        done = slmkit("quality", f"{MODEL}:Q4_0", "--corpus", text, *QUICK, "--base", saved)
        assert done.returncode == 2
        assert "was read from corpus" in done.stderr

    def test_damaged(self, slmkit: Run, saved: Path, text: Path) -> None:
        saved.write_bytes(saved.read_bytes()[:-2000])
        done = slmkit("quality", f"{MODEL}:Q4_0", "--corpus", text, *QUICK, "--base", saved)
        assert done.returncode == 1
        assert "no baseline" in done.stderr

    def test_a_place_that_cannot_be_written(self, slmkit: Run, furnished: Registry, text: Path) -> None:
        done = slmkit("quality", f"{MODEL}:F16", "--corpus", text, *QUICK, "--save-base", "/proc/base")
        assert done.returncode == 1
        assert "cannot write /proc/base" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--corpus", "nothing"), "no corpus 'nothing'"),
        (("--corpus", "./nowhere.txt"), "cannot read"),
        (("--ctx", "4"), "n_ctx (`--ctx`) is 4"),
        (("--until", "decided", "--max-kld", "1", "--chunks", "5"), "nothing is decided before 10 chunks"),
        (("--max-kld", "inf"), "max_kld (`--max-kld`) is inf"),
        (("--report", "nowhere/x.html"), "no such folder: nowhere"),
        (("--until", "tomorrow"), "no such thing"),
        (("--until", "decided"), "no limit is given"),
        (("--max-kld", "0"), "max_kld (`--max-kld`) is 0"),
        (("--base", "local/nothing:F16"), "local/nothing:F16"),
    ],
)
def test_what_was_typed_wrong(slmkit: Run, furnished: Registry, arguments: tuple[str, ...], words: str) -> None:
    done = slmkit("quality", MODEL, *arguments)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_text_too_short(slmkit: Run, furnished: Registry, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("one word", encoding="utf-8")
    done = slmkit("quality", MODEL, "--corpus", short)
    assert done.returncode == 2
    assert "less than one chunk of 512" in done.stderr
