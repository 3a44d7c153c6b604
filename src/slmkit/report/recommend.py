"""The table of `recommend`: what may be taken, what is known of it, and why it was not chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from slmkit.core import units
from slmkit.core.recommend import BOUND, ESTIMATED, OTHER_TEXT, Candidate, Recommendation
from slmkit.report.cells import BEST, size_cell
from slmkit.report.choice import kld, rate, sentences
from slmkit.report.table import Cell, Column, Table


def recommend_table(found: Recommendation) -> Table:
    """The choice first, then the runners-up, each with the one reason why it was not chosen."""
    n_ctx = found.choice.wish.n_ctx
    columns = (
        Column("is_best", "", right=False),
        Column("variant", "type", right=False),
        Column("ref", "ref", shown=False),
        Column("size_bytes", "size"),
        Column("bpw", "bpw"),
        Column("memory_bytes", f"RAM @ {n_ctx:,}" if n_ctx else "RAM"),
        Column("tg_tok_per_s", "tg tok/s"),
        Column("speed", "speed", shown=False),
        Column("kld", "mean KLD"),
        Column("quality", "quality", shown=False),
        Column("verdict", "verdict", right=False),
        Column("here", "file", right=False, shown=False),
        Column("reason", "why not", right=False),
    )
    rows = [] if found.choice.best is None else [tuple(_cells(found.choice.best, ""))]
    rows += [tuple(_cells(loser.candidate, loser.reason)) for loser in found.choice.losers]
    return Table(columns, tuple(rows), found.model, tuple(_notes(found)))


_INSTEAD = {ESTIMATED: "estimate", OTHER_TEXT: "on other text"}
"""Of a verdict."""


def _cells(c: Candidate, reason: str) -> Iterator[Cell]:
    yield Cell("" if reason else BEST, not reason)
    yield Cell(c.name, c.name)
    yield Cell(c.ref, c.ref)
    yield size_cell(c.size_bytes)
    yield Cell(units.number(c.bpw), c.bpw)
    yield size_cell(c.memory_bytes)
    yield Cell(rate(c), c.tok_per_s)
    yield Cell(c.speed, c.speed if c.tok_per_s is not None else None)
    yield Cell(kld(c), c.kld)
    yield Cell(c.quality, c.quality if c.kld is not None else None)
    word = c.verdict or (_INSTEAD.get(c.quality) if c.kld is not None else None)
    yield Cell(word or units.DASH, c.verdict)
    yield Cell("here" if c.here else "not made", c.here)
    yield Cell(reason, reason or None)


def _notes(found: Recommendation) -> Iterator[str]:
    yield " ".join(sentences(found.choice))
    everything = [
        *([found.choice.best] if found.choice.best else []),
        *(each.candidate for each in found.choice.losers),
    ]
    if found.measured:
        yield f"measured now: {', '.join(found.measured)}"
    if found.open:
        yield f"the time was over before these were measured: {', '.join(found.open)}"
    if any(c.is_proven for c in everything) and found.corpus_name:
        yield f"KLD on {found.corpus_name}"
    if estimates := list(_estimates(everything)):
        yield f"~: an estimate: {', '.join(estimates)}"
    yield from found.notes


def _estimates(everything: Sequence[Candidate]) -> Iterator[str]:
    """By what they are made."""
    ways = {ESTIMATED: "by bits per weight", OTHER_TEXT: "as measured on other text"}
    if found := [way for source, way in ways.items() if any(c.quality == source for c in everything)]:
        yield f"of quality {' or '.join(found)}"
    yield from dict.fromkeys(f"of speed from {c.speed_from}" for c in everything if c.speed_from)
    if any(c.speed == ESTIMATED and not c.speed_from for c in everything):
        yield "of speed by the bandwidth of the memory"
    if any(c.speed == BOUND for c in everything):
        yield "of speed no more than what the bandwidth of the memory allows"
