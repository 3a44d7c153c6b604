"""Recognizes how a tokenizer splits text, by the name llama.cpp has for it.

llama.cpp implements each way of splitting itself and finds it by name (`tokenizer.ggml.pre`). Its converter encodes a
fixed text and looks up the SHA-256 of the ids: conversion/base.py (`get_vocab_base_pre`) at llama.cpp 0c1e57098,
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/base.py. The ids depend on the vocabulary as well, so
a vocabulary of its own with a known way of splitting has an unknown hash. Therefore the sections of tokenizer.json that
say how to split are looked up next. When they are unknown, too, that is an error, never a guess.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from slmkit.errors import UnknownPreTokenizerError
from slmkit.formats.tokenizer_json import TokenizerJson, refusals

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROBE = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ "
    "------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? "
    "'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)

ADDS_BOS = frozenset(
    {"llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano", "tekken", "chameleon"}
)
"""Ways of splitting for which llama.cpp puts BOS before a text unless the file says otherwise (llama-vocab.cpp)."""


@dataclass(frozen=True)
class PreTokenizer:
    """llama.cpp's name for a way of splitting, and a model that splits so."""

    name: str
    model: str


@cache
def known() -> dict[str, str]:
    """SHA-256 of the probe's ids -> name of the pre-tokenizer."""
    return {digest: found.name for digest, found in _table("pretokenizers.tsv").items()}


@cache
def known_sections() -> dict[str, PreTokenizer]:
    """`sections_digest` -> pre-tokenizer."""
    return _table("pretokenizer_sections.tsv")


def _table(name: str) -> dict[str, PreTokenizer]:
    text = resources.files("slmkit.formats").joinpath(name).read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return {row[0]: PreTokenizer(row[1], row[2]) for row in rows}


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of the list of ids that the probe becomes, special tokens included."""
    return hashlib.sha256(str(tokenizer.encode(PROBE).ids).encode()).hexdigest()


def sections_digest(source: TokenizerJson) -> str:
    """SHA-256 of what decides on the splitting: normalizer, pre-tokenizer and the switches of the model.

    Left out is what has no influence on the ids, so that files which mean the same have the same digest.
    """
    model = source.model
    sections = {
        "normalizer": _canonical(source.raw.get("normalizer")),
        "pre_tokenizer": _canonical(source.raw.get("pre_tokenizer")),
        "ignore_merges": bool(model.get("ignore_merges")),
        "byte_fallback": bool(model.get("byte_fallback")),
        "affixes": [model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""],
    }
    text = json.dumps(sections, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(step: Any) -> Any:
    """One step, defaults filled in; a sequence of one step is that step."""
    match step:
        case {"type": "ByteLevel"}:  # `trim_offsets` moves offsets, not ids
            return {
                "type": "ByteLevel",
                "add_prefix_space": step.get("add_prefix_space", True),
                "use_regex": step.get("use_regex", True),
            }
        case {"type": "Sequence"}:
            parts = step.get("pretokenizers") or step.get("normalizers") or ()
            if isinstance(parts, list | tuple):
                steps = [_canonical(part) for part in parts]
                return steps[0] if len(steps) == 1 else steps
    return step


def identify(source: TokenizerJson, tokenizer: Tokenizer) -> tuple[str, str | None]:
    """llama.cpp's name for the tokenizer's way of splitting, and a remark when not the whole tokenizer is known.

    Raises `UnknownPreTokenizerError`, naming the file.
    """
    with refusals(source.path):
        found = fingerprint(tokenizer)
    if found in known():
        return known()[found], None
    similar = known_sections().get(sections_digest(source))
    if similar is None:
        raise UnknownPreTokenizerError(
            f"{source.path} splits text in a way that llama.cpp has no name for (fingerprint {found[:16]})",
            hint="`--pre NAME` if you know which of llama.cpp's ways is the right one: "
            + ", ".join(sorted({like.name for like in known_sections().values()}))
            + ", ...",
        )
    remark = f"the tokenizer is new to llama.cpp, but splits text as {similar.model} does (`{similar.name}`)"
    return similar.name, remark
