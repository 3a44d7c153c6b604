"""Vocabularies: what the golden data does not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slmkit.formats.sentencepiece import PieceType
from slmkit.ops.convert.vocab import read_vocab
from tests.factories import PIECES, make_llama, write_json


def spm_as_json(folder: Path) -> None:
    """The SentencePiece vocabulary as Llama 2 has it in tokenizer.json: merges in the order of the scores."""
    vocab = {piece.text: i for i, piece in enumerate(PIECES)}
    ranked = sorted((p for p in PIECES if p.type is PieceType.NORMAL), key=lambda p: -p.score)
    pairs = [(p.text[:i], p.text[i:]) for p in ranked for i in range(1, len(p.text))]
    merges = [[left, right] for left, right in pairs if left in vocab and right in vocab]
    model = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocab}
    prepend, escape = {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}}
    bos, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    whole = {
        "version": "1.0",
        "added_tokens": [{"id": i, **added(PIECES[i].text, special=True)} for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [prepend, {**escape, "content": "\u2581"}]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, text],
            "pair": [bos, text],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
        "model": {**model, "merges": merges},
    }
    write_json(folder / "tokenizer.json", whole)


def added(content: str, *, special: bool = False, **flags: bool) -> dict[str, Any]:
    """An added token as tokenizer.json and tokenizer_config.json have it."""
    off = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    return {"content": content, "special": special, **off, **flags}


def test_scores_of_a_sentencepiece_model_without_its_file(tmp_path: Path) -> None:
    """llama.cpp merges the pair of the best score first, so scores must fall in the order of the merges."""
    folder = make_llama(tmp_path / "a", n_layers=1, hidden=64)
    wanted = read_vocab(folder, {}, 520)
    (folder / "tokenizer.model").unlink()
    spm_as_json(folder)
    found = read_vocab(folder, {}, 520)
    assert (found.model, found.tokens, found.types) == ("llama", wanted.tokens, wanted.types)
    assert found.scores is not None
    merged = [i for i, p in enumerate(PIECES) if p.type is PieceType.NORMAL and len(p.text) > 1]
    scores = [found.scores[i] for i in merged]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)
    assert set(found.types[512:]) == {PieceType.UNUSED}


def test_special_looking_tokens_are_control(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "a", n_layers=1, hidden=64)
    texts = {"<|fim|>": 3, "<unused7>": 3, "<pad>": 3, "plain": 4, "a▁b": 4}
    decoder = {str(300 + i): {"content": text, "special": False} for i, text in enumerate(texts)}
    write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": decoder})
    found = read_vocab(folder, {}, 512)
    assert found.types[300 : 300 + len(texts)] == list(texts.values())
    assert found.tokens[304] == "a b"
