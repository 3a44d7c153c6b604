"""As much of a tokenizer as one text needs: the same ids, without loading a vocabulary of which nearly all is not used.

The tokenizers library takes 0.1 s to load a vocabulary of 49,152 tokens and 0.3 s for one of 128,000, and then a
millisecond to encode a text of 500 characters. A byte-level BPE merges neighbours inside of a word only: of all tokens,
those matter that are a part of a word of the text, and of all merges, those whose result is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slmkit.formats.tokenizer_json import TokenizerJson, load, refusals

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_WORD = 256
"""A longer word has too many parts to list."""
_SWITCHES = ("byte_fallback", "continuing_subword_prefix", "dropout", "end_of_word_suffix", "unk_token")
"""With these, ids depend on more of the vocabulary than on parts of the text, or on chance."""


def load_for(source: TokenizerJson, text: str) -> Tokenizer:
    """A tokenizer that makes the same ids of `text`, and of each added token, as the whole one.

    It is the whole one where that is not certain: added tokens in the text, or numbered otherwise than in the file,
    switches of the model other than the usual ones, spaces in tokens, merges to no token. Raises `TokenizerError` when
    the library refuses it.
    """
    vocab, numbers = source.vocab, _numbers(source)
    if numbers is None or any(source.model.get(switch) for switch in _SWITCHES):
        return load(source)
    if not all(merge.replace(" ", "", 1) in vocab for merge in source.merges):
        return load(source)
    words = _words(_part(source, numbers, []), text, tuple(numbers))
    if words is None:
        return load(source)
    parts = {word[i:j] for word in words for i in range(len(word)) for j in range(i + 1, len(word) + 1)}
    known = {part: vocab[part] for part in parts if part in vocab}
    pairs = {f"{part[:i]} {part[i:]}" for part in known for i in range(1, len(part))}
    return _part(source, numbers | known, list(filter(pairs.__contains__, source.merges)))


def _numbers(source: TokenizerJson) -> dict[str, int] | None:
    """Added tokens and their ids; `None` unless the library comes to the ids of the file.

    It takes the id of the model's own token of that text, or else the next one after all of the model's.
    """
    out: dict[str, int] = {}
    following = len(source.vocab)
    for token in source.added:
        number = source.vocab.get(token.content)
        if number is None:
            number, following = following, following + 1
        elif number >= len(source.vocab):
            return None
        if number != token.id or not token.content or token.content in out:
            return None
        out[token.content] = number
    return out


def _part(source: TokenizerJson, vocab: Mapping[str, int], merges: list[str]) -> Tokenizer:
    from tokenizers import Tokenizer

    whole: dict[str, Any] = {**source.raw, "model": {**source.model, "vocab": vocab, "merges": merges}}
    with refusals(source.path):
        tokenizer = Tokenizer.from_str(json.dumps(whole))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def _words(tokenizer: Tokenizer, text: str, added: tuple[str, ...]) -> set[str] | None:
    """What the text is split into; `None` when an added token, a space or an endless word is in it."""
    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    normal = normalizer.normalize_str(text) if normalizer else text
    for token in added:
        if token in text or (normalizer.normalize_str(token) if normalizer else token) in normal:
            return None
    words = {word for word, _ in splitter.pre_tokenize_str(normal)} if splitter else {normal}
    return None if any(" " in word or len(word) > MAX_WORD for word in words) else words
