"""What the resident memory of each row consists of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slmkit.core import units
from slmkit.core.bench import BenchRun, BenchSpec, Memory
from slmkit.errors import UsageError
from slmkit.report.plots.figure import COLOURS, check_plot, figure, save
from slmkit.report.settings import Entries

KINDS = ("weights, file-backed", "weights", "repacked", "KV cache", "compute", "rest", "compute and rest", "GPU")


def memory_stack(run: BenchRun, path: Path) -> None:
    """A bar for each row, of its memory after the last test: measured, and divided by the engine's own sums.

    Rows that differ only in threads have one bar, that of the largest.

    Raises `UsageError` for another suffix or when no memory is known, `DependencyMissingError` without matplotlib.
    """
    check_plot(path)
    save(draw(Entries.of(run)), path)


def draw(entries: Entries, width: float = 8) -> Any:
    """The figure."""
    largest: dict[str, dict[str, int]] = {}
    for entry in entries.entries:
        memory, label = entry.row.memory, entries.label(entry, without="n_threads")
        if memory and memory.steady_rss is not None:
            found = kinds(memory, entry.row.spec)
            largest[label] = max(largest.get(label, {}), found, key=lambda parts: sum(parts.values()))
    bars = list(largest.items())
    if not bars:
        raise UsageError("nothing to draw: of no row is it known what its memory consists of")
    drawn, (axes,) = figure(width, 1.8 + 0.34 * len(bars))
    lefts = [0.0] * len(bars)
    for kind, colour in zip(KINDS, COLOURS, strict=True):
        sizes = [parts.get(kind, 0) / 2**20 for _, parts in bars]
        if any(sizes):
            axes.barh(range(len(bars)), sizes, left=lefts, label=kind, height=0.7, color=colour)
            lefts = [left + size for left, size in zip(lefts, sizes, strict=True)]
    for y, (left, (_, parts)) in enumerate(zip(lefts, bars, strict=True)):
        total = units.size(sum(parts.values()))
        axes.annotate(total, (left, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(lefts))
    axes.set_xlabel("MiB, after the last test")
    axes.grid(visible=False, axis="y")
    drawn.suptitle(f"{entries.model + ': ' if entries.model else ''}memory by kind", fontsize=11)
    drawn.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return drawn


def kinds(memory: Memory, spec: BenchSpec) -> dict[str, int]:
    """Bytes of each kind, together the steady RSS (and what is on a GPU).

    The engine says what it has asked for, the system what is resident: a buffer that was not touched yet is not. So a
    kind is never more than what is left of the measured memory; and where the compute buffer, of which a short prompt
    touches a part, is larger than all that is left, nobody knows how much of that is the rest.
    """
    file_backed, left = memory.file_backed or 0, memory.anonymous or 0
    parts = {KINDS[0]: file_backed}
    if memory.vram:  # the engine's sums are of both, and cannot be divided
        return parts | {"rest": left, "GPU": memory.vram}
    anonymous = ((KINDS[1], None if spec.mmap else memory.weights), ("repacked", memory.repacked))
    for kind, size in (*anonymous, ("KV cache", memory.kv)):
        parts[kind] = min(size or 0, left)
        left -= parts[kind]
    compute = memory.compute or 0
    return parts | ({"compute": compute, "rest": left - compute} if compute < left else {"compute and rest": left})
