"""Which columns a quality run has: perplexity, KL divergence and what they come to, over all and by domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from slmkit.core import units
from slmkit.core.divergence import PERCENTILES, Scores, scores, verdict
from slmkit.core.history import label_of
from slmkit.core.quality import QualityRow, QualityRun, reading
from slmkit.report.asked import behaviour_figures, behaviour_table, task_figures, tasks_table
from slmkit.report.cells import BASE, FAILED, estimate_cell, estimate_cells, estimate_columns, size_cell
from slmkit.report.damage import where_lost, worst_text
from slmkit.report.table import Cell, Column, Table, markdown


def quality_table(runs: Sequence[QualityRun], *, wide: bool = False) -> Table:
    """One row for each file, each beside its own base."""
    columns = (
        Column("ref", "model", right=False),
        Column("size_bytes", "size"),
        Column("bpw", "bpw"),
        *estimate_columns("ppl", "PPL"),
        *estimate_columns("ppl_ratio", "PPL / base's", shown=wide),
        *estimate_columns("kld", "KLD"),
        *(Column(f"kld_p{q}", _percentile_title(q), shown=wide or q != 50) for q in PERCENTILES),
        Column("kld_max", "max", shown=wide),
        *estimate_columns("same_top", "same top"),
        *estimate_columns("rms_dp", "RMS Δp", shown=wide),
        Column("n_tokens", "tokens", shown=wide),
        Column("verdict", "verdict", right=False),
    )
    rows = tuple(tuple(_cells(row, run.base_row)) for run in runs for row in _by_size(run.rows))
    return Table(columns, rows, "quality", tuple(note for run in runs for note in _notes(run)))


def _by_size(rows: Sequence[QualityRow]) -> list[QualityRow]:
    """The base, then the largest first: so one sees what fewer bits cost."""
    return sorted(rows, key=lambda row: (not row.is_base, -row.size_bytes))


def domains_table(runs: Sequence[QualityRun]) -> Table | None:
    """The mean KLD of each domain, or the perplexity where there is no base; `None` with a single domain."""
    domains = list(dict.fromkeys(domain for run in runs for row in run.rows for domain in row.domains))
    if len(domains) < 2:
        return None
    with_base = any(run.base for run in runs)
    key = "kld" if with_base else "ppl"
    title = f"mean {key.upper()} by domain"
    columns = (Column("ref", title, right=False), *(Column(f"{key}_{name}", name) for name in domains))
    rows = []
    for run in runs:
        for row in _by_size(run.rows):
            if row.chunks and not (with_base and row.is_base):
                found = [scores(row, run.base_row, domain) for domain in domains]
                estimates = [getattr(score, key) if score else None for score in found]
                rows.append((Cell(row.ref, row.ref), *(estimate_cell(e, 2 if key == "ppl" else 4) for e in estimates)))
    return Table(columns, tuple(rows), title)


def further_tables(runs: Sequence[QualityRun]) -> list[Table]:
    """What stands below it, of what was measured: by domain, answers to questions and prompts, where the loss sits."""
    found = (domains_table(runs), tasks_table(runs), behaviour_table(runs))
    return [*(table for table in found if table), *where_lost(runs)]


def quality_markdown(runs: Sequence[QualityRun]) -> str:
    """All tables below each other, and the worst contexts."""
    tables = (markdown(table) for table in (quality_table(runs), *further_tables(runs)))
    worst = (f"```\n{worst_text(damage)}\n```\n" for run in runs for damage in run.damages)
    return "\n".join([*tables, *worst])


def quality_record(run: QualityRun) -> dict[str, Any]:
    """A run with its figures instead of the raw scores, as JSON: `domains` has the same of each domain.

    What was asked besides has its figures, too.
    """
    document = run.document()
    base = run.base_row
    for written, row in zip(document["rows"], run.rows, strict=True):
        found = scores(row, base)
        del written["chunks"]
        written |= {
            "verdict": _verdict(row, found),
            "scores": _plain(found),
            "domains": {domain: _plain(scores(row, base, domain)) for domain in row.domains},
        }
    for written, result in zip(document.get("tasks", ()), run.tasks, strict=True):
        written |= task_figures(result, run)
    if run.behaviour:
        document["behaviour"]["figures"] = behaviour_figures(run.behaviour)
    return document


def _cells(row: QualityRow, base: QualityRow | None) -> Iterator[Cell]:
    found = scores(row, base)
    yield Cell(row.ref, row.ref)
    yield size_cell(row.size_bytes)
    yield Cell(units.number(row.bpw), row.bpw)
    yield from estimate_cells(found.ppl if found else None, 2)
    yield from estimate_cells(found.ppl_ratio if found else None, 4)
    yield from estimate_cells(found.kld if found else None, 4)
    percentiles = found.kld_percentiles if found and found.kld_percentiles else (None,) * len(PERCENTILES)
    for value in percentiles:
        yield Cell(units.number(value, 4), value)
    yield Cell(units.number(found.kld_max if found else None, 3), found.kld_max if found else None)
    yield from estimate_cells(found.same_top if found else None, 1, percent=True)
    yield from estimate_cells(found.rms_dp if found else None, 1, percent=True)
    yield Cell(str(row.n_tokens), row.n_tokens)
    word = _verdict(row, found)
    yield Cell(word or units.DASH, word)


def _verdict(row: QualityRow, found: Scores | None) -> str | None:
    if row.failure:
        return FAILED
    return verdict(row, found) or (BASE if row.is_base else None)


def _notes(run: QualityRun) -> Iterator[str]:
    for row in run.rows:
        n_read = units.several(len(row.chunks), "chunk")
        if row.failure:
            yield f"{label_of(row.ref)}: {row.failure.message}"
        elif row.defect:
            yield f"{label_of(row.ref)} is broken: {row.defect}"
        elif row.decided is not None:
            answer = "keeps" if row.decided else "does not keep"
            yield f"{label_of(row.ref)} {answer} the limit: decided after {n_read}"
        elif run.spec.until_decided and not row.is_base:
            yield f"{label_of(row.ref)}: not decided after {n_read}: {_all_read(run, len(row.chunks))}"
    if run.base_precision != "exact":
        yield "beside a saved base, which takes the unlikely tokens for one: KLD is some 2 % less than beside the file"
    n_chunks = max((len(row.chunks) for row in run.rows), default=0)
    if run.base_precision != "exact" and n_chunks < (run.spec.n_chunks or 0):
        yield f"the saved base has no more than {units.several(n_chunks, 'chunk')}, not {run.spec.n_chunks}"
    against = f", beside {label_of(run.base_row.ref)}" if run.base_row else ""
    yield (
        f"{reading(n_chunks, run.spec.n_ctx, run.corpus_name, run.corpus)}{against}; "
        f"± is the standard error; peak RSS {units.size(run.peak_rss)}"
    )


def _all_read(run: QualityRun, n_chunks: int) -> str:
    return "as many as were asked for" if n_chunks == run.spec.n_chunks else "the whole text was read"


def _percentile_title(q: int) -> str:
    return "median" if q == 50 else f"p{q}"


def _plain(found: Scores | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
