"""Turns a checkpoint's tokenizer files into the `tokenizer.*` keys of GGUF.

Three kinds: byte-level BPE (tokenizer.json), SentencePiece (tokenizer.model), and SentencePiece BPE of which only
tokenizer.json is there. Rules: conversion/base.py (`get_vocab_base`, `_create_vocab_sentencepiece`) at llama.cpp
0c1e57098, https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/base.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slmkit.errors import TokenizerError
from slmkit.formats import pretokenizers, tokenizer_json
from slmkit.formats.chat_template import DEFAULT, chat_templates
from slmkit.formats.excerpt import load_for
from slmkit.formats.gguf.writer import Value, boolean, f32s, i32s, string, strings
from slmkit.formats.metaspace import space_prefix
from slmkit.formats.sentencepiece import PieceType, read_pieces
from slmkit.formats.tokenizer_json import AddedToken, TokenizerJson, read_json, read_sections, read_tokenizer_json
from slmkit.ops.convert.added import all_added, beyond_remark, legacy, listed, strip_remark
from slmkit.ops.convert.special import SpecialTokens, special_tokens

_SPACE = "\u2581"
_LOOKS_SPECIAL = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)


@dataclass(frozen=True)
class Vocab:
    """The tokens by id and how text becomes them."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: tuple[str, ...]
    special: SpecialTokens
    templates: Mapping[str, str]
    normalizer: Mapping[str, bool]
    space_prefix: bool | None = None
    remarks: tuple[str, ...] = ()
    """What the user should know."""

    def __post_init__(self) -> None:
        if len(set(self.tokens)) < len(self.tokens):
            text, n = Counter(self.tokens).most_common(1)[0]
            raise TokenizerError(f"the tokenizer has {n} tokens {text!r}: llama.cpp cannot load such a vocabulary")

    def metadata(self) -> dict[str, Value]:
        """Keys in the order llama.cpp's converter writes them."""
        out = {
            "tokenizer.ggml.model": string(self.model),
            "tokenizer.ggml.pre": string(self.pre),
            "tokenizer.ggml.tokens": strings(self.tokens),
        }
        if self.scores is not None:
            out["tokenizer.ggml.scores"] = f32s(self.scores)
        out["tokenizer.ggml.token_type"] = i32s(self.types)
        if self.merges:
            out["tokenizer.ggml.merges"] = strings(self.merges)
        out |= self.special.metadata()
        named = {name: text for name, text in self.templates.items() if name != DEFAULT and text}
        out |= {f"tokenizer.chat_template.{name}": string(text) for name, text in named.items()}
        if named:
            out["tokenizer.chat_templates"] = strings(sorted(named))
        if self.templates.get(DEFAULT):
            out["tokenizer.chat_template"] = string(self.templates[DEFAULT])
        out |= {f"tokenizer.ggml.normalizer.{k}": boolean(v) for k, v in self.normalizer.items()}
        if self.space_prefix is not None:
            out["tokenizer.ggml.add_space_prefix"] = boolean(self.space_prefix)
        return out


def read_vocab(folder: Path, config: Mapping[str, Any], n_vocab: int, *, pre: str | None = None) -> Vocab:
    """The vocabulary of a checkpoint, `n_vocab` tokens (rows of the embedding) long.

    `pre` says how the tokenizer splits text when it is not to be recognized. Raises `TokenizerError` for files that
    are missing, damaged or too large for the embedding, and `UnknownPreTokenizerError`.
    """
    if (folder / "tokenizer.model").is_file():
        return _sentencepiece(folder, config, n_vocab)
    source = read_tokenizer_json(folder / "tokenizer.json")
    return (_spm_bpe if source.is_spm_bpe else byte_level)(source, config, n_vocab, pre)


def byte_level(source: TokenizerJson, config: Mapping[str, Any], n_vocab: int, pre: str | None = None) -> Vocab:
    """A byte-level BPE (GPT-2 and its heirs); see `read_vocab`."""
    folder = source.path.parent
    settings = read_json(folder / "tokenizer_config.json")
    tokens, types = _padding(n_vocab)
    _check_ids(source, n_vocab)
    for text, i in source.vocab.items():
        tokens[i], types[i] = text, PieceType.NORMAL
    tokenizer = load_for(source, pretokenizers.PROBE)
    source = tokenizer_json.renumbered(source, tokenizer)
    name, remark = (pre, None) if pre else pretokenizers.identify(source, tokenizer)
    added, beyond = _split(all_added(source, settings), n_vocab)
    published = {token.content for token in source.added}
    for token in beyond:
        if token.content in published:
            _check_id(source.path, token.id, n_vocab, token.content)
    for token in added:
        text = token.content
        if not token.normalized and text in published:
            # llama.cpp matches added tokens as they are stored: store what the normalizer would make of them.
            with tokenizer_json.refusals(source.path):
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                decoded = tokenizer.decode(ids, skip_special_tokens=False)
            # The decoder takes letters such as U+00E8 for bytes: then the text as it stands is right.
            text = text if "\ufffd" in decoded else decoded
        tokens[token.id], types[token.id] = _added(text, token.special)
    special = special_tokens(source.raw, settings, config)
    if name in pretokenizers.ADDS_BOS:
        special.adds.setdefault("bos", False)
    return Vocab(
        model="gpt2",
        pre=name,
        tokens=tokens,
        types=types,
        scores=None,
        merges=source.merges,
        special=special,
        templates=chat_templates(folder, settings) if settings else {},
        normalizer=_normalizer(source.raw.get("normalizer")),
        remarks=_remarks(remark, strip_remark(added), beyond_remark(beyond, n_vocab)),
    )


def _sentencepiece(folder: Path, config: Mapping[str, Any], n_vocab: int) -> Vocab:
    path = folder / "tokenizer.model"
    pieces = read_pieces(path)
    if len(pieces.texts) > n_vocab:
        _check_id(path, n_vocab, n_vocab, pieces.texts[n_vocab])
    tokens, types = _padding(n_vocab, len(pieces.texts))
    tokens[:0] = pieces.texts
    types[:0] = [PieceType.NORMAL if kind == PieceType.USER_DEFINED else kind for kind in pieces.types]
    scores = pieces.scores + [-10000.0] * (n_vocab - len(pieces.scores))
    settings = read_json(folder / "tokenizer_config.json")
    older, _ = _split(legacy(folder), n_vocab)
    for token in older:
        tokens[token.id], types[token.id], scores[token.id] = token.content, PieceType.USER_DEFINED, -1000.0
    added, beyond = _split(listed(folder, settings), n_vocab)
    for token in added:
        tokens[token.id], types[token.id] = _added(token.content, token.special)
        scores[token.id] = -1000.0
    remarks = _remarks(strip_remark(added), beyond_remark(beyond, n_vocab))
    return _spm_vocab(folder, config, settings, tokens, types, scores, remarks)


def _spm_bpe(source: TokenizerJson, config: Mapping[str, Any], n_vocab: int, pre: str | None = None) -> Vocab:
    """Scores are minus the rank of the merge that makes the token: llama.cpp then merges in the same order."""
    made = (merge.replace(" ", "") for merge in reversed(source.merges))  # of several ways the first counts
    ranks = dict(zip(made, range(1 - len(source.merges), 1), strict=True))
    tokens, types = _padding(n_vocab)
    scores = [-10000.0] * n_vocab
    _check_ids(source, n_vocab)
    for text, i in source.vocab.items():
        tokens[i], types[i], scores[i] = text, PieceType.NORMAL, float(ranks.get(text, -len(source.merges)))
    for byte in (f"<0x{number:02X}>" for number in range(256)):
        if byte in source.vocab:
            types[source.vocab[byte]] = PieceType.BYTE
    unknown = source.model.get("unk_token")
    if isinstance(unknown, str) and unknown in source.vocab:
        types[source.vocab[unknown]] = PieceType.UNKNOWN
    settings = read_json(source.path.parent / "tokenizer_config.json")
    added, beyond = _split(all_added(source, settings), n_vocab)
    for token in added:
        tokens[token.id], types[token.id] = _added(token.content, token.special)
        scores[token.id] = -1000.0
    prefix, remark = (None, None) if pre else space_prefix(source)
    remarks = _remarks(remark, strip_remark(added), beyond_remark(beyond, n_vocab))
    found = _spm_vocab(source.path.parent, config, settings, tokens, types, scores, remarks)
    found.special.adds.setdefault("bos", False)  # llama.cpp adds it unless told otherwise
    return replace(found, space_prefix=prefix)


def _spm_vocab(
    folder: Path,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    tokens: list[str],
    types: list[int],
    scores: list[float],
    remarks: tuple[str, ...],
) -> Vocab:
    raw = read_sections(folder / "tokenizer.json")
    special = special_tokens(raw, settings, config, len(tokens))
    return Vocab(
        model="llama",
        pre="default",
        tokens=tokens,
        types=types,
        scores=scores,
        merges=(),
        special=special,
        templates=chat_templates(folder, settings) if settings else {},
        normalizer=_normalizer(raw.get("normalizer")),
        remarks=remarks,
    )


def _split(added: list[AddedToken], n_vocab: int) -> tuple[list[AddedToken], list[AddedToken]]:
    """Those that the embedding has a row for, and the others."""
    return [t for t in added if t.id < n_vocab], [t for t in added if t.id >= n_vocab]


def _remarks(*found: str | None) -> tuple[str, ...]:
    return tuple(remark for remark in found if remark)


def _padding(n_vocab: int, first: int = 0) -> tuple[list[str], list[int]]:
    """Rows of the embedding that no token names, from `first` on."""
    numbers = range(first, n_vocab)
    return [f"[PAD{i}]" for i in numbers], [PieceType.UNUSED] * len(numbers)


def _added(text: str, special: bool) -> tuple[str, PieceType]:
    """Text and type of an added token; some that look special are not marked so by their authors."""
    if special or _LOOKS_SPECIAL.fullmatch(text):
        return text, PieceType.CONTROL
    return text.replace(_SPACE, " "), PieceType.USER_DEFINED


def _check_ids(source: TokenizerJson, n_vocab: int) -> None:
    text = max(source.vocab, key=lambda text: source.vocab[text], default="")
    _check_id(source.path, source.vocab.get(text, 0), n_vocab, text)


def _check_id(path: Path, i: int, n_vocab: int, text: str) -> None:
    if i >= n_vocab:
        raise TokenizerError(
            f"{path} has token {i} ({text!r}), but the embedding has {n_vocab} rows",
            hint="the tokenizer belongs to another checkpoint, or `vocab_size` in config.json is wrong",
        )


def _normalizer(section: Any) -> dict[str, bool]:
    """Switches of the normalizer that llama.cpp knows: lower case and stripped accents."""
    match section:
        case {"type": "Lowercase"}:
            return {"lowercase": True}
        case {"type": "StripAccents"}:
            return {"strip_accents": True}
        case {"type": "BertNormalizer", **switches}:
            return {k: v for k, v in switches.items() if k in ("lowercase", "strip_accents") and isinstance(v, bool)}
        case {"type": "Sequence", "normalizers": [*steps]}:
            return {k: v for step in steps for k, v in _normalizer(step).items()}
    return {}
