"""What sensitivity looks like: a table with bars, and the costly groups as a recipe or as rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from slmkit.core import units
from slmkit.core.history import label_of
from slmkit.core.quality import reading
from slmkit.core.quant import FLOATS
from slmkit.core.sensitivity import COSTLY_FACTOR, HIGHER, Cost, Kind, Sensitivity, costly, sum_of
from slmkit.report.cells import size_cell
from slmkit.report.table import Cell, Column, Table

_BAR_CHARACTERS = 24
_CUTS: tuple[Kind, ...] = ("role", "layer")


def sensitivity_table(found: Sensitivity, *, bars: bool = True) -> Table:
    """Roles, the most costly first, then layers in their order, then whole files; `bars` for where no picture is."""
    columns = (
        Column("kind", "", right=False, shown=False),
        Column("group", "quantized alone", right=False),
        Column("n_tensors", "tensors"),
        Column("saved_bytes", "saved"),
        Column("kld", "KLD"),
        Column("kld_error", "KLD error", shown=False),
        Column("kld_share", "of the sum"),
        Column("kld_per_mib", "KLD per MiB"),
        Column("same_top", "same top"),
        Column("is_costly", "", right=False, shown=False),
        Column("bar", "", right=False, shown=bars),
    )
    marked = costly(found.costs)
    rows = [tuple(_cells(cost, found, cost in marked)) for cost in ordered(found)]
    return Table(columns, tuple(rows), f"sensitivity of {found.ref} to {found.type}", tuple(_notes(found, marked)))


def ordered(found: Sensitivity) -> list[Cost]:
    """As they are shown."""
    roles = sorted(found.of_kind("role"), key=lambda cost: -(cost.kld.value if cost.kld else 0.0))
    return [*roles, *found.of_kind("layer"), *found.of_kind("all"), *found.of_kind("kept")]


def sensitivity_record(found: Sensitivity) -> dict[str, Any]:
    """A run with its figures beside the raw values, as JSON."""
    sums = {kind: sum_of(found.costs, kind) for kind in _CUTS}
    return {**found.document(), "groups": sensitivity_table(found).records(), "sums": sums}


def recipe_text(found: Sensitivity, name: str) -> str:
    """A recipe that makes the type with its costly groups kept."""
    model, _, variant = found.ref.rpartition(":")
    ref = model if variant in FLOATS else found.ref
    lines = [*(f"# {line}" for line in _said(found)), f"name = {_quoted(name)}", "", "[[models]]"]
    lines += [f"ref = {_quoted(ref)}", f"types = [{_quoted(found.type)}]"]
    if found.rules:
        rules = ", ".join(_quoted(f"{pattern}={kind}") for pattern, kind in found.rules)
        lines.append(f"quantize = {{ rules = [{rules}] }}")
    return "\n".join(lines) + "\n"


def rules_text(found: Sensitivity) -> str:
    """The same as rules, one a line, for `slmkit quantize -t TYPE --rules FILE`."""
    rules = (f"{pattern}={kind}" for pattern, kind in found.rules)
    return "\n".join([*(f"# {line}" for line in _said(found)), *rules]) + "\n"


def _cells(cost: Cost, found: Sensitivity, is_costly: bool) -> Iterator[Cell]:
    kind, kld = cost.group.kind, cost.kld
    is_part = kind in _CUTS
    total = sum_of(found.costs, kind) if is_part else None
    share = kld.value / total if kld and total else None
    error = kld.error if kld else None
    yield Cell(kind, kind)
    yield Cell(f"{cost.group.name} *" if is_costly else cost.group.name, cost.group.name)
    yield Cell(str(len(cost.group.tensors)), len(cost.group.tensors))
    yield size_cell(cost.saved_bytes)
    value = units.number(kld.value if kld else None, 4) + ("" if error is None else f" ± {error:.4f}")
    yield Cell(value, kld.value if kld else None)
    yield Cell(units.number(error, 4), error)
    yield Cell(units.percent(share) if is_part else "", share)
    yield Cell(units.number(cost.kld_per_mib, 5), cost.kld_per_mib)
    yield Cell(units.percent(cost.same_top), cost.same_top)
    yield Cell("*" if is_costly else "", is_costly)
    bar = _bar(cost, found.of_kind(kind)) if is_part else ""
    yield Cell(bar, bar)


def _bar(cost: Cost, beside: Sequence[Cost]) -> str:
    """As long as its KLD beside the largest of its kind."""
    largest = max((other.kld.value for other in beside if other.kld), default=0.0)
    if not cost.kld or not largest > 0 or not cost.kld.value > 0:
        return ""
    return "█" * max(1, round(_BAR_CHARACTERS * cost.kld.value / largest))


def _notes(found: Sensitivity, marked: Sequence[Cost]) -> Iterator[str]:
    for cost in found.costs:
        if cost.failure:
            yield f"{cost.group.name}: {cost.failure}"
        elif cost.defect:
            yield f"{cost.group.name} alone breaks the file: {cost.defect}"
    together = found.together.kld
    roles, layers = (sum_of(found.costs, kind) for kind in _CUTS)
    if together and roles is not None and layers is not None:
        yield (
            f"roles add up to {roles:.4f}, layers and what is in none to {layers:.4f}; "
            f"all together cost {together.value:.4f}"
        )
    what = f"costs more than {COSTLY_FACTOR:g} times the mean for a byte saved"
    if any(cost.defect for cost in marked):
        what += ", or breaks the file"
    if marked:
        yield f"* {what}"
    else:
        yield f"no group {what}"
    yield (
        f"{reading(len(found.together.klds), found.spec.n_ctx, found.corpus_name, found.corpus)}, beside "
        f"{label_of(found.ref)}; each group is in {found.type}, all else as it was; ± is the standard error over the "
        "chunks"
    )


def _said(found: Sensitivity) -> Iterator[str]:
    """What stands at the top of what is written."""
    rule = f"costs more than {COSTLY_FACTOR:g} times the mean for a byte saved"
    if not found.rules:
        yield f"{found.type} of {found.ref}: nothing {rule} and can be {HIGHER}."
        return
    yield f"{found.type} of {found.ref}, but {HIGHER} for what {rule}:"
    yield f"{', '.join(cost.group.name for cost in costly(found.costs))}."
    if found.kept and found.kept.kld and found.together.kld:
        more = units.size(found.together.saved_bytes - found.kept.saved_bytes)
        yield f"Mean KLD {found.kept.kld.value:.4f} instead of {found.together.kld.value:.4f}, for {more} more,"
        yield f"on {units.several(len(found.kept.klds), 'chunk')} of {found.spec.n_ctx} tokens of {found.corpus_name}."


def _quoted(text: str) -> str:
    """A TOML string: a literal one, which knows no escapes, unless the text has what it cannot hold."""
    if "'" not in text and text.isprintable():
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'
