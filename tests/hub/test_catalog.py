from __future__ import annotations

import pytest

from slmkit.core.refs import ModelRef
from slmkit.errors import RefError
from slmkit.hub.catalog import CatalogEntry, entries, find, size_class


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.alias)
def test_an_entry_is_sound(entry: CatalogEntry) -> None:
    assert entry.size_class == size_class(entry.n_params)
    assert ModelRef.parse(entry.alias) == ModelRef("alias", entry.alias)
    assert ModelRef.parse(entry.repo) == ModelRef("hub", entry.repo)
    assert entry.alias == entry.alias.lower()
    assert entry.licence
    assert len(entry.note) > 20
    assert entry.gated == entry.repo.startswith(("google/", "meta-llama/"))


def test_there_is_enough_and_nothing_twice() -> None:
    assert len(entries()) >= 25
    assert len({entry.alias for entry in entries()}) == len({entry.repo for entry in entries()}) == len(entries())
    assert {entry.size_class for entry in entries()} == {"micro", "small", "medium"}
    assert list(entries()) == sorted(entries(), key=lambda entry: entry.n_params)


@pytest.mark.parametrize(
    ("alias", "repo", "n_params"),
    [
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
        ("qwen3-0.6b", "Qwen/Qwen3-0.6B", 596_049_920),
        ("phi-4-mini", "microsoft/Phi-4-mini-instruct", 3_836_021_760),
        ("gemma3-1b", "google/gemma-3-1b-it", 999_885_952),
        ("bitnet-2b", "microsoft/bitnet-b1.58-2B-4T", 2_412_820_480),
        ("Qwen3-0.6B", "Qwen/Qwen3-0.6B", 596_049_920),
    ],
)
def test_the_promised_aliases(alias: str, repo: str, n_params: int) -> None:
    assert (find(alias).repo, find(alias).n_params) == (repo, n_params)


def test_bitnet_says_that_llama_cpp_cannot_run_it() -> None:
    assert "llama.cpp cannot run" in find("bitnet-2b").note


def test_a_wrong_alias_names_the_nearest() -> None:
    with pytest.raises(RefError, match=r"did you mean `qwen3-0\.6b`") as caught:
        find("qwen3-0.6")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("see all: `slmkit catalog`; a model of the Hub is `org/name`")
    with pytest.raises(RefError) as caught:
        find("zzzzzz")
    assert "did you mean" not in caught.value.message


@pytest.mark.parametrize(
    ("n_params", "expected"),
    [
        (100_000_000, "micro"),
        (1_440_000_000, "micro"),
        (1_460_000_000, "small"),
        (13_900_000_000, "small"),
        (14_000_000_000, "medium"),
        (30_000_000_000, "medium"),
    ],
)
def test_classes(n_params: int, expected: str) -> None:
    assert size_class(n_params) == expected


@pytest.mark.parametrize("n_params", [99_999_999, 30_100_000_000])
def test_outside_every_class(n_params: int) -> None:
    with pytest.raises(ValueError, match="not a small language model"):
        size_class(n_params)
