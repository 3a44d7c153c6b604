"""Cards of made-up models against whole expected texts, and what is left out where nothing is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slmkit.core.artifact import File
from slmkit.core.card import Card, CardFile, License
from slmkit.core.compare import Comparison, Judged
from slmkit.report.card import card_markdown

from . import benches

DATA = Path(__file__).parent.parent / "data"
TOOLS = {"slmkit": "0.1.0", **benches.BUILD}


def file(variant: str, n: int, source: str | None, settings: tuple[str, ...] = ()) -> CardFile:
    made = File(f"SmolLM2-135M-{variant}.gguf", benches.SIZES[variant], str(n) * 64)
    tools = TOOLS if source else {"slmkit": "0.1.0"}
    return CardFile(variant, (made,), "quantize" if source else "convert", source, settings, tools)


WHOLE = Card(
    name="SmolLM2-135M",
    files=(
        file("F16", 1, None),
        file("Q8_0", 2, "F16"),
        file("Q4_K_M", 3, "F16", ("imatrix mixed",)),
        file("Q4_0", 4, "F16"),
    ),
    comparison=benches.JUDGED,
    source=benches.MODEL,
    commit="0123456789abcdef" * 2 + "01234567",
    license=License("apache-2.0", "the model's card"),
    repo="me/SmolLM2-135M-GGUF",
    architecture="llama",
    n_params=134_515_008,
    context_length=8192,
)
UNMEASURED = Comparison(
    tuple(replace(row, bench=None, quality=None, is_best=False) for row in benches.JUDGED.rows), None, ()
)
BARE = Card("SmolLM2-135M", WHOLE.files, UNMEASURED)


@pytest.mark.parametrize(("name", "card"), [("card", WHOLE), ("card-bare", BARE)])
def test_a_card_is_what_it_was(name: str, card: Card) -> None:
    """Golden texts: after a wanted change, look at `git diff tests/data` before committing it."""
    assert card_markdown(card) == (DATA / f"{name}.md").read_text(encoding="utf-8")


def judged_as(*words: str) -> Card:
    """The card of Q8_0, Q4_K_M and Q4_0 with these verdicts."""
    base, *rows = benches.JUDGED.rows
    changed = [replace(row, quality=Judged(None, word)) for row, word in zip(rows, words, strict=True)]
    return replace(WHOLE, comparison=replace(benches.JUDGED, rows=(base, *changed)))


def choice(card: Card) -> str:
    return card_markdown(card).partition("## Which file to take")[2].partition("## Measured")[0]


def test_the_smallest_of_each_word_is_named_once() -> None:
    text = choice(judged_as("near lossless", "near lossless", "very good"))
    assert "**Q4_K_M** (100.1 MiB): the smallest that is near lossless." in text
    assert "**Q4_0** (86.8 MiB): the smallest that is very good." in text
    assert "Q8_0" not in text


def test_what_is_broken_is_not_for_use() -> None:
    text = choice(judged_as("very good", "noticeable", "broken"))
    assert "**Q4_0** (86.8 MiB) is broken: not for use." in text
    assert "**Q4_K_M** (100.1 MiB): its loss is noticeable." in text
    assert "llama-cli --hf-repo me/SmolLM2-135M-GGUF --hf-file SmolLM2-135M-Q8_0.gguf" in card_markdown(
        judged_as("very good", "noticeable", "broken")
    )


def test_shards_are_listed_each_and_not_given_to_ollama() -> None:
    shards = tuple(File(f"m-Q8_0-0000{i}-of-00002.gguf", 10, str(i) * 64) for i in (1, 2))
    text = card_markdown(replace(BARE, files=(replace(BARE.files[1], files=shards),)))
    assert text.count("-of-00002.gguf` |") == 2
    assert "Ollama" not in text
    assert "llama-cli -m m-Q8_0-00001-of-00002.gguf" in text


def test_a_licence_of_its_own_has_name_and_link() -> None:
    text = card_markdown(replace(WHOLE, license=License("other", "the model's card", "gemma", "https://x.y/z")))
    assert text.startswith("---\n")
    assert "license: other\nlicense_name: gemma\nlicense_link: https://x.y/z\n" in text
    assert "[gemma (other)](https://x.y/z), as the model's card says." in text
