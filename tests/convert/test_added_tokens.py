"""Added and special tokens: what llama.cpp makes of a text with them, and what the user is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmkit.errors import TokenizerError
from slmkit.formats.gguf.header import read_header
from slmkit.ops.convert import convert
from tests.convert.engine import tokenize
from tests.convert.families.added_tokens import change
from tests.convert.test_fine_tunes import SECTIONS, Notes, differences, train
from tests.convert.test_sentencepiece import without_model
from tests.convert.test_vocab import added
from tests.factories import make_checkpoint, write_json

JSON = dict[str, Any]
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "tie_word_embeddings": True}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A byte-level vocabulary of 400 tokens for an embedding of 410 rows."""
    folder = train(tmp_path / "trained", SECTIONS["smollm"], vocab_size=400)
    config = {**SMALL, "vocab_size": 410, "bos_token_id": None, "eos_token_id": 0}
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", config, tokenizer=False)


def add(folder: Path, *tokens: JSON) -> None:
    """To tokenizer.json, from id 400 on."""
    change(
        folder,
        "tokenizer.json",
        lambda raw: raw["added_tokens"].extend({"id": 400 + i, **token} for i, token in enumerate(tokens)),
    )


def warnings(folder: Path) -> list[str]:
    """Those that are about something else than the way of splitting."""
    notes = Notes()
    convert(folder, folder / "out.gguf", progress=notes)
    return [text for text in notes.warnings if "splits text as" not in text]


def test_letters_that_the_decoder_takes_for_bytes(trained: Path) -> None:
    """llama.cpp's converter stores `<|syst\ufffdme|>`, which no text has."""
    add(trained, added("<|système|>", special=True), added("naïf"), added("日本"))
    assert warnings(trained) == []
    tokens = read_header(trained / "out.gguf").metadata["tokenizer.ggml.tokens"]
    assert tokens[400:403] == ["<|système|>", "naïf", "日本"]
    assert differences(trained, ["a<|système|>b", "un naïf日本日本", "<|système|><|système|>"]) == []


def test_white_space_tokens(trained: Path) -> None:
    add(trained, added("  ", normalized=True), added("    ", normalized=True), added("\n\n", normalized=True))
    assert warnings(trained) == []
    assert differences(trained, ["a  b", "a   b", "a        b", "\n\n\n  x", "a b"]) == []


def test_tokens_that_take_spaces_away(trained: Path) -> None:
    add(trained, added("<left>", lstrip=True), added("<right>", rstrip=True), added("<word>", single_word=True))
    (remark,) = warnings(trained)
    assert remark == (
        "llama.cpp keeps the spaces beside 3 added tokens that the tokenizer takes away: <left>, <right>, <word>"
    )
    assert differences(trained, ["a<left>b", "a<right>b", "a <word> b"]) == []
    limits = ["a <left>b", "a<right> b", "a<right>\nb", "a<word>b"]
    assert differences(trained, limits) == limits


def test_tokens_that_only_the_config_names(trained: Path) -> None:
    decoder = {"405": added("<tool>"), "401": added("<turn>", special=True), "0": added("<|end|>", special=True)}
    more = {"added_tokens_decoder": decoder, "pad_token": "<mypad>", "additional_special_tokens": ["<turn>", "<x>"]}
    change(trained, "tokenizer_config.json", lambda config: config.update(more))
    assert warnings(trained) == []
    (found,) = tokenize(trained / "out.gguf", ["<turn><tool><mypad><x><|end|>"])
    assert found == [400, 401, 402, 403, 0]  # the next free ids, whatever the file says


def test_eos_behind_a_text(trained: Path) -> None:
    """What ends a turn in the config is not what ends a text in tokenizer.json: the former becomes EOT."""
    add(trained, added("<turn>", special=True))
    text, eos = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|end|>", "type_id": 0}}
    ids = {"<|end|>": {"id": "<|end|>", "ids": [0], "tokens": ["<|end|>"]}}
    post = {"type": "TemplateProcessing", "single": [text, eos], "pair": [text, eos, text, eos], "special_tokens": ids}
    change(trained, "tokenizer.json", lambda raw: raw.update(post_processor=post))
    change(trained, "tokenizer_config.json", lambda config: config.update(eos_token="<turn>"))
    assert warnings(trained) == []
    metadata = read_header(trained / "out.gguf").metadata
    assert metadata["tokenizer.ggml.eos_token_id"] == 0
    assert metadata["tokenizer.ggml.eot_token_id"] == 400
    assert metadata["tokenizer.ggml.add_eos_token"] is True
    assert differences(trained, ["", "a b", "a<turn>b"], special=True) == []


def test_tokens_beyond_the_embedding(trained: Path, tmp_path: Path) -> None:
    names = [f"<{i}>" for i in range(12)]
    change(trained, "tokenizer_config.json", lambda config: config.update(additional_special_tokens=names))
    assert warnings(trained) == ["left out: 2 added tokens beyond the 410 rows of the embedding: <10>, <11>"]
    add(trained, *(added(name) for name in names))
    with pytest.raises(
        TokenizerError, match=r"tokenizer\.json has token 410 \('<10>'\), but the embedding has 410 rows"
    ):
        convert(trained, trained / "out.gguf")
    folder = without_model(tmp_path / "gemma")
    image = {"id": 512, **added("<image>", special=True)}
    change(folder, "tokenizer.json", lambda raw: raw["added_tokens"].append(image))
    assert warnings(folder) == ["left out: 1 added tokens beyond the 512 rows of the embedding: <image>"]


def test_a_token_twice(trained: Path) -> None:
    add(trained, added("[PAD405]"))
    with pytest.raises(TokenizerError, match=r"has 2 tokens '\[PAD405\]': llama\.cpp cannot load such a vocabulary"):
        convert(trained, trained / "out.gguf")


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"-1": {"content": "a"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "a"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": {"content": 4}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": [3]}),
        ("added_tokens.json", {"a": -1}),
        ("added_tokens.json", {"a": "1"}),
    ],
)
@pytest.mark.parametrize("kind", ["byte-level", "SentencePiece"])
def test_nonsense(kind: str, file: str, value: JSON, trained: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = trained
    if kind == "SentencePiece":
        folder = tmp_path / "spm"
        folder.mkdir()
        for path in checkpoint.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    write_json(folder / file, value)
    with pytest.raises(TokenizerError, match=f"{file} has an added token that makes no sense"):
        convert(folder, folder / "out.gguf")


def test_templates(trained: Path) -> None:
    (trained / "chat_template.jinja").write_text("{{ a }}", encoding="utf-8")
    write_json(trained / "chat_template.json", {"chat_template": "{{ b }}"})
    convert(trained, trained / "out.gguf")
    assert read_header(trained / "out.gguf").metadata["tokenizer.chat_template"] == "{{ a }}"
    (trained / "chat_template.jinja").unlink()
    convert(trained, trained / "out.gguf")
    assert read_header(trained / "out.gguf").metadata["tokenizer.chat_template"] == "{{ b }}"
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    change(trained, "tokenizer_config.json", lambda config: config.update(chat_template=named))
    convert(trained, trained / "out.gguf")
    metadata = read_header(trained / "out.gguf").metadata
    assert metadata["tokenizer.chat_template"] == "d"
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]
    assert metadata["tokenizer.chat_template.tool_use"] == "t"
