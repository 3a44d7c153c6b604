"""Recognizes how a byte-level BPE tokenizer splits text, by the name llama.cpp has for it.

llama.cpp implements each way of splitting itself and finds it by name (`tokenizer.ggml.pre`). Its converter encodes a
fixed text and looks up the SHA-256 of the ids: conversion/base.py (`get_vocab_base_pre`) at llama.cpp 0c1e57098,
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/base.py. The ids depend on the vocabulary as well, so
an unknown vocabulary with a known way of splitting has an unknown hash: that is an error, never a guess.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from slmkit.errors import UnknownPreTokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROBE = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ "
    "------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? "
    "'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)


@cache
def known() -> dict[str, str]:
    """SHA-256 of the probe's ids -> name of the pre-tokenizer."""
    text = resources.files("slmkit.formats").joinpath("pretokenizers.tsv").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return {row[0]: row[1] for row in rows}


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of the list of ids that the probe becomes, special tokens included."""
    return hashlib.sha256(str(tokenizer.encode(PROBE).ids).encode()).hexdigest()


def identify(tokenizer: Tokenizer, where: str) -> str:
    """llama.cpp's name for the tokenizer's way of splitting; raises `UnknownPreTokenizerError`, naming `where`."""
    found = fingerprint(tokenizer)
    if found in known():
        return known()[found]
    raise UnknownPreTokenizerError(
        f"{where} splits text in a way that llama.cpp has no name for (fingerprint {found[:16]})",
        hint="`--pre NAME` if you know which of llama.cpp's ways it is; a fine-tune with its base model's vocabulary "
        "converts with the base model's tokenizer.json",
    )
