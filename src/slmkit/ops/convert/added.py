"""Added tokens: those of tokenizer.json, and those that only the files beside it name.

transformers adds what tokenizer_config.json (`added_tokens_decoder`; without it added_tokens.json) and the names of the
special tokens say on top of tokenizer.json, and llama.cpp's converter sees the result.
https://github.com/huggingface/transformers/blob/v4.57.6/src/transformers/tokenization_utils_fast.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slmkit.errors import TokenizerError
from slmkit.formats.tokenizer_json import AddedToken, TokenizerJson, read_json
from slmkit.ops.convert.special import KINDS


def all_added(source: TokenizerJson, settings: Mapping[str, Any]) -> list[AddedToken]:
    """Those of tokenizer.json, then those that it lacks; `settings` is tokenizer_config.json.

    Their ids are those that the tokenizers library gives, whatever the files say: the one that the vocabulary has, or
    the next one that is free.
    """
    out: dict[str, AddedToken] = {}
    free = len(source.vocab)
    for token in [*source.added, *_named(source.path.parent, settings)]:
        if not token.content or token.content in out:
            continue
        number = source.vocab.get(token.content, free)
        free = max(free, number + 1)
        out[token.content] = replace(token, id=number)
    return list(out.values())


def listed(folder: Path, settings: Mapping[str, Any]) -> list[AddedToken]:
    """`added_tokens_decoder` of tokenizer_config.json, in the order of the file; raises `TokenizerError`."""
    entries = settings.get("added_tokens_decoder") or {}
    out = []
    for key, entry in entries.items() if isinstance(entries, dict) else [("", entries)]:
        match entry:
            case {"content": str(content)} if key.isdecimal():
                out.append(AddedToken.of(int(key), content, entry))
            case _:
                raise TokenizerError(
                    f"{folder / 'tokenizer_config.json'} has an added token that makes no sense: {key}"
                )
    return out


def legacy(folder: Path) -> list[AddedToken]:
    """added_tokens.json, which knows no flags; raises `TokenizerError`."""
    path = folder / "added_tokens.json"
    out = []
    for content, number in read_json(path).items():
        if type(number) is not int or number < 0:
            raise TokenizerError(f"{path} has an added token that makes no sense: {content!r}")
        out.append(AddedToken(number, content))
    return out


def strip_remark(tokens: Sequence[AddedToken]) -> str | None:
    """llama.cpp finds an added token anywhere and leaves the spaces beside it alone: say where that is not the same."""
    names = [token.content for token in tokens if token.lstrip or token.rstrip or token.single_word]
    if not names:
        return None
    some = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return f"llama.cpp keeps the spaces beside {len(names)} added tokens that the tokenizer takes away: {some}"


def beyond_remark(tokens: Sequence[AddedToken], n_vocab: int) -> str | None:
    """Tokens that no row of the embedding belongs to."""
    if not tokens:
        return None
    some = ", ".join(token.content for token in tokens[:4]) + (", ..." if len(tokens) > 4 else "")
    return f"left out: {len(tokens)} added tokens beyond the {n_vocab} rows of the embedding: {some}"


def _named(folder: Path, settings: Mapping[str, Any]) -> list[AddedToken]:
    entries = [settings.get(f"{kind}_token") for kind in KINDS]
    more = settings.get("additional_special_tokens")
    entries += more if isinstance(more, list) else []
    texts = [entry.get("content") if isinstance(entry, dict) else entry for entry in entries]
    special = [AddedToken(0, text, special=True) for text in texts if isinstance(text, str) and text]
    if settings.get("added_tokens_decoder") is not None:
        others = listed(folder, settings)
    else:
        names = {token.content for token in special}
        others = [AddedToken(t.id, t.content, t.content in names, t.content not in names) for t in legacy(folder)]
    return sorted(others, key=lambda token: token.id) + special
