"""A part of a tokenizer makes the ids of the whole one, and where it could not, it is the whole one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from slmkit.formats.excerpt import load_for
from slmkit.formats.pretokenizers import PROBE
from slmkit.formats.tokenizer_json import load, read_tokenizer_json, renumbered
from tests.convert.published import published_tokenizer

MORE = "def f(x):\n\treturn x**2  # 12345 été 数学 🙂🙂 aaaaaaaa"


def same(path: Path, text: str = PROBE) -> int:
    """Compares both, and says how many tokens the part has."""
    source = read_tokenizer_json(path)
    whole, part = load(source), load_for(source, text)
    assert part.encode(text).ids == whole.encode(text).ids
    assert renumbered(source, part) == renumbered(source, whole)
    for token in source.added:
        ids = [t.encode(token.content, add_special_tokens=False).ids for t in (whole, part)]
        assert ids[0] == ids[1]
        texts = [t.decode(ids[0], skip_special_tokens=False) for t in (whole, part)]
        assert texts[0] == texts[1]
    return part.get_vocab_size()


@pytest.mark.parametrize(("name", "tokens"), [("llama3_1", 1000), ("qwen3", 1000), ("gpt4o", 200000)])
def test_published_tokenizers(name: str, tokens: int) -> None:
    """The last one numbers its added tokens with a gap, so it is loaded whole."""
    path = published_tokenizer(name) / "tokenizer.json"
    assert same(path) <= tokens
    assert same(path, MORE) <= tokens


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>"]
    )
    tokenizer.train_from_iterator([PROBE, MORE, Path(__file__).read_text("utf-8")] * 2, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    path = tmp_path_factory.mktemp("trained") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def changed(trained: Path, folder: Path, **model: Any) -> Path:
    raw = json.loads(trained.read_text("utf-8"))
    raw["model"] |= model
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("aetn thdef(x)\n\t=*#0123é数🙂"), max_size=80))
def test_any_text(trained: Path, text: str) -> None:
    same(trained, text)


def test_only_what_the_text_needs(trained: Path) -> None:
    assert same(trained, "the") < 20
    assert same(trained) < 1000


def test_words_of_the_vocabulary_that_no_merge_makes(trained: Path, tmp_path: Path) -> None:
    """Llama 3's `ignore_merges`."""
    raw = json.loads(trained.read_text("utf-8"))
    merges = raw["model"]["merges"]
    path = changed(trained, tmp_path, ignore_merges=True, merges=merges[: len(merges) // 2])
    assert same(path) < 1000


@pytest.mark.parametrize("model", [{"unk_token": "<|end|>"}, {"byte_fallback": True}])
def test_other_switches_load_it_whole(trained: Path, tmp_path: Path, model: dict[str, Any]) -> None:
    assert same(changed(trained, tmp_path, **model)) == same(changed(trained, tmp_path, **model), MORE) > 1000


def test_added_tokens_in_the_text_load_it_whole(trained: Path) -> None:
    assert same(trained, "the <|im_end|> end") > 1000
    assert same(trained, "the <|im_end| end") < 100
