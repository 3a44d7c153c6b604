"""The same ids: a text through the tokenizers library, and through llama.cpp on the converted file."""

from __future__ import annotations

import json
import random
import shutil
import tomllib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from slmkit.ops.convert import convert
from tests.convert.engine import tokenize
from tests.convert.families.gemma import SHARP, plain
from tests.convert.families.phi3 import make_phi3
from tests.convert.families.qwen3 import make_qwen3
from tests.convert.published import published_tokenizer
from tests.factories import make_checkpoint
from tests.fetch import FetchError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CORPUS = tomllib.loads((Path(__file__).parent / "corpus.toml").read_text("utf-8"))
TEXTS: list[str] = [text for texts in CORPUS.values() for text in texts]
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "tie_word_embeddings": True}


def has_mark(text: str) -> bool:
    """A combining mark of any kind (Unicode M)."""
    return any(unicodedata.category(c).startswith("M") for c in text)


def changed_by_nfc(text: str) -> bool:
    return unicodedata.normalize("NFC", text) != text


def make_plain_llama(folder: Path, *, tokenizer: bool, **config: Any) -> Path:
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", config, tokenizer=tokenizer)


def make_gemma3(folder: Path, *, vocab_size: int, **_: Any) -> Path:
    """Without tokenizer.model."""
    plain("Gemma3ForCausalLM", "gemma3_text", vocab_size=vocab_size, num_hidden_layers=1, **SHARP)(folder)
    (folder / "tokenizer.model").unlink()
    return folder


@dataclass(frozen=True)
class Published:
    """A tokenizer on a checkpoint of its family, and which texts are beyond llama.cpp (docs/convert.md lists them)."""

    make: Callable[..., Path]
    vocab_size: int
    beyond: Callable[[str], bool] = lambda _: False


TOKENIZERS = {
    "smollm2": Published(make_plain_llama, 49152),
    "llama3_1": Published(make_plain_llama, 128256),
    "qwen3": Published(make_qwen3, 151936, lambda t: changed_by_nfc(t) or "</s>" in t),
    "gpt4o": Published(make_phi3, 200064, has_mark),
    "gemma3": Published(make_gemma3, 262208, lambda t: "\u2581" in t),
}
LIMITS = {
    "qwen3": ["cafe\u0301", "\u1112\u1161\u11ab", "one </s> two"],
    "gpt4o": ["मैं हर सुबह", "แมวตัวนี้", "אָמַר"],
    "gemma3": ["a\u2581\u2581b"],
    "llama3_1": ["one \U00010d41"],
}
"""What is beyond llama.cpp, by example. When an example comes out right one day, its limit can go."""


@dataclass(frozen=True)
class Pair:
    """A tokenizer on both sides."""

    name: str
    folder: Path

    @property
    def gguf(self) -> Path:
        return self.folder / "out.gguf"

    @cached_property
    def library(self) -> Tokenizer:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    @property
    def added(self) -> list[str]:
        raw = json.loads((self.folder / "tokenizer.json").read_text("utf-8"))
        return [token["content"] for token in raw["added_tokens"]]

    def differences(self, texts: list[str], *, special: bool = False) -> dict[str, tuple[list[int], list[int]]]:
        """Texts whose ids are not the same: what they should be, what llama.cpp says."""
        wanted = [found.ids for found in self.library.encode_batch(texts, add_special_tokens=special)]
        found = tokenize(self.gguf, texts, special=special)
        return {t: (w, f) for t, w, f in zip(texts, wanted, found, strict=True) if w != f}


@pytest.fixture(scope="module", params=TOKENIZERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("parity") / request.param
    folder.mkdir()
    if request.param == "smollm2":
        source = request.getfixturevalue("smollm2")
    else:
        try:
            source = published_tokenizer(request.param)
        except FetchError as error:
            pytest.fail(str(error), pytrace=False)
    body = TOKENIZERS[request.param]
    config = {**SMALL, "vocab_size": body.vocab_size, "bos_token_id": None, "eos_token_id": None}
    body.make(folder, tokenizer=False, **config)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / file, folder / file)
    convert(folder, folder / "out.gguf")
    return Pair(request.param, folder)


@pytest.mark.parametrize("special", [False, True], ids=["plain", "special"])
def test_ids(pair: Pair, special: bool) -> None:
    texts = [text for text in TEXTS if not TOKENIZERS[pair.name].beyond(text)]
    assert len(texts) > 120
    assert pair.differences(texts, special=special) == {}


def test_ids_of_spliced_texts(pair: Pair) -> None:
    """Pieces of all texts in one: what one kind of text does to the next."""
    rng = random.Random(1)

    def piece() -> str:
        text = rng.choice(TEXTS)
        start = rng.randrange(len(text) + 1)
        return text[start : start + rng.randint(1, 8)]

    texts = ["".join(piece() for _ in range(rng.randint(2, 12))) for _ in range(600)]
    assert pair.differences([text for text in texts if not TOKENIZERS[pair.name].beyond(text)]) == {}


def test_added_tokens_in_a_text(pair: Pair) -> None:
    added = [token for token in pair.added if not TOKENIZERS[pair.name].beyond(token)]
    texts = [f"a{token}b" for token in added]
    texts += [pattern % token for token in added[:30] for pattern in ("%s", " %s ", "x\n%s\ny", "é%s。", "1%s2")]
    assert pair.differences(texts) == {}


def test_limits(pair: Pair) -> None:
    limits = LIMITS.get(pair.name, [])
    assert list(pair.differences(limits)) == limits


@pytest.mark.parametrize("pair", ["qwen3"], indirect=True)
def test_composed_texts_are_right_for_qwen(pair: Pair) -> None:
    """llama.cpp leaves out the normalizer (NFC): what it would change must be composed before."""
    texts = [text for text in TEXTS if changed_by_nfc(text)]
    assert len(texts) > 4
    wanted = [pair.library.encode(text).ids for text in texts]
    assert tokenize(pair.gguf, [unicodedata.normalize("NFC", text) for text in texts]) == wanted


@pytest.mark.parametrize("pair", ["gpt4o"], indirect=True)
def test_another_name_makes_all_ids_of_gpt_4o_right(pair: Pair) -> None:
    """docs/convert.md names it; llama.cpp before this name came does not load the file."""
    convert(pair.folder, pair.folder / "marks.gguf", pre="granite-embed-multi-97m")
    wanted = [found.ids for found in pair.library.encode_batch(TEXTS)]
    assert tokenize(pair.folder / "marks.gguf", TEXTS) == wanted
