"""The page of a bench or a comparison: table, pictures, raw samples, machine, and how it was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from slmkit.core import units
from slmkit.core.bench import BenchRun
from slmkit.core.compare import Comparison
from slmkit.core.versus import Versus
from slmkit.errors import DependencyMissingError
from slmkit.report import compared
from slmkit.report.bench import bench_notes, bench_table, span
from slmkit.report.html.markup import Markup, join, raw, tag
from slmkit.report.html.page import page, sortable
from slmkit.report.html.samples import samples
from slmkit.report.plots import memory, scaling, size_kld, size_speed
from slmkit.report.plots.figure import as_element
from slmkit.report.settings import HOST_KEYS, Entries
from slmkit.report.tables import compare_table

_WIDTH = 5.4
"""Inches of a picture: narrow, so that its letters can still be read on a phone."""
_DEFINITIONS = (
    "pp: tokens of a prompt decoded in batches; tg: tokens generated one at a time; the clock runs around the engine's "
    "decoding alone, as in llama-bench.",
    "TTFT: from a text to the first token of its answer as text, without loading; ITL: from one token to the next.",
    "load: until the weights are there, from the page cache or from the disk, as it comes.",
    "peak RSS: the kernel's high-water mark of the measuring process. File-backed memory is mapped weights, which the "
    "kernel may drop and read again; anonymous memory is what must fit.",
)
_OF_QUALITY = (
    "PPL: perplexity, of the tokens in the second half of each chunk, as llama-perplexity computes it.",
    "KLD: how far the probabilities of all possible next tokens are from the base's, in nats, the mean over the same "
    "tokens; same top: how often the most likely token is the base's.",
    f"verdict by mean KLD: {compared.thresholds()}; broken is also a file with another "
    "vocabulary than its base, and one whose scores no quantization explains.",
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
        _plots(_pictures(entries, entries)),
        *_below(entries, runs, _DEFINITIONS),
    )


def compare_page(comparison: Comparison, title: str = "") -> str:
    """A comparison, with what its measurements tell."""
    table = compare_table(comparison)
    measured = tuple(row.bench for row in comparison.rows if row.bench)
    run = BenchRun("", comparison.host, comparison.build, measured)
    entries = Entries.of(run)
    pictures = _pictures(entries, comparison) if measured else []
    pictures += [partial(size_kld.draw, comparison, _WIDTH)] if size_kld.is_known(comparison) else []
    definitions = (*(_DEFINITIONS if measured else ()), *(_OF_QUALITY if comparison.quality else ()))
    return page(
        title or table.title,
        sortable(table),
        tag("ul", *(tag("li", note) for note in table.notes)),
        *(tag("p", "missing: ", tag("code", command)) for command in comparison.missing),
        *([tag("p", f"Measured with {entries.common()}.")] if measured else []),
        *([_plots(pictures)] if pictures else []),
        *(_below(entries, (run,), definitions) if definitions else ()),
    )


def _pictures(entries: Entries, source: Entries | Comparison) -> list[Callable[[], Any]]:
    """Those that have something to show."""
    rows = [entry.row for entry in entries.entries]
    scales = [key for key in ("n_threads", "depth") if scaling.varies(entries, key)]
    found: list[Callable[[], Any]] = [partial(scaling.draw, entries, key, _WIDTH) for key in scales]
    if not scales and len({row.size_bytes for row in rows if row.tg_ns or row.pp_ns}) > 1:
        found.append(partial(size_speed.draw, source, _WIDTH))
    if any(row.memory and row.memory.steady_rss is not None for row in rows):
        found.append(partial(memory.draw, entries, _WIDTH))
    return found


def _plots(pictures: Sequence[Callable[[], Any]]) -> Markup:
    try:
        drawn = [tag("figure", raw(as_element(draw(), f"p{i}"))) for i, draw in enumerate(pictures)]
    except DependencyMissingError as error:
        return tag("p", f"The plots are left out: {error.message}, {error.hint}.")
    return tag("div", *drawn, class_="plots")


def _below(entries: Entries, runs: Sequence[BenchRun], definitions: Sequence[str]) -> Iterator[Markup]:
    if any(entry.row.blocks for entry in entries.entries):
        yield tag("h2", "Raw samples")
        yield samples(entries)
    yield tag("h2", "How it was measured")
    yield tag("ul", *(tag("li", text) for text in (*_method(entries), *definitions)))
    for run in runs:
        if run.host:
            yield tag("h2", "Measured on")
            facts = _machine(run)
            yield tag("dl", *(join(tag("dt", name), tag("dd", text)) for name, text in facts if text))


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


def _machine(run: BenchRun) -> Iterator[tuple[str, str]]:
    host, machine = run.host, run.machine
    shown: Mapping[str, Callable[[Any], str]] = {"memory_bytes": units.size}
    names = {"cpu": "CPU", "n_cores": "cores", "memory_bytes": "memory", "system": "system"}
    for key in HOST_KEYS:
        yield names[key], "" if host.get(key) is None else shown.get(key, str)(host[key])
    yield "CPU features", " ".join(map(str, host.get("features", ())))
    for name, value in run.build.items():
        yield {"features": "engine's CPU features", "gpu": "engine uses a GPU"}.get(name, name), str(value)
    if machine.get("bandwidth_bytes_per_s"):
        yield "memory bandwidth, measured", f"{machine['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s"
    if machine.get("flop_per_s"):
        yield "arithmetic, measured", f"{machine['flop_per_s'] / 1e9:.0f} GFLOP/s"
