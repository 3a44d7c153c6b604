"""The table of `pick`: what was tried, with size, speed, memory and quality, and the choice marked."""

from __future__ import annotations

from collections.abc import Iterator

from slmkit.core import stats, units
from slmkit.core.pick import Pick, PickRow
from slmkit.core.stats import Estimate
from slmkit.report.bench import trouble
from slmkit.report.cells import BASE, BEST, FAILED, size_cell, time_cell
from slmkit.report.choice import caveats, why
from slmkit.report.table import Cell, Column, Table

_COLUMNS = (
    Column("is_best", "", right=False),
    Column("variant", "type", right=False),
    Column("ref", "ref", shown=False),
    Column("size_bytes", "size"),
    Column("bpw", "bpw", shown=False),
    Column("tg_tok_per_s", "tg tok/s"),
    Column("pp_tok_per_s", "pp tok/s"),
    Column("ttft_ms", "TTFT"),
    Column("peak_rss_bytes", "peak RSS"),
    Column("memory_bytes", "RAM", shown=False),
    Column("kld", "mean KLD"),
    Column("kld_error", "KLD error", shown=False),
    Column("kld_p99", "KLD p99"),
    Column("same_top", "same top"),
    Column("ppl", "PPL", shown=False),
    Column("ppl_change", "PPL change"),
    Column("verdict", "verdict", right=False),
    Column("state", "state", right=False),
    Column("reason", "reason", shown=False),
)


def pick_table(found: Pick) -> Table:
    """One row for each file, the float file first."""
    reasons = {loser.candidate.ref: loser.reason for loser in found.choice.losers}
    best = found.choice.best.ref if found.choice.best else None
    rows = tuple(tuple(_cells(row, best, reasons)) for row in found.rows)
    return Table(_COLUMNS, rows, found.model, tuple(_notes(found)))


def _cells(row: PickRow, best: str | None, reasons: dict[str, str]) -> Iterator[Cell]:
    c, bench, scores = row.candidate, row.bench, row.scores
    is_best = c.ref == best and not row.is_base
    memory = bench.memory if bench else None
    yield Cell(BEST if is_best else "", is_best)
    yield Cell(c.name, c.name)
    yield Cell(c.ref, c.ref)
    yield size_cell(c.size_bytes)
    yield Cell(units.number(c.bpw), c.bpw)
    yield _rate(bench.tg_rates if bench else [])
    yield _rate(bench.pp_rates if bench else [])
    yield time_cell(bench.ttft_median_ns if bench else None)
    yield size_cell(memory.peak_rss if memory else None)
    yield size_cell(c.memory_bytes)
    yield _estimate(scores.kld if scores else None, 4)
    yield Cell(units.number(c.kld_error, 4), c.kld_error)
    p99 = scores.kld_percentiles[-1] if scores and scores.kld_percentiles else None
    yield Cell(units.number(p99, 4), p99)
    top = scores.same_top.value if scores and scores.same_top else None
    yield Cell(units.percent(top), top)
    yield _estimate(scores.ppl if scores else None, 2)
    change = scores.ppl_ratio.value - 1 if scores and scores.ppl_ratio else None
    yield Cell(units.DASH if change is None else f"{change * 100:+.1f} %".replace("-", "−"), change)
    word = FAILED if c.failure else c.verdict or (BASE if c.kld == 0 else None)
    yield Cell(word or units.DASH, word)
    yield Cell(c.state or units.DASH, c.state or None)
    yield Cell(reasons.get(c.ref, ""), reasons.get(c.ref))


def _notes(found: Pick) -> Iterator[str]:
    yield f"{BEST} {why(found.choice)}" if found.choice.best else why(found.choice)
    yield from caveats(found.choice)
    for row in found.rows:
        if row.candidate.failure:
            yield f"{row.candidate.name}: {row.candidate.failure}"
        elif row.bench:
            yield from trouble(row.bench, row.candidate.name)
    for each in found.left_out:
        yield f"not tried: {each.name}: {each.reason}"
    yield from found.notes
    bench = next((row.bench for row in found.rows if row.bench), None)
    tests = f"{bench.spec.tg}, {bench.spec.pp}; " if bench else ""
    chunks = f"{units.several(found.n_chunks, 'chunk')} of {found.corpus_name}" if found.n_chunks else found.corpus_name
    yield f"{tests}KLD, same top and PPL on {chunks}, beside the float file"
    if found.removed:
        kept = [each.ref for each in found.removed if each.is_recipe_kept]
        again = f"; `slmkit get {kept[0]}` makes one again" if kept else ""
        names = ", ".join(each.ref.rpartition(":")[2] for each in found.removed)
        yield f"removed: {names}: {units.size(found.freed_bytes)}{again}"


def _rate(rates: list[float]) -> Cell:
    mean, deviation = stats.mean(rates), stats.stdev(rates)
    return Cell(units.number(mean, 1) + (f" ± {deviation:.1f}" if deviation is not None else ""), mean)


def _estimate(estimate: Estimate | None, digits: int) -> Cell:
    value = estimate.value if estimate else None
    return Cell(units.number(value, digits), value)
