"""Where a quant loses: by kind of token, by domain, by place in the chunk, and the tokens that lose most.

A token belongs to the text, not to what a model would have said: its class is that of the piece of text that it is.
"""

from __future__ import annotations

import heapq
import math
import statistics
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from slmkit.core.damage import Group, Kind, Place
from slmkit.core.quality import QualityRow
from slmkit.core.stats import Estimate

DIGITS, PUNCTUATION, WHITESPACE = "digits", "punctuation", "whitespace"
NAMES, WORDS, OTHER_SCRIPT, BYTES = "names", "Latin words", "non-Latin script", "bytes"
CLASSES = (WORDS, NAMES, DIGITS, PUNCTUATION, WHITESPACE, OTHER_SCRIPT, BYTES)
N_PLACES = 8
"""Into so many parts the scored half of a chunk is cut."""
N_WORST = 5
BEFORE_CHARACTERS = 60
"""Of the text before a token, as much is shown."""
BEFORE_PIECES = 64
"""Tokens before one that its class can depend on."""
_BEGINNERS = '.!?:;…\n。！？؟।"“”„«»'
"""After one of these a sentence begins."""
_BETWEEN = " \t'‘’‚‹›([{*-–—"
"""What may stand between it and the first letter."""

Classes = Mapping[tuple[str, int], Sequence[str]]
"""The class of each scored token of a chunk, by its domain and number."""


def token_class(before: str, piece: bytes) -> str:
    """The one class of a token whose bytes are `piece`, after the text `before`; the first rule that fits decides.

    `bytes`: it is a part of a character. `whitespace`: nothing else is in it. Then its first letter or digit: `digits`;
    `non-Latin script`; `names`, where the word that the letter is in begins with a capital but no sentence, line or
    quotation ("I" is none, every noun of a German text is one); else `Latin words`. Without any: `punctuation` for
    marks and symbols, and `bytes` for the rest, such as control characters.
    """
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return BYTES
    if text.isspace():
        return WHITESPACE
    for at, character in enumerate(text):
        kind = unicodedata.category(character)[0]
        if kind == "N":
            return DIGITS
        if kind in "LM":
            if not _is_latin(character):
                return OTHER_SCRIPT
            return NAMES if _is_in_name(before + text[:at], text[at:]) else WORDS
    return PUNCTUATION if any(unicodedata.category(character)[0] in "PS" for character in text) else BYTES


def classes(pieces: Sequence[bytes], n_scored: int) -> list[str]:
    """Those of the last `n_scored` tokens of a chunk, of which all `n_ctx` are given."""
    first = len(pieces) - n_scored
    return [token_class(_text(pieces[max(0, i - BEFORE_PIECES) : i]), pieces[i]) for i in range(first, len(pieces))]


def groups(row: QualityRow, known: Classes, n_ctx: int) -> Iterator[Group]:
    """The groups of a row that has been held against a base; each kind of them has every scored token once."""
    members: defaultdict[tuple[Kind, str], list[tuple[float, int]]] = defaultdict(list)
    for chunk in row.chunks:
        n, names = len(chunk.kld), known[chunk.domain, chunk.number]
        for i, (kld, same, name) in enumerate(zip(chunk.kld, chunk.same_top, names, strict=True)):
            for key in _keys(name, chunk.domain, i, n, n_ctx):
                members[key].append((kld, same))
    n_tokens = sum(len(chunk.kld) for chunk in row.chunks)
    total = math.fsum(kld for chunk in row.chunks for kld in chunk.kld)
    order: dict[tuple[Kind, str], None] = {("class", name): None for name in CLASSES}
    for kind, name in (*order, *(key for key in members if key not in order)):
        if found := members.get((kind, name)):
            yield _group(kind, name, found, n_tokens, total)


def worst(row: QualityRow, most: int = N_WORST) -> list[Place]:
    """The tokens with the largest KLD, that of a broken model first, which is no number."""
    places = (Place(c.domain, c.number, i, kld) for c in row.chunks for i, kld in enumerate(c.kld))
    return heapq.nlargest(most, places, key=_badness)


def context(pieces: Sequence[bytes], n_scored: int, index: int) -> tuple[str, str]:
    """The end of the text before scored token `index` of a chunk, and the token."""
    at = len(pieces) - n_scored + index
    return _text(pieces[max(0, at - BEFORE_PIECES) : at])[-BEFORE_CHARACTERS:], shown(pieces[at])


def shown(piece: bytes) -> str:
    r"""A token as text; bytes that are no whole character as `\xe4`."""
    return piece.decode("utf-8", "backslashreplace")


def _keys(name: str, domain: str, index: int, n_scored: int, n_ctx: int) -> Iterable[tuple[Kind, str]]:
    part = index * N_PLACES // n_scored
    first, end = (-(-number * n_scored // N_PLACES) for number in (part, part + 1))
    before = n_ctx - n_scored
    return ("class", name), ("place", f"{before + first} to {before + end - 1}"), ("domain", domain)


def _group(kind: Kind, name: str, members: Sequence[tuple[float, int]], n_tokens: int, total: float) -> Group:
    klds = [kld for kld, _ in members]
    mean = math.fsum(klds) / len(klds)
    error = statistics.stdev(klds) / math.sqrt(len(klds)) if len(klds) > 1 and math.isfinite(mean) else None
    return Group(
        kind=kind,
        name=name,
        n_tokens=len(members),
        token_share=len(members) / n_tokens,
        kld=Estimate(mean, error),
        kld_share=math.fsum(klds) / total if math.isfinite(total) and total > 0 else None,
        same_top=statistics.fmean(same for _, same in members),
    )


def _badness(place: Place) -> tuple[bool, float]:
    is_number = math.isfinite(place.kld)
    return not is_number, place.kld if is_number else 0.0


def _text(pieces: Sequence[bytes]) -> str:
    return b"".join(pieces).decode("utf-8", "replace")


def _is_latin(character: str) -> bool:
    """Also of marks that are put on any letter."""
    name = unicodedata.name(character, "")
    return "LATIN" in name.split() or name.startswith("COMBINING")


def _is_in_name(before: str, rest: str) -> bool:
    """Whether the word that goes on, or begins, with `rest` is capitalised inside a sentence."""
    stem = len(before)
    while stem and unicodedata.category(before[stem - 1])[0] in "LM":
        stem -= 1
    word = before[stem:] + rest
    left = before[:stem].rstrip(_BETWEEN)
    if not word[0].isupper() or not left or left[-1] in _BEGINNERS:
        return False
    return word[0] != "I" or word[1:2].isalpha()
