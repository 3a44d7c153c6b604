"""Tokenizer files out of a GGUF: tokenizer.json for byte-level BPE, tokenizer.model for SentencePiece."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit.core.progress import Progress
from slmkit.errors import ConvertError, GgufError
from slmkit.formats import pretokenizers
from slmkit.formats.gguf.header import GgufHeader
from slmkit.formats.sentencepiece import Piece, PieceType, SpecialIds, write_pieces
from slmkit.formats.tokenizer_json import load, read_tokenizer_json

JSON = dict[str, Any]
_SPACE = "\u2581"


def _byte_level(*, prefix: bool = False, trim: bool = True, regex: bool = False) -> JSON:
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": trim, "use_regex": regex}


def _split(pattern: str) -> JSON:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _words(digits: str) -> str:
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


@dataclass(frozen=True)
class Layout:
    """What tokenizer.json says for one pre-tokenizer of llama.cpp, taken from the published tokenizers.

    `specials_in_model`: added tokens are entries of the vocabulary, too. `plain` are tokens that llama.cpp's converter
    marks as control because they look special, while the published tokenizer does not.
    """

    tokenizer_class: str
    pre_tokenizer: list[JSON]
    decoder: JSON
    normalizer: JSON | None = None
    post_processor: JSON | None = None
    specials_in_model: bool = False
    ignore_merges: bool = False
    affixes: str | None = None
    plain: frozenset[str] = frozenset()


_QWEN_PLAIN = frozenset(f"<|{name}|>" for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name"))
LAYOUTS = {
    "smollm": Layout(
        "GPT2Tokenizer",
        [{"type": "Digits", "individual_digits": True}, _byte_level(regex=True)],
        _byte_level(prefix=True, regex=True),
        specials_in_model=True,
    ),
    "gpt-2": Layout(
        "GPT2Tokenizer", [_byte_level(regex=True)], _byte_level(prefix=True, regex=True), specials_in_model=True
    ),
    "qwen2": Layout(
        "Qwen2Tokenizer",
        [_split(_words(r"\p{N}")), _byte_level(trim=False)],
        _byte_level(trim=False),
        normalizer={"type": "NFC"},
        post_processor=_byte_level(trim=False),
        affixes="",
        plain=_QWEN_PLAIN | {"<|file_sep|>"},
    ),
    "llama-bpe": Layout(
        "PreTrainedTokenizerFast",
        [_split(_words(r"\p{N}{1,3}")), _byte_level()],
        _byte_level(prefix=True, regex=True),
        post_processor=_byte_level(prefix=True, trim=False, regex=True),
        ignore_merges=True,
    ),
}
"""By `tokenizer.ggml.pre`."""


def write_tokenizer(header: GgufHeader, folder: Path, progress: Progress) -> None:
    """Write tokenizer.json or tokenizer.model, tokenizer_config.json and special_tokens_map.json.

    Raises `ConvertError` for a kind of tokenizer that has no `Layout`.
    """
    source = _Source(header)
    match source.kind:
        case "llama":
            config = _write_spm(source, folder)
        case "gpt2":
            config = _write_bpe(source, folder, progress)
        case kind:
            raise ConvertError(f"{header.path}: a tokenizer of kind `{kind}` cannot be exported")
    config |= {
        "clean_up_tokenization_spaces": False,
        "model_max_length": header.hyper("context_length"),
        **source.special,
    }
    if (template := header.metadata.get("tokenizer.chat_template")) is not None:
        config["chat_template"] = template
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", source.special)


def write_json(path: Path, value: Any) -> None:
    """As transformers writes it."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


class _Source:
    """The tokenizer's keys, by short names."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self.kind = str(self.get("model"))
        self.tokens: list[str] = self.need("tokens")
        self.types: list[int] = self.get("token_type") or [PieceType.NORMAL] * len(self.tokens)
        names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
        ids = {hf: self.get(f"{key}_token_id") for key, hf in names.items()}
        self.special = {hf: self.tokens[i] for hf, i in ids.items() if i is not None and i < len(self.tokens)}

    def get(self, key: str) -> Any:
        return self.header.metadata.get(f"tokenizer.ggml.{key}")

    def need(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise GgufError(f"{self.header.path} has no tokenizer (`tokenizer.ggml.{key}`)")
        return value


def _write_bpe(source: _Source, folder: Path, progress: Progress) -> JSON:
    pre = str(source.get("pre") or "default")
    layout = LAYOUTS.get(pre)
    if layout is None:
        raise ConvertError(
            f"{source.header.path}: the tokenizer splits text as `{pre}`, which cannot be exported yet",
            hint=f"known: {', '.join(sorted(LAYOUTS))}",
        )
    in_model = (
        {PieceType.NORMAL, PieceType.CONTROL, PieceType.USER_DEFINED}
        if layout.specials_in_model
        else {PieceType.NORMAL}
    )
    added = [
        {**_flags(text, kind, layout.plain), "id": i}
        for i, (text, kind) in enumerate(zip(source.tokens, source.types, strict=True))
        if kind in (PieceType.CONTROL, PieceType.USER_DEFINED)
    ]
    post = layout.post_processor
    if source.get("add_bos_token") and "bos_token" in source.special:
        post = _with_bos(post, source.special["bos_token"], source.need("bos_token_id"))
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": layout.affixes,
        "end_of_word_suffix": layout.affixes,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": layout.ignore_merges,
        "vocab": {text: i for i, text in enumerate(source.tokens) if source.types[i] in in_model},
        "merges": [merge.split(" ", 1) for merge in source.need("merges")],
    }
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": layout.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": layout.pre_tokenizer},
        "post_processor": post,
        "decoder": layout.decoder,
        "model": model,
    }
    path = folder / "tokenizer.json"
    write_json(path, whole)
    found = pretokenizers.known().get(pretokenizers.fingerprint(load(read_tokenizer_json(path))))
    if found != pre:
        progress.warn(f"the exported tokenizer.json is not recognized as `{pre}`: it will not convert back")
    decoder = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added}
    return {
        "add_prefix_space": bool(source.get("add_space_prefix")),
        "added_tokens_decoder": decoder,
        "tokenizer_class": layout.tokenizer_class,
    }


def _flags(text: str, kind: int, plain: frozenset[str]) -> JSON:
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": text, **off, "special": kind == PieceType.CONTROL and text not in plain}


def _with_bos(post: Mapping[str, Any] | None, bos: str, token_id: int) -> JSON:
    def special(kind: int) -> JSON:
        return {"SpecialToken": {"id": bos, "type_id": kind}}

    def sequence(name: str, kind: int) -> JSON:
        return {"Sequence": {"id": name, "type_id": kind}}

    template = {
        "type": "TemplateProcessing",
        "single": [special(0), sequence("A", 0)],
        "pair": [special(0), sequence("A", 0), special(1), sequence("B", 1)],
        "special_tokens": {bos: {"id": bos, "ids": [token_id], "tokens": [bos]}},
    }
    return {"type": "Sequence", "processors": [post, template]} if post else template


def _write_spm(source: _Source, folder: Path) -> JSON:
    ids = {key: source.get(f"{key}_token_id") for key in ("unknown", "bos", "eos", "padding")}
    special = SpecialIds(*(-1 if i is None or i >= len(source.tokens) else i for i in ids.values()))
    controls = {special.bos, special.eos, special.padding}
    pieces, decoder = [], {}
    for i, (text, kind, score) in enumerate(zip(source.tokens, source.types, source.need("scores"), strict=True)):
        if i == special.unknown:
            pieces.append(Piece(text, 0.0, PieceType.UNKNOWN))
        elif i in controls:
            pieces.append(Piece(text, 0.0, PieceType.CONTROL))
        elif kind in (PieceType.CONTROL, PieceType.USER_DEFINED):
            pieces.append(Piece(text.replace(" ", _SPACE), 0.0, PieceType.USER_DEFINED))
        else:
            pieces.append(Piece(text, score, PieceType(kind)))
        if kind in (PieceType.CONTROL, PieceType.USER_DEFINED):
            decoder[str(i)] = _flags(text, kind, frozenset())
    prefix = source.get("add_space_prefix")
    write_pieces(folder / "tokenizer.model", pieces, special, add_space_prefix=prefix is not False)
    out: JSON = {"added_tokens_decoder": decoder, "tokenizer_class": "LlamaTokenizer"}
    adds = {f"add_{kind}_token": source.get(f"add_{kind}_token") for kind in ("bos", "eos", "sep")}
    return out | {key: value for key, value in (adds | {"add_prefix_space": prefix}).items() if value is not None}
