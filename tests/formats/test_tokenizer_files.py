"""SentencePiece models, tokenizer.json, chat templates and the table of pre-tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmkit.errors import TokenizerError
from slmkit.formats import pretokenizers
from slmkit.formats.chat_template import chat_templates
from slmkit.formats.sentencepiece import Piece, PieceType, SpecialIds, read_pieces, write_pieces
from slmkit.formats.tokenizer_json import load, read_json, read_tokenizer_json
from slmkit.ops.convert.special import special_tokens
from tests.factories import PIECES, write_json

ON_DISK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ANY_PIECE = st.builds(Piece, st.text(max_size=9), st.floats(width=32, allow_nan=False), st.sampled_from(PieceType))


@ON_DISK
@given(st.lists(ANY_PIECE, min_size=1, max_size=9))
def test_pieces_there_and_back(tmp_path: Path, pieces: list[Piece]) -> None:
    path = tmp_path / "tokenizer.model"
    write_pieces(path, pieces, SpecialIds(-1, -1, -1, -1))
    assert read_pieces(path) == pieces


def test_the_library_sees_the_same_pieces(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    path = tmp_path / "tokenizer.model"
    write_pieces(path, PIECES, SpecialIds())
    library = SentencePieceProcessor()
    library.LoadFromFile(str(path))
    assert [library.IdToPiece(i) for i in range(library.vocab_size())] == [p.text for p in PIECES]
    assert [library.GetScore(i) for i in range(library.vocab_size())] == [p.score for p in PIECES]
    assert (library.unk_id(), library.bos_id(), library.eos_id(), library.pad_id()) == (0, 1, 2, -1)


@ON_DISK
@given(st.binary(max_size=99), st.integers(0, 99))
def test_damaged_models(tmp_path: Path, noise: bytes, at: int) -> None:
    path = tmp_path / "tokenizer.model"
    write_pieces(path, PIECES[:9], SpecialIds())
    data = bytearray(path.read_bytes())
    data[at : at + len(noise)] = noise
    path.write_bytes(data)
    try:
        read_pieces(path)
    except TokenizerError as error:
        message = error.message
        assert str(path) in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"model": {"type": "WordPiece"}}, "WordPiece"),
        ({"model": {"type": "BPE"}}, "no vocabulary"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "without an id"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}}, "no pair"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [{}]}, "added token"),
    ],
)
def test_bad_tokenizers(tmp_path: Path, value: dict[str, Any], message: str) -> None:
    path = tmp_path / "tokenizer.json"
    write_json(path, value)
    with pytest.raises(TokenizerError, match=message):
        read_tokenizer_json(path)


def test_bad_json(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") == {}
    for text in ("{", "[]", "[" * 100_000, "\x00"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(TokenizerError, match=r"a\.json"):
            read_json(tmp_path / "a.json")


def test_merges_as_pairs_and_as_texts(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    vocab = {"a": 0, "b": 1, "ab": 2, " ": 3, " a": 4}
    write_json(path, {"version": "1.0", "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b"], [" ", "a"]]}})
    source = read_tokenizer_json(path)
    assert source.merges == ("a b", "Ġ a")
    assert load(source).encode("ab").ids == [2]
    write_json(path, {"model": {"type": "BPE", "vocab": vocab, "merges": ["a b"]}})
    assert read_tokenizer_json(path).merges == ("a b",)


def test_chat_templates(tmp_path: Path) -> None:
    assert chat_templates(tmp_path, {}) == {}
    write_json(tmp_path / "chat_template.json", {"chat_template": "json"})
    assert chat_templates(tmp_path, {}) == {"default": "json"}
    (tmp_path / "chat_template.jinja").write_text("jinja")
    assert chat_templates(tmp_path, {}) == {"default": "jinja"}
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag-1.jinja").write_text("rag")
    assert chat_templates(tmp_path, {}) == {"default": "jinja", "rag_1": "rag"}
    assert chat_templates(tmp_path, {"chat_template": "config"}) == {"default": "config"}
    named = [{"name": "default", "template": "a"}, {"name": "", "template": "b"}, {"name": "x"}]
    assert chat_templates(tmp_path, {"chat_template": named}) == {"default": "a"}
    assert chat_templates(tmp_path, {"chat_template": 3}) == {}


def test_the_table_of_pre_tokenizers() -> None:
    known = pretokenizers.known()
    assert len(known) == 95
    assert all(len(digest) == 64 and name for digest, name in known.items())
    assert {"smollm", "qwen2", "llama-bpe", "gpt-2", "tekken"} <= set(known.values())


def test_special_tokens() -> None:
    added = [{"id": 7, "content": "<s>"}, {"id": 8, "content": "</s>"}, {"id": 9, "content": "<eot>"}]
    single = [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}]
    post = {"type": "TemplateProcessing", "single": single, "pair": []}
    tokenizer = {"added_tokens": added, "post_processor": post}
    names = {"bos_token": {"content": "<s>"}, "eos_token": "<eot>", "add_bos_token": False}
    found = special_tokens(tokenizer, names, {"pad_token_id": 3, "eos_token_id": 1})
    assert found.ids == {"bos": 7, "eos": 8, "cls": 7, "eot": 9, "pad": 3}
    assert [key.removeprefix("tokenizer.ggml.") for key in found.metadata()] == [
        "bos_token_id",
        "eos_token_id",
        "eot_token_id",
        "padding_token_id",
        "add_bos_token",
        "add_eos_token",
    ]
    assert found.adds == {"bos": True, "eos": True}
    assert special_tokens({}, {}, {"bos_token_id": 5, "eos_token_id": [1, 2]}, 5).ids == {}
