"""The table of `plan`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from slmkit.core import units
from slmkit.core.plan import ROOMY_SHARE, Context, ContextPlan, ModelPlan, TypePlan
from slmkit.report.table import Cell, Column, Table

IMATRIX_NOTE = "imatrix: the type is refused without an importance matrix; planned as `--imatrix auto` makes it"
FALLBACK_NOTE = (
    "fallback: the share of the parameters whose rows do not divide into the blocks of the type that llama.cpp wanted "
    "for them, so that they have another one, mostly a larger one"
)


def plan_table(plan: ModelPlan) -> Table:
    """A row for each type: size, reduction, bpw, fallback, speed, and for each context memory and whether it fits."""
    several = len({context.cache_type for context in plan.contexts}) > 1
    columns = [Column("variant", "type", right=False), Column("size_bytes", "size, bytes")]
    columns += [Column("reduction", "vs F16"), Column("bpw", "bpw"), Column("fallback_share", "fallback")]
    columns += [Column("needs_imatrix", "imatrix", right=False), Column("tg_estimate_tok_per_s", "~tg tok/s")]
    for context in plan.contexts:
        key = f"{context.n_ctx}_{context.cache_type.lower()}"
        name = f"{context.n_ctx:,}" + (f" {context.cache_type.lower()}" if several else "")
        columns += [Column(f"memory_{key}_bytes", f"RAM @ {name}"), Column(f"fits_{key}", "fits", right=False)]
    refused = any(row.refusal for row in plan.types)
    if refused:
        columns.append(Column("refusal", "why not", right=False))
    rows = []
    for row in plan.types:
        cells = [*_type_cells(row), *(cell for i in range(len(plan.contexts)) for cell in _context_cells(row, i))]
        if refused:
            cells.append(Cell(row.refusal or "", row.refusal))
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows), plan.ref, tuple(_notes(plan)))


def _type_cells(row: TypePlan) -> list[Cell]:
    size = units.DASH if row.size_bytes is None else f"{units.size(row.size_bytes)}  {row.size_bytes:,}"
    fallback = "none" if row.fallback_share == 0 else units.percent(row.fallback_share)
    return [
        Cell(row.variant, row.variant),
        Cell(size, row.size_bytes),
        Cell(_change(row.reduction), row.reduction),
        Cell(units.number(row.bpw), row.bpw),
        Cell(fallback, row.fallback_share),
        Cell("needed" if row.needs_imatrix else "", row.needs_imatrix),
        _rate(row.tg_estimate_tok_per_s),
    ]


def _context_cells(row: TypePlan, i: int) -> list[Cell]:
    way = row.contexts[i] if row.contexts else None
    if way is None or way.memory is None:
        return [Cell(units.DASH, None), Cell(units.DASH, None)]
    return [Cell(units.size(way.memory.total_bytes), way.memory.total_bytes), Cell(str(way.fits), way.fits)]


def _rate(tok_per_s: float | None) -> Cell:
    if tok_per_s is None:
        return Cell(units.DASH, None)
    return Cell(f"~{tok_per_s:.0f}" if tok_per_s >= 10 else f"~{tok_per_s:.1f}", tok_per_s)


def _change(reduction: float | None) -> str:
    if reduction is None or reduction == 0:
        return units.DASH if reduction is None else "baseline"
    return f"−{units.percent(reduction)}" if reduction > 0 else f"+{units.percent(-reduction)}"


def _notes(plan: ModelPlan) -> Iterator[str]:
    yield (
        f"{plan.architecture}, {units.count(plan.n_params)} parameters"
        + (f", trained for {plan.context_length:,} tokens" if plan.context_length else "")
        + "; nothing has been made or downloaded"
    )
    for i, context in enumerate(plan.contexts):
        yield from _context_notes(context, [row.contexts[i] for row in plan.types if row.contexts])
    yield (
        "RAM: weights, KV cache, compute and output buffers as the engine sums them up, without the process itself; "
        f"fits: yes up to {ROOMY_SHARE:.0%} of {units.size(plan.ram_bytes)}, tight up to all of it"
    )
    yield (
        "~tg: an estimate from above, for a short context: "
        f"{plan.bandwidth_bytes_per_s / 1e9:.1f} GB/s, as measured here now, over the bytes of weights that one token "
        "needs; `slmkit bench` measures it"
    )
    if any(row.fallback_share for row in plan.types):
        yield FALLBACK_NOTE
    if plan.imatrix:
        yield f"all quantized types as made with the importance matrix {plan.imatrix}"
    elif any(row.needs_imatrix for row in plan.types):
        yield IMATRIX_NOTE
    yield from plan.notes


def _context_notes(context: Context, ways: list[ContextPlan]) -> Iterator[str]:
    """What the context takes beside the weights: the same for all types, as far as is known."""
    name = f"{context.n_ctx:,} tokens, KV cache in {context.cache_type.lower()}"
    if known := [way.memory for way in ways if way.memory]:
        kv, compute = _range(m.kv_bytes for m in known), _range(m.compute_bytes for m in known)
        yield f"{name}: {kv}, compute buffer {compute}, output buffer {_range(m.output_bytes for m in known)}"
    for reason in dict.fromkeys(way.refusal for way in ways if way.refusal):
        yield f"{name}: {reason}"


def _range(sizes_bytes: Iterable[int]) -> str:
    every = set(sizes_bytes)
    return " to ".join(units.size(n) for n in sorted({min(every), max(every)}))
