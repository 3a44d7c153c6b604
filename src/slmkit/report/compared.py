"""What a comparison says of quality: its columns, its notes, and which rows are marked."""

from __future__ import annotations

from collections.abc import Iterator

from slmkit.core import units
from slmkit.core.compare import CompareRow, Comparison, Judged
from slmkit.core.divergence import BROKEN, THRESHOLDS
from slmkit.core.history import label_of
from slmkit.core.quality import reading
from slmkit.report.cells import BASE, BEST, estimate_cells, estimate_columns
from slmkit.report.table import Cell, Column


def columns(comparison: Comparison) -> list[Column]:
    """None without a measurement of quality; the mark where a row has it."""
    if comparison.quality is None:
        return []
    found = [*estimate_columns("ppl", "PPL"), *estimate_columns("kld", "KLD")]
    found += [*estimate_columns("same_top", "same top"), Column("verdict", "verdict", right=False)]
    return [*found, *([Column("best", "best", right=False)] if _is_marked(comparison) else [])]


def cells(row: CompareRow, comparison: Comparison) -> Iterator[Cell]:
    """Under these columns."""
    if comparison.quality is None:
        return
    found = row.quality.scores if row.quality else None
    yield from estimate_cells(found.ppl if found else None, 2)
    yield from estimate_cells(found.kld if found else None, 4)
    yield from estimate_cells(found.same_top if found else None, 1, percent=True)
    word = _word(row.quality)
    yield Cell(word or units.DASH, word)
    if _is_marked(comparison):
        yield Cell(BEST if row.is_best else "", row.is_best)


def notes(comparison: Comparison) -> Iterator[str]:
    """On which text it was measured, and what the mark means."""
    if comparison.quality is None:
        return
    yield terms(comparison)
    if len({row.model for row in comparison.rows if row.quality}) > 1:
        yield "each model is held against its own base; perplexities of unlike tokenizers cannot be compared"
    if _is_marked(comparison):
        timed = "size, tg and KLD" if any(row.tg_tok_per_s is not None for row in comparison.rows) else "size and KLD"
        yield f"{BEST}: no other file of the model is at least as good in {timed} and better in one of them"


def terms(comparison: Comparison) -> str:
    """`PPL and KLD: 40 chunks of 512 tokens of prose (0123456789ab), beside m-F16; ± is the standard error`."""
    quality = comparison.quality
    assert quality is not None
    bases = dict.fromkeys(label_of(row.quality.base) for row in comparison.rows if row.quality and row.quality.base)
    what = "PPL and KLD" if bases else "PPL"
    return (
        f"{what}: {reading(quality.n_chunks, quality.n_ctx, quality.corpus_name, quality.corpus)}"
        f"{', beside ' + ', '.join(bases) if bases else ''}; ± is the standard error"
    )


def thresholds() -> str:
    """The words of the verdict, and up to which mean KLD they hold."""
    return ", ".join(f"{word} up to {limit:g}" for word, limit in THRESHOLDS) + f", {BROKEN} above"


def _is_marked(comparison: Comparison) -> bool:
    return any(row.is_best for row in comparison.rows)


def _word(quality: Judged | None) -> str | None:
    if quality is None:
        return None
    return quality.verdict or (BASE if quality.is_base else None)
