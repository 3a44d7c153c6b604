"""SentencePiece vocabularies, with tokenizer.model and without it: llama.cpp gives the ids of the libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmkit.errors import UnknownPreTokenizerError
from slmkit.ops.convert import convert
from tests.convert.engine import tokenize
from tests.convert.test_fine_tunes import Notes, differences
from tests.convert.test_parity import TEXTS
from tests.convert.test_vocab import spm_as_json
from tests.factories import make_llama, write_json

JSON = dict[str, Any]
PREPEND = {"type": "Prepend", "prepend": "\u2581"}
ESCAPE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
SPECIAL = ["<s>a</s> b", "</s>", "x<unk>y", "<s> <s>"]


def without_model(folder: Path, **sections: Any) -> Path:
    """The tiny Llama with tokenizer.json alone."""
    make_llama(folder, n_layers=1, hidden=64)
    (folder / "tokenizer.model").unlink()
    spm_as_json(folder)
    raw = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    write_json(folder / "tokenizer.json", {**raw, **sections})
    return folder


def test_tokenizer_model(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    folder = make_llama(tmp_path / "a", n_layers=1, hidden=64)
    convert(folder, folder / "out.gguf")
    library = SentencePieceProcessor()
    library.LoadFromFile(str(folder / "tokenizer.model"))
    texts = [text for text in TEXTS if not any(token in text for token in ("<s>", "</s>", "<unk>"))]
    found = dict(zip(texts, tokenize(folder / "out.gguf", texts, special=True), strict=True))
    assert found == {text: [library.bos_id(), *library.encode(text)] for text in texts}


@pytest.mark.parametrize(
    "sections",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [PREPEND, ESCAPE]}},
        {"normalizer": ESCAPE, "pre_tokenizer": SPACES},
        {"pre_tokenizer": {**METASPACE, "prepend_scheme": "never"}, "normalizer": None},
    ],
    ids=["Llama", "Gemma", "never"],
)
def test_tokenizer_json(sections: JSON, tmp_path: Path) -> None:
    folder = without_model(tmp_path / "a", **sections)
    notes = Notes()
    convert(folder, folder / "out.gguf", progress=notes)
    assert notes.warnings == []
    assert differences(folder, [*TEXTS, *SPECIAL]) == []


def test_metaspace_is_nearly_right_and_the_user_is_told(tmp_path: Path) -> None:
    folder = without_model(tmp_path / "a", normalizer=None, pre_tokenizer=METASPACE)
    notes = Notes()
    convert(folder, folder / "out.gguf", progress=notes)
    assert len(notes.warnings) == 1
    assert notes.warnings[0].startswith("llama.cpp puts a space before every text")
    limits = [" leading", "<s>a", "a</s>b"]
    assert differences(folder, limits) == limits
    usual = [
        text for text in TEXTS if not text.startswith(" ") and not any(t in text for t in ("<s>", "</s>", "<unk>"))
    ]
    assert differences(folder, usual) == []


@pytest.mark.parametrize(
    "sections",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, PREPEND, ESCAPE]}},
        {"normalizer": ESCAPE, "pre_tokenizer": {"type": "Digits", "individual_digits": True}},
        {"normalizer": None, "pre_tokenizer": None},
    ],
    ids=["NFKC", "Digits", "nothing"],
)
def test_another_preparation_is_refused(sections: JSON, tmp_path: Path) -> None:
    folder = without_model(tmp_path / "a", **sections)
    with pytest.raises(UnknownPreTokenizerError, match=r"tokenizer\.json prepares text in a way") as caught:
        convert(folder, folder / "out.gguf")
    assert caught.value.hint is not None
    assert "`--pre default`" in caught.value.hint
    convert(folder, folder / "out.gguf", pre="default")


def test_without_a_post_processor_nothing_is_added(tmp_path: Path) -> None:
    folder = without_model(tmp_path / "a")
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    write_json(folder / "tokenizer_config.json", {k: v for k, v in config.items() if not k.startswith("add_")})
    raw = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    write_json(folder / "tokenizer.json", {**raw, "post_processor": None})
    convert(folder, folder / "out.gguf")
    assert differences(folder, ["", "a b"], special=True) == []
