"""Metadata of two GGUFs: keys, tokenizer, chat templates."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from slmkit.core.diff import ValueDiff
from slmkit.formats.gguf.header import GgufHeader
from slmkit.formats.gguf.split import KEYS

_TOKENIZER, TEMPLATE = "tokenizer.", "tokenizer.chat_template"
_LONG = 8
"""Items of an array that are shown as they are."""
_FIRST = 3
"""Differences of a long array that are shown."""


def compare_metadata(a: GgufHeader, b: GgufHeader) -> tuple[ValueDiff, ...]:
    """All keys but those of the tokenizer and of the shards."""
    return _compare(a, b, lambda key: not key.startswith(_TOKENIZER) and key not in KEYS)


def compare_tokenizers(a: GgufHeader, b: GgufHeader) -> tuple[ValueDiff, ...]:
    """Tokens, their types and scores, merges, special tokens, the way to split text; not the chat templates."""
    return _compare(a, b, lambda key: key.startswith(_TOKENIZER) and not key.startswith(TEMPLATE))


def compare_templates(a: GgufHeader, b: GgufHeader) -> tuple[str, ...]:
    """The lines of a unified diff, from A to B, of each chat template."""
    lines: list[str] = []
    for key in _keys(a, b, lambda key: key.startswith(TEMPLATE)):
        before, after = (str(header.metadata.get(key, "")).splitlines() for header in (a, b))
        lines += difflib.unified_diff(before, after, f"A {key}", f"B {key}", lineterm="")
        if lines == [] and a.metadata.get(key) != b.metadata.get(key):
            lines.append(f"{key}: only line ends differ, or one has none")
    return tuple(lines)


def _keys(a: GgufHeader, b: GgufHeader, wanted: Callable[[str], bool]) -> list[str]:
    return [key for key in {**a.metadata, **b.metadata} if wanted(key)]


def _compare(a: GgufHeader, b: GgufHeader, wanted: Callable[[str], bool]) -> tuple[ValueDiff, ...]:
    return tuple(found for key in _keys(a, b, wanted) if (found := _value(key, a, b)))


def _value(key: str, a: GgufHeader, b: GgufHeader) -> ValueDiff | None:
    one, two = a.metadata.get(key), b.metadata.get(key)
    kinds = a.value_types.get(key), b.value_types.get(key)
    if kinds[0] == kinds[1] and repr(one) == repr(two):  # repr: a NaN is the same as itself
        return None
    if not (isinstance(one, list) and isinstance(two, list)):
        if one == two and None not in kinds:
            one, two = (f"{value} ({kind.name.lower()})" for value, kind in zip((one, two), kinds, strict=True) if kind)
        return ValueDiff(key, _short(one), _short(two))
    differing = [(i, x, y) for i, (x, y) in enumerate(zip(one, two, strict=False)) if x != y]
    first = [(i, _short(x), _short(y)) for i, x, y in differing[:_FIRST]]
    if len(first) < _FIRST and len(one) != len(two):
        i = min(len(one), len(two))
        more = [_short(values[i]) if i < len(values) else None for values in (one, two)]
        first.append((i, more[0], more[1]))
    if max(len(one), len(two)) <= _LONG:
        return ValueDiff(key, one, two)
    return ValueDiff(key, _summary(one, len(differing)), _summary(two, len(differing)), tuple(first))


def _short(value: Any) -> Any:
    """A value as it is, or what there is to see of a long array."""
    return _summary(value, None) if isinstance(value, list) and len(value) > _LONG else value


def _summary(values: list[Any], n_different: int | None) -> str:
    other = f", {n_different:,} other" if n_different else ""
    return f"{len(values):,} items{other}"
