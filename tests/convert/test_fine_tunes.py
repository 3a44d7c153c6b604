"""Byte-level tokenizers with a vocabulary of their own: recognized by how they split, or refused.

Each vocabulary is trained here, with the sections of a published tokenizer; llama.cpp must give the same ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.progress import SILENT
from slmkit.errors import UnknownPreTokenizerError
from slmkit.formats import pretokenizers
from slmkit.formats.tokenizer_json import read_tokenizer_json
from slmkit.ops.convert import convert
from tests.convert.engine import tokenize
from tests.convert.test_parity import SMALL, TEXTS, changed_by_nfc, has_mark
from tests.factories import make_checkpoint, write_json

JSON = dict[str, Any]


def byte_level(*, regex: bool = False) -> JSON:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}


def split(pattern: str, behavior: str = "Isolated") -> JSON:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": behavior == "Removed"}


def words(digits: str) -> str:
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_LOWER, _UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
GPT_4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NFC = {"type": "NFC"}
SECTIONS: dict[str, tuple[JSON | None, list[JSON], bool]] = {
    "smollm": (None, [{"type": "Digits", "individual_digits": True}, byte_level(regex=True)], False),
    "gpt-2": (None, [byte_level(regex=True)], False),
    "qwen2": (NFC, [split(words(r"\p{N}")), byte_level()], False),
    "llama-bpe": (None, [split(words(r"\p{N}{1,3}")), byte_level()], True),
    "smaug-bpe": (None, [split(words(r"\p{N}{1,3}")), byte_level()], False),
    "gpt-4o": (None, [split(GPT_4O, "Removed"), byte_level()], False),
    "gpt-4o, isolated": (None, [split(GPT_4O), byte_level()], False),
}
"""Normalizer, pre-tokenizers and `ignore_merges` by llama.cpp's name."""


def train(folder: Path, sections: tuple[JSON | None, list[JSON], bool], *, vocab_size: int = 900) -> Path:
    """A checkpoint with a small byte-level vocabulary, trained on the corpus with these sections."""
    from tokenizers import Tokenizer, trainers

    normalizer, steps, ignore_merges = sections
    alphabet = byte_level_alphabet()
    model = {"type": "BPE", "ignore_merges": ignore_merges, "vocab": {c: i for i, c in enumerate(alphabet)}}
    pre_tokenizer = {"type": "Sequence", "pretokenizers": steps}
    whole = {"version": "1.0", "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": byte_level()}
    tokenizer = Tokenizer.from_str(json.dumps({**whole, "model": {**model, "merges": []}}))
    special = ["<|end|>", "<|im_start|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    config = {**SMALL, "vocab_size": tokenizer.get_vocab_size(), "bos_token_id": None, "eos_token_id": 0}
    make_checkpoint(folder, "LlamaForCausalLM", "llama", config, tokenizer=False)
    raw = json.loads(tokenizer.to_str())
    raw["model"]["ignore_merges"] = ignore_merges  # the trainer forgets it
    write_json(folder / "tokenizer.json", raw)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"})
    return folder


def byte_level_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


class Notes:
    """Remarks of a conversion."""

    task = staticmethod(SILENT.task)
    say = staticmethod(lambda _: None)

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def differences(folder: Path, texts: list[str], *, special: bool = True) -> list[str]:
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    wanted = [found.ids for found in library.encode_batch(texts, add_special_tokens=special)]
    found = tokenize(folder / "out.gguf", texts, special=special)
    return [text for text, w, f in zip(texts, wanted, found, strict=True) if w != f]


@pytest.mark.parametrize("kind", SECTIONS)
def test_a_vocabulary_of_its_own(kind: str, tmp_path: Path) -> None:
    folder = train(tmp_path / "fine-tune", SECTIONS[kind])
    notes = Notes()
    convert(folder, folder / "out.gguf", progress=notes)
    name = kind.split(",")[0]
    assert len(notes.warnings) == 1
    assert notes.warnings[0].startswith("the tokenizer is new to llama.cpp, but splits text as ")
    assert f"`{name}`" in notes.warnings[0]
    texts = [*TEXTS, "a<|im_start|>b<|end|>"]
    if name == "qwen2":
        texts = [text for text in texts if not changed_by_nfc(text)]
    if name == "gpt-4o":
        texts = [text for text in texts if not has_mark(text)]
    assert len(texts) > 120
    assert differences(folder, texts) == []


def test_every_row_of_the_table_is_proven(tmp_path: Path) -> None:
    found = {}
    for kind, sections in SECTIONS.items():
        source = read_tokenizer_json(train(tmp_path / kind, sections, vocab_size=300) / "tokenizer.json")
        found[pretokenizers.sections_digest(source)] = kind.split(",")[0]
    assert found == {digest: known.name for digest, known in pretokenizers.known_sections().items()}


def test_another_way_of_splitting_is_refused(tmp_path: Path) -> None:
    sections = (None, [{"type": "Digits", "individual_digits": False}, byte_level(regex=True)], False)
    folder = train(tmp_path / "other", sections)
    with pytest.raises(UnknownPreTokenizerError, match=r"splits text in a way that llama\.cpp has no name for"):
        convert(folder, folder / "out.gguf")
    assert not (folder / "out.gguf").exists()
    notes = Notes()
    convert(folder, folder / "out.gguf", pre="smollm", progress=notes)
    assert notes.warnings == []
    assert "10 11" in differences(folder, ["no digits here", "10 11"])


@pytest.mark.parametrize("change", [{"ignore_merges": True}, {"end_of_word_suffix": "</w>"}])
def test_the_switches_of_the_model_count(change: JSON, tmp_path: Path) -> None:
    folder = train(tmp_path / "other", SECTIONS["gpt-2"])
    raw = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    raw["model"] |= change
    write_json(folder / "tokenizer.json", raw)
    with pytest.raises(UnknownPreTokenizerError):
        convert(folder, folder / "out.gguf")
