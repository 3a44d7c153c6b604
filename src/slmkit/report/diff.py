"""The tables of `diff`: by class of tensors, or every tensor."""

from __future__ import annotations

from collections.abc import Sequence

from slmkit.core import units
from slmkit.core.diff import Diff, KindDiff, Side, TensorDiff
from slmkit.report.table import Cell, Column, Table


def kinds_table(diff: Diff) -> Table:
    """One row for each class of tensors, the largest error first."""
    columns = (
        Column("kind", "tensors", right=False),
        Column("n_tensors", "n"),
        Column("n_same", "same"),
        Column("a_types", "A", right=False),
        Column("b_types", "B", right=False),
        Column("a_bytes", "size A"),
        Column("b_bytes", "size B"),
        Column("error", "relative RMS error"),
        Column("worst", "worst", right=False),
    )
    return Table(columns, tuple(map(_kind, diff.kinds)), "diff", _notes(diff.tensors))


def tensors_table(diff: Diff) -> Table:
    """One row for each tensor that is not the same, the largest error first; those without a number before them."""
    columns = (
        Column("name", "tensor", right=False),
        Column("a_type", "A", right=False),
        Column("b_type", "B", right=False),
        Column("a_shape", "shape A", right=False),
        Column("b_shape", "shape B", right=False),
        Column("a_bytes", "size A"),
        Column("b_bytes", "size B"),
        Column("error", "relative RMS error"),
        Column("note", "note", right=False),
    )
    differing = sorted(
        (tensor for tensor in diff.tensors if not tensor.is_same),
        key=lambda tensor: (tensor.error is not None, -(tensor.error or 0)),
    )
    return Table(columns, tuple(map(_tensor, differing)), "diff", _notes(differing))


def error_text(error: float | None) -> str:
    """`3.63 %`, `0.0012 %`: two or more digits, whatever its size."""
    return units.DASH if error is None else "0" if error == 0 else f"{error * 100:.3g} %"


def _kind(kind: KindDiff) -> tuple[Cell, ...]:
    worst = kind.worst if len(kind.tensors) > 1 and kind.error else None
    return (
        Cell(kind.kind, kind.kind),
        Cell(str(len(kind.tensors)), len(kind.tensors)),
        Cell(str(kind.n_same), kind.n_same),
        *(Cell(" ".join(kind.types(of)) or units.DASH, list(kind.types(of))) for of in ("a", "b")),
        *(Cell(units.size(kind.size_bytes(of)), kind.size_bytes(of)) for of in ("a", "b")),
        Cell(error_text(kind.error), kind.error),
        Cell(f"{worst.name} {error_text(worst.error)}" if worst else "", worst and worst.name),
    )


def _tensor(tensor: TensorDiff) -> tuple[Cell, ...]:
    sides = (tensor.a, tensor.b)
    return (
        Cell(tensor.name, tensor.name),
        *(Cell(side.type if side else units.DASH, side and side.type) for side in sides),
        *(Cell(_shape(side), side and list(side.shape)) for side in sides),
        *(Cell(units.size(size), size) for size in (side.size_bytes if side else None for side in sides)),
        Cell(error_text(tensor.error), tensor.error),
        Cell(tensor.note, tensor.note or None),
    )


def _shape(side: Side | None) -> str:
    return " x ".join(map(str, side.shape)) if side else units.DASH


def _notes(tensors: Sequence[TensorDiff]) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for tensor in tensors:
        if tensor.note:
            counts[tensor.note] = counts.get(tensor.note, 0) + 1
    return tuple(f"{units.several(n, 'tensor')}: {note}" for note, n in counts.items())
