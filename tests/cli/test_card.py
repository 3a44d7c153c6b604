"""`slmkit card` and quality in `slmkit compare`, as users run them, on a tiny model and the real engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL
from tests.cli.test_check_quality import WORDS
from tests.conftest import Run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{number}. {WORDS[number % 20 :]}\n" for number in range(200)), encoding="utf-8")
    return path


def test_from_measuring_to_the_table_the_page_and_the_card(
    furnished: Registry, text: Path, slmkit: Run, tmp_path: Path
) -> None:
    before = slmkit("compare", MODEL)
    assert "KLD" not in before.stdout
    done = slmkit("quality", f"{MODEL}:Q4_0", "--corpus", text, "--chunks", "2", "--ctx", "128")
    assert done.returncode == 0, done.stderr

    compared = slmkit("compare", MODEL)
    assert compared.returncode == 0, compared.stderr
    assert {"PPL", "KLD", "verdict"} <= set(compared.stdout.splitlines()[0].split())
    assert "2 chunks of 128 tokens of text.txt" in compared.stdout
    assert f"slmkit quality {MODEL}:Q8_0 --corpus PATH/TO/text.txt --ctx 128 --chunks 2" in compared.stderr
    rows = {row["variant"]: row for row in json.loads(slmkit("compare", MODEL, "--json").stdout)}
    assert (rows["F16"]["verdict"], rows["F16"]["kld"], rows["Q8_0"]["kld"]) == ("base", None, None)
    assert rows["Q4_0"]["kld"] > 0
    assert rows["F16"]["best"] is True

    other = slmkit("quality", f"{MODEL}:Q8_0", "--corpus", text, "--chunks", "2", "--ctx", "64")
    assert other.returncode == 0, other.stderr
    left = slmkit("compare", f"{MODEL}:Q4_0", f"{MODEL}:Q8_0", f"{MODEL}:F16")
    assert "its quality is left out, it was measured with n_ctx" in left.stdout

    for name in ("report.html", "report.md", "report.svg"):
        assert slmkit("compare", MODEL, "--report", tmp_path / name).returncode == 0
    assert "mean KLD, nats" in (tmp_path / "report.svg").read_text(encoding="utf-8")
    assert "near lossless up to 0.005" in (tmp_path / "report.html").read_text(encoding="utf-8")

    card = slmkit("card", MODEL, "--output", tmp_path / "README.md", "--repo", "me/tiny-GGUF")
    assert card.returncode == 0, card.stderr
    assert "base_model is left out" in card.stderr
    written = (tmp_path / "README.md").read_text(encoding="utf-8")
    for expected in ("license: cc0-1.0", "## Which file to take", "2 chunks of", "ollama run hf.co/me/tiny-GGUF:Q"):
        assert expected in written, expected
    for variant in ("F16", "Q4_0", "Q8_0"):
        found = furnished.find(MODEL, variant)
        assert found
        assert found.files[0].sha256 in written
    assert str(tmp_path) not in written


def test_a_card_of_what_was_not_measured(furnished: Registry, slmkit: Run) -> None:
    done = slmkit("card", f"{MODEL}:Q8_0", "--license", "mit")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("---\nlicense: mit\n")
    assert "The quality of these files was not measured" in done.stdout
    assert "no quality was measured" in done.stderr
    for arguments, said in (
        (("local/nothing",), "no GGUF of"),
        ((MODEL, "--repo", "me"), "not a name of a repository"),
    ):
        wrong = slmkit("card", *arguments)
        assert wrong.returncode in (1, 2)
        assert said in wrong.stderr
