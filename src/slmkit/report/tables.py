"""Which columns each result has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slmkit.core import stats, units
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow
from slmkit.core.compare import CompareRow, Comparison
from slmkit.core.imatrix import TensorStatistics
from slmkit.report import compared
from slmkit.report.bench import trouble
from slmkit.report.cells import size_cell, time_cell
from slmkit.report.table import Cell, Column, Table


def compare_table(comparison: Comparison) -> Table:
    """Size, reduction, bpw, speed, memory and quality: the table that the whole program is for."""
    one_model = len({row.model for row in comparison.rows}) == 1
    spec = comparison.spec
    pp, tg = (spec.pp, spec.tg) if spec else ("pp", "tg")
    columns = [Column("variant", "type", right=False) if one_model else Column("ref", "model", right=False)]
    columns += [Column("size_bytes", "size"), Column("reduction", "vs F16"), Column("bpw", "bpw")]
    columns += [*_speed_columns(pp, tg), *_MEMORY, *compared.columns(comparison)]
    rows = tuple((*_compare_cells(row, one_model), *compared.cells(row, comparison)) for row in comparison.rows)
    title = comparison.rows[0].model if one_model else "comparison"
    named = ((row.bench, row.variant if one_model else row.ref) for row in comparison.rows)
    notes = (note for bench, name in named if bench for note in trouble(bench, name))
    return Table(tuple(columns), rows, title, (*comparison.notes, *notes, *compared.notes(comparison)))


def imatrix_table(rows: Sequence[TensorStatistics]) -> Table:
    """The columns of `llama-imatrix --show-statistics`."""
    columns = (
        Column("layer", "layer"),
        Column("tensor", "tensor", right=False),
        Column("total", "Σ(act²)"),
        Column("minimum", "min"),
        Column("maximum", "max"),
        Column("mean", "μ"),
        Column("deviation", "σ"),
        Column("active", "active"),
        Column("n_columns", "N"),
        Column("entropy_bits", "entropy"),
        Column("entropy_share", "E (norm)"),
        Column("z_share", "ZD"),
        Column("cosine", "cos sim"),
    )
    cells = tuple(
        (
            Cell("-" if row.layer is None else str(row.layer), row.layer),
            Cell(row.tensor, row.tensor),
            _number(row.total, 2),
            _number(row.minimum, 4),
            _number(row.maximum, 4),
            _number(row.mean, 2),
            _number(row.deviation, 2),
            Cell(f"{row.active:.2%}", row.active),
            Cell(str(row.n_columns), row.n_columns),
            _number(row.entropy, 4),
            Cell(f"{row.entropy_share:.2%}", row.entropy_share),
            Cell(f"{row.z_share:.2%}", row.z_share),
            _number(row.cosine, 4),
        )
        for row in rows
    )
    return Table(columns, cells, "importance")


def artifacts_table(artifacts: Sequence[Artifact], dropped: Sequence[Artifact] = ()) -> Table:
    """What `list` prints; `dropped` are those of which only the recipes are here."""
    columns = (
        Column("model", "model", right=False),
        Column("variant", "type", right=False),
        Column("size_bytes", "size"),
        Column("n_params", "params"),
        Column("bpw", "bpw"),
        Column("made_by", "made by", right=False),
        Column("created", "created", right=False),
        *((Column("here", "files", right=False),) if dropped else ()),
    )
    everything = sorted((*artifacts, *dropped), key=lambda a: (a.model.lower(), a.variant is not None, a.variant or ""))
    rows = tuple(
        (
            Cell(a.model, a.model),
            Cell(a.variant or "checkpoint", a.variant),
            size_cell(a.size_bytes),
            Cell(units.count(a.facts.get("n_params")), a.facts.get("n_params")),
            _number(a.facts.get("bpw"), 2),
            Cell(_made_by(a), a.provenance.action),
            Cell(a.created[:16].replace("T", " "), a.created),
            *((Cell("dropped" if a in dropped else "here", a not in dropped),) if dropped else ()),
        )
        for a in everything
    )
    total = sum(a.size_bytes for a in artifacts if a.owned)
    return Table(columns, rows, "models", (f"{units.size(total)} made here",) if everything else ())


def _made_by(artifact: Artifact) -> str:
    requantized = artifact.facts.get("requantized_from")
    return f"{artifact.provenance.action} from {requantized}" if requantized else artifact.provenance.action


@dataclass(frozen=True)
class Quantized:
    """One row of `quantize`'s report."""

    ref: str
    variant: str
    before_bytes: int
    after_bytes: int
    bpw: float | None
    on_label_share: float | None
    fallback_share: float | None
    fresh: bool


def quantize_table(rows: Sequence[Quantized], notes: Sequence[str] = ()) -> Table:
    """Before, after, reduction, true bpw, and the shares of the parameters that have the type on the label, and that
    fell back to another.
    """
    columns = (
        Column("ref", "model", right=False),
        Column("before_bytes", "before"),
        Column("after_bytes", "after"),
        Column("reduction", "reduction"),
        Column("bpw", "bpw"),
        Column("on_label_share", "on label"),
        Column("fallback_share", "fell back"),
        Column("fresh", "", right=False),
    )
    cells = tuple(
        (
            Cell(row.ref, row.ref),
            size_cell(row.before_bytes),
            size_cell(row.after_bytes),
            _share(1 - row.after_bytes / row.before_bytes),
            _number(row.bpw, 2),
            _share(row.on_label_share),
            Cell("none", 0.0) if row.fallback_share == 0 else _share(row.fallback_share),
            Cell("" if row.fresh else "there already", row.fresh),
        )
        for row in rows
    )
    return Table(columns, cells, "quantize", tuple(notes))


@dataclass(frozen=True)
class Freeable:
    """One row of what `gc` would free: files of one kind."""

    what: str
    n_files: int
    size_bytes: int


def freeable_table(rows: Sequence[Freeable]) -> Table:
    """What `gc` shows before it deletes."""
    columns = (Column("what", "what", right=False), Column("n_files", "number"), Column("size_bytes", "size"))
    cells = tuple(
        (Cell(row.what, row.what), Cell(str(row.n_files), row.n_files), size_cell(row.size_bytes)) for row in rows
    )
    return Table(columns, cells, "gc")


def rebuildable_table(rows: Sequence[tuple[Artifact, str | None]]) -> Table:
    """What `gc --rebuildable` shows before it drops files: each with the reason why it must stay, if there is one."""
    columns = (Column("ref", "model", right=False), Column("size_bytes", "size"), Column("why_not", "", right=False))
    cells = tuple(
        (Cell(a.ref, a.ref), size_cell(a.size_bytes), Cell(f"stays: {why}" if why else "can be made again", why))
        for a, why in rows
    )
    return Table(columns, cells, "gc")


def _speed_columns(pp: str, tg: str) -> list[Column]:
    return [Column("pp_tok_per_s", f"{pp} tok/s"), Column("tg_tok_per_s", f"{tg} tok/s"), Column("ttft_ms", "TTFT")]


_MEMORY = [Column("peak_rss_bytes", "peak RSS")]


def _speed_cells(row: BenchRow | None) -> list[Cell]:
    if row is None:
        return [Cell(units.DASH, None)] * 3
    return [_rate(row.pp_rates), _rate(row.tg_rates), time_cell(row.ttft_median_ns)]


def _compare_cells(row: CompareRow, one_model: bool) -> tuple[Cell, ...]:
    name = Cell(row.variant, row.variant) if one_model else Cell(row.ref, row.ref)
    memory = row.bench.memory if row.bench else None
    reduction = Cell("baseline", 0.0) if row.is_baseline else _share(row.reduction, sign=True)
    cells = (name, size_cell(row.size_bytes), reduction, _number(row.bpw, 2))
    return (*cells, *_speed_cells(row.bench), size_cell(memory.peak_rss if memory else None))


def _rate(rates: Sequence[float]) -> Cell:
    mean, deviation = stats.mean(rates), stats.stdev(rates)
    text = units.number(mean) + (f" ± {deviation:.2f}" if deviation is not None else "")
    return Cell(text, mean)


def _share(share: float | None, *, sign: bool = False) -> Cell:
    text = units.percent(share)
    if sign and share is not None:
        text = f"−{text}" if share >= 0 else f"+{units.percent(-share)}"
    return Cell(text, share)


def _number(value: float | None, digits: int) -> Cell:
    return Cell(units.number(value, digits), value)
