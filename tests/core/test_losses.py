"""Each token has one class, the groups add up to all there is, and the worst are the worst."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core import losses
from slmkit.core.losses import (
    BYTES,
    CLASSES,
    DIGITS,
    NAMES,
    OTHER_SCRIPT,
    PUNCTUATION,
    WHITESPACE,
    WORDS,
    classes,
    context,
    groups,
    token_class,
    worst,
)
from slmkit.core.quality import Chunk, QualityRow

KINDS = ("class", "domain", "place")


@pytest.mark.parametrize(
    ("before", "piece", "expected"),
    [
        ("He met ", "Paris", NAMES),
        ("He met", " Paris", NAMES),
        ("in Lu", "xembourg", NAMES),
        ("to Jean-", "Luc", NAMES),
        ("of d'", "Artagnan", NAMES),
        ("the ", "USA", NAMES),
        ("said", " I", WORDS),
        ("in", " It", NAMES),
        ("", "The", WORDS),
        ("It ended.", " Paris", WORDS),
        ("It ended!\n\n", "Paris", WORDS),
        ("a line\n- ", "Item", WORDS),
        ('he said, "', "Go", WORDS),
        ("camel", "Case", WORDS),
        ("a", " word", WORDS),
        ("don", "'t", WORDS),
        ("gar", "çon", WORDS),
        ("e", "\u0301", WORDS),
        ("a ", "12", DIGITS),
        ("a", " 1st", DIGITS),
        ("a", "²", DIGITS),
        ("a ", "٣", DIGITS),
        ("a", ".", PUNCTUATION),
        ("a", " ==", PUNCTUATION),
        ("a", "€", PUNCTUATION),
        ("a", "🙂", PUNCTUATION),
        ("a", "  ", WHITESPACE),
        ("a", "\n\t", WHITESPACE),
        ("", "中文", OTHER_SCRIPT),
        ("", " Привет", OTHER_SCRIPT),
        ("", "ا", OTHER_SCRIPT),
        ("", b"\xe4\xb8", BYTES),
        ("", b"\xad", BYTES),
        ("", "\x00", BYTES),
        ("", "", BYTES),
    ],
)
def test_the_class_of_a_token(before: str, piece: str | bytes, expected: str) -> None:
    assert token_class(before, piece.encode() if isinstance(piece, str) else piece) == expected


@given(st.text(max_size=30), st.binary(max_size=12) | st.text(max_size=6).map(str.encode))
def test_every_token_has_one_of_the_classes(before: str, piece: bytes) -> None:
    assert token_class(before, piece) in CLASSES


def test_the_classes_of_a_chunk_are_those_of_its_last_tokens() -> None:
    pieces = [b"Then", b" he", b" met", b" Sm", b"ith", b",", b" 42", b"."]
    assert classes(pieces, 5) == [NAMES, NAMES, PUNCTUATION, DIGITS, PUNCTUATION]


def test_a_character_in_two_tokens_does_not_spoil_the_text_around_it() -> None:
    pieces = ["中".encode()[:2], "中".encode()[2:], b" met", b" Smith"]
    assert classes(pieces, 4) == [BYTES, BYTES, WORDS, NAMES]
    assert context(pieces, 4, 3) == ("中 met", " Smith")
    assert context(pieces, 4, 1) == ("\ufffd", "\\xad")


def row(*chunks: Chunk) -> QualityRow:
    return QualityRow("org/m:Q4_0", "sha256:x", 1, chunks)


def chunk(klds: list[float], domain: str = "prose", number: int = 0) -> Chunk:
    n = len(klds)
    return Chunk(domain, number, array("f", [1.0] * n), array("f", klds), array("b", [i % 2 for i in range(n)]))


floats = st.floats(0, 50, width=32)
names = st.sampled_from(CLASSES)
Made = tuple[QualityRow, dict[tuple[str, int], list[str]], int]


@st.composite
def rows(draw: st.DrawFn) -> Made:
    n, n_before = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    keys = draw(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3)), min_size=1, unique=True))
    chunks = [chunk(draw(st.lists(floats, min_size=n, max_size=n)), *key) for key in keys]
    return row(*chunks), {key: draw(st.lists(names, min_size=n, max_size=n)) for key in keys}, n_before + n


@given(rows())
def test_each_kind_of_groups_has_every_token_once(made: Made) -> None:
    measured, known, n_ctx = made
    found = list(groups(measured, known, n_ctx))
    klds = [kld for part in measured.chunks for kld in part.kld]
    for kind in KINDS:
        of_kind = [group for group in found if group.kind == kind]
        assert sum(group.n_tokens for group in of_kind) == len(klds)
        assert len({group.name for group in of_kind}) == len(of_kind)
        assert sum(group.token_share for group in of_kind) == pytest.approx(1)
        assert sum(group.kld.value * group.n_tokens for group in of_kind) == pytest.approx(math.fsum(klds), abs=1e-9)
        if sum(klds) > 0:
            assert sum(group.kld_share or 0 for group in of_kind) == pytest.approx(1)
        else:
            assert {group.kld_share for group in of_kind} == {None}
    assert len([group for group in found if group.kind == "place"]) <= losses.N_PLACES


@given(rows())
def test_no_token_is_worse_than_the_worst(made: Made) -> None:
    measured, *_ = made
    klds = sorted((kld for part in measured.chunks for kld in part.kld), reverse=True)
    found = worst(measured)
    assert [place.kld for place in found] == klds[: losses.N_WORST]
    known = {(part.domain, part.number): part for part in measured.chunks}
    assert all(known[place.domain, place.number].kld[place.index] == place.kld for place in found)


def test_places_are_named_by_the_tokens_before() -> None:
    every = groups(row(chunk([0.1] * 255)), {("prose", 0): [WORDS] * 255}, 512)
    found = [group for group in every if group.kind == "place"]
    assert len(found) == 8
    assert (found[0].name, found[-1].name) == ("257 to 288", "481 to 511")
    assert [group.n_tokens for group in found] == [32, 32, 32, 32, 32, 32, 32, 31]


def test_what_is_no_number_is_the_worst_and_shares_are_unknown() -> None:
    broken = row(chunk([0.5, math.nan, 9.0, math.inf]))
    assert [place.index for place in worst(broken, 2)] == [1, 3]
    found = list(groups(broken, {("prose", 0): [WORDS] * 4}, 8))
    assert {group.kld_share for group in found} == {None}
