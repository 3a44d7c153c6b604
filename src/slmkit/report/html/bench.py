"""The page of a bench or a comparison: table, pictures, raw samples, machine, and how it was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from slmkit.core.bench import BenchRun
from slmkit.core.compare import Comparison
from slmkit.core.versus import Versus
from slmkit.report.bench import bench_notes, bench_table, span
from slmkit.report.html.machine import machine
from slmkit.report.html.markup import Markup, tag
from slmkit.report.html.page import notes, page, sortable
from slmkit.report.html.pictures import WIDTH, pictures
from slmkit.report.html.quality import DEFINITIONS as OF_QUALITY
from slmkit.report.html.samples import samples
from slmkit.report.plots import memory, scaling, size_kld, size_speed
from slmkit.report.settings import Entries
from slmkit.report.tables import compare_table

_DEFINITIONS = (
    "pp: tokens of a prompt decoded in batches; tg: tokens generated one at a time; the clock runs around the engine's "
    "decoding alone, as in llama-bench.",
    "TTFT: from a text to the first token of its answer as text, without loading; ITL: from one token to the next.",
    "load: until the weights are there, from the page cache or from the disk, as it comes.",
    "peak RSS: the kernel's high-water mark of the measuring process. File-backed memory is mapped weights, which the "
    "kernel may drop and read again; anonymous memory is what must fit.",
)


def bench_page(*runs: BenchRun, against: Sequence[Versus] = ()) -> str:
    """One run, or several side by side; of one also what its models are beside another."""
    entries = Entries.of(*runs)
    return page(
        f"bench: {entries.model}" if entries.model else "bench",
        tag("p", _when(runs)),
        sortable(bench_table(*runs)),
        tag("ul", *(tag("li", note) for note in bench_notes(entries, against))),
        tag("details", tag("summary", "All columns"), sortable(bench_table(*runs, wide=True))),
        pictures(_drawn(entries, entries)),
        *_below(entries, runs, _DEFINITIONS),
    )


def compare_page(comparison: Comparison, title: str = "") -> str:
    """A comparison, with what its measurements tell."""
    table = compare_table(comparison)
    measured = tuple(row.bench for row in comparison.rows if row.bench)
    run = BenchRun("", comparison.host, comparison.build, measured)
    entries = Entries.of(run)
    draw = _drawn(entries, comparison) if measured else []
    draw += [partial(size_kld.draw, comparison, WIDTH)] if size_kld.is_known(comparison) else []
    definitions = (*(_DEFINITIONS if measured else ()), *(OF_QUALITY if comparison.quality else ()))
    return page(
        title or table.title,
        sortable(table),
        notes(table),
        *(tag("p", "missing: ", tag("code", command)) for command in comparison.missing),
        *([tag("p", f"Measured with {entries.common()}.")] if measured else []),
        *([pictures(draw)] if draw else []),
        *(_below(entries, (run,), definitions) if definitions else ()),
    )


def _drawn(entries: Entries, source: Entries | Comparison) -> list[Callable[[], Any]]:
    """Those that have something to show."""
    rows = [entry.row for entry in entries.entries]
    scales = [key for key in ("n_threads", "depth") if scaling.varies(entries, key)]
    found: list[Callable[[], Any]] = [partial(scaling.draw, entries, key, WIDTH) for key in scales]
    if not scales and len({row.size_bytes for row in rows if row.tg_ns or row.pp_ns}) > 1:
        found.append(partial(size_speed.draw, source, WIDTH))
    if any(row.memory and row.memory.steady_rss is not None for row in rows):
        found.append(partial(memory.draw, entries, WIDTH))
    return found


def _below(entries: Entries, runs: Sequence[BenchRun], definitions: Sequence[str]) -> Iterator[Markup]:
    if any(entry.row.blocks for entry in entries.entries):
        yield tag("h2", "Raw samples")
        yield samples(entries)
    yield tag("h2", "How it was measured")
    yield tag("ul", *(tag("li", text) for text in (*_method(entries), *definitions)))
    for run in runs:
        yield machine(run.host, run.build, run.machine)


def _method(entries: Entries) -> Iterator[str]:
    """What the blocks tell of it."""
    counted = [block for entry in entries.entries for block in entry.row.counted]
    if not counted:
        return
    n_warmup = span(block.n_warmup for block in counted)
    n_blocks = span(len(entry.row.counted) for entry in entries.entries if entry.row.counted)
    yield (
        f"Each row was measured in {n_blocks} fresh process{'' if n_blocks == '1' else 'es'}, in each after {n_warmup} "
        "repetitions of warm-up that do not count."
    )
    states = [entry.row.state for entry in entries.entries if entry.row.counted]
    told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    yield f"How far it can be trusted, judged by what the machine did meanwhile: {told} of {len(states)} rows."


def _when(runs: Sequence[BenchRun]) -> str:
    return "; ".join(
        f"{run.created[:16].replace('T', ' ')} UTC, {run.source}{' ' + run.slmkit if run.source == 'slmkit' else ''}"
        for run in runs
    )
