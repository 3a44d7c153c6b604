"""SentencePiece models, tokenizer.json, chat templates and the table of pre-tokenizers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmkit.errors import TokenizerError
from slmkit.formats import pretokenizers, tokenizer_json
from slmkit.formats.chat_template import chat_templates
from slmkit.formats.sentencepiece import Piece, PieceType, SpecialIds, _piece, _spans, read_pieces, write_pieces
from slmkit.formats.tokenizer_json import load, read_json, read_sections, read_tokenizer_json
from slmkit.ops.convert.special import special_tokens
from tests.factories import PIECES, write_json

ON_DISK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ANY_PIECE = st.builds(Piece, st.text(max_size=9), st.floats(width=32, allow_nan=False), st.sampled_from(PieceType))


@ON_DISK
@given(st.lists(ANY_PIECE, min_size=1, max_size=9))
def test_pieces_there_and_back(tmp_path: Path, pieces: list[Piece]) -> None:
    path = tmp_path / "tokenizer.model"
    write_pieces(path, pieces, SpecialIds(-1, -1, -1, -1))
    assert list(read_pieces(path)) == pieces


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
@given(st.binary(max_size=99), st.integers(0, 400), st.integers(0, 500))
def test_damaged_models(tmp_path: Path, noise: bytes, at: int, end: int) -> None:
    path = tmp_path / "tokenizer.model"
    write_pieces(path, PIECES[:19], SpecialIds())
    data = path.read_bytes()
    data = (data[:at] + noise + data[at + len(noise) :])[:end]
    path.write_bytes(data)
    try:
        found = read_pieces(path)
    except TokenizerError as error:
        message = error.message
        assert str(path) in message
    else:
        spans = zip(*_spans(data), strict=True)
        assert repr(list(found)) == repr([_piece(data[a:b]) for a, b in spans])


def test_pieces_in_unusual_bytes(tmp_path: Path) -> None:
    """Fields in another order, unknown ones, a text of more than 127 bytes, sizes longer than they need be."""
    score = b"\x15" + struct.pack("<f", -1.5)
    long = "\u2581" * 60
    bodies = {
        b"\x0a\x01a" + score: Piece("a", -1.5),
        b"\x0a\x01b" + score + b"\x18\x01": Piece("b", -1.5),
        b"\x0a\x01c" + score + b"\x18\x06": Piece("c", -1.5, PieceType.BYTE),
        score + b"\x0a\x01d": Piece("d", -1.5),
        b"\x0a\x01e" + score + b"\x18\x84\x00": Piece("e", -1.5, PieceType.USER_DEFINED),
        b"\x0a\x81\x00f": Piece("f", 0.0),
        b"\x0a\x01g" + score + b"\x20\x07": Piece("g", -1.5),
        b"\x0a\xb4\x01" + long.encode() + score: Piece(long, -1.5),
        b"": Piece("", 0.0),
    }
    sizes = [bytes([n]) if (n := len(body)) < 128 else bytes([n & 127 | 128, n >> 7]) for body in bodies]
    fields = [b"\x0a" + size + body for size, body in zip(sizes, bodies, strict=True)]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\x10\x05".join(fields) + b"\x8a\x00\x03\x0a\x01z" + b"\x12\x02\x0a\x00")
    assert list(read_pieces(path)) == [*bodies.values(), Piece("z", 0.0)]
    path.write_bytes(b"\x0a\x09\x0a\x01a" + score + b"\x18\x09")
    with pytest.raises(TokenizerError, match="damaged"):
        read_pieces(path)


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


def test_sections_without_the_model(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    assert read_sections(path) == {}
    sections: dict[str, Any] = {"added_tokens": [{"content": ', "model": {'}], "normalizer": None, "post_processor": {}}
    model = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    write_json(path, {**sections, **model})
    assert read_sections(path) == sections
    for whole in ({**model, **sections}, {**sections, "decoder": {"x": 1, **model}}, {"a": 1, **model}):
        write_json(path, whole)
        assert read_sections(path) == whole
    text = json.dumps({**sections, **model})
    for end in range(1, len(text)):
        path.write_text(text[:end])
        try:
            assert read_sections(path) == sections
        except TokenizerError:
            continue
        assert text[:end].endswith("}")


def test_merges_as_pairs_and_as_texts(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    vocab = {"a": 0, "b": 1, "ab": 2, " ": 3, " a": 4}
    write_json(path, {"version": "1.0", "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b"], [" ", "a"]]}})
    source = read_tokenizer_json(path)
    assert source.merges == ("a b", "Ġ a")
    assert load(source).encode("ab").ids == [2]
    write_json(path, {"model": {"type": "BPE", "vocab": vocab, "merges": ["a b"]}})
    assert read_tokenizer_json(path).merges == ("a b",)


@ON_DISK
@given(
    st.lists(st.tuples(*[st.text(' ]["},\n\\ab\u2581\U0001f999', max_size=5)] * 2), max_size=9),
    st.integers(1, 60),
    st.sampled_from([None, 2, 4]),
    st.booleans(),
)
def test_merges_in_blocks(
    tmp_path: Path, pairs: list[tuple[str, str]], block: int, indent: int | None, texts: bool
) -> None:
    """However the file is printed and cut, the merges are those of the whole."""
    path = tmp_path / "tokenizer.json"
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": [" ".join(p) for p in pairs] if texts else pairs}
    whole = {"added_tokens": [], "model": model}
    path.write_text(json.dumps(whole, indent=indent, ensure_ascii=False), encoding="utf-8")
    wanted = [f"{a} {b}" if texts else f"{a.replace(' ', 'Ġ')} {b.replace(' ', 'Ġ')}" for a, b in pairs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_json, "_BLOCK_BYTES", block)
        found = read_tokenizer_json(path)
    assert list(found.merges) == wanted
    assert found.raw == {"added_tokens": [], "model": {**model, "merges": []}}


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
