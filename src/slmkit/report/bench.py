"""The table of `bench`: speed, latency, memory and energy, and how far all of it can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from slmkit.core import stats, units
from slmkit.core.bench import NOISY, THROTTLED, BenchRow, BenchRun
from slmkit.core.versus import Versus
from slmkit.report.cells import FAILED, size_cell, time_cell
from slmkit.report.settings import SETTINGS, TESTS, Entries, Entry, facts, tests
from slmkit.report.table import Cell, Column, Table

_PERCENTILES = (50, 90, 99)
_MEMORY = (
    ("file_backed", "file-backed"),
    ("anonymous", "anonymous"),
    ("weights", "weights"),
    ("repacked", "repacked"),
    ("kv", "KV"),
    ("compute", "compute"),
    ("output", "output"),
    ("vram", "VRAM"),
    ("swap", "swap"),
)
_SPREAD = {"median": "median", "mad": "MAD", "low": "95 % low", "high": "95 % high"}
"""Of the rates: `low` and `high` are the 95 % confidence interval of their mean."""
_TITLES = {"ttft": "TTFT", "rss": "peak RSS", "size": "size"}
"""Of differences that are not a rate's."""
_Part = tuple[Column, Cell]


def bench_table(*runs: BenchRun, wide: bool = False, against: Sequence[Versus] = ()) -> Table:
    """The rows of one run, or of several side by side.

    People see what fits a terminal, or with `wide` all that was measured; of settings those that differ, in a note what
    is common. Machines always get every column. What models of the run are beside another is the first note.
    """
    entries = Entries.of(*runs)
    rows = [list(_parts(entry, entries, wide)) for entry in entries.entries]
    some = [any(row[i][1].value is not None for row in rows) for i in range(len(rows[0]) if rows else 0)]
    columns = [replace(column, shown=column.shown and some[i]) for i, (column, _) in enumerate(rows[0] if rows else ())]
    cells = tuple(tuple(cell for _, cell in row) for row in rows)
    return Table(tuple(columns), cells, entries.model or "bench", tuple(bench_notes(entries, against)) if rows else ())


def bench_notes(entries: Entries, against: Sequence[Versus] = ()) -> Iterator[str]:
    """Which model is faster, what is common, how it was measured, what is wrong with it, what some columns mean."""
    yield from verdicts(entries, against)
    yield entries.common()
    yield from _measured(entries)
    for entry in entries.entries:
        yield from trouble(entry.row, entries.label(entry))
    yield from dict.fromkeys(warning for entry in entries.entries for warning in entry.run.warnings)
    yield from dict.fromkeys(warning for entry in entries.entries for warning in entry.row.warnings)
    yield from _memory_notes(entries)
    known = (entry for entry in entries.entries if "bandwidth_bytes_per_s" in entry.run.machine)
    yield from dict.fromkeys(_ceiling(entry, entries) for entry in known)


def verdicts(entries: Entries, against: Sequence[Versus]) -> Iterator[str]:
    """`Q4_0 beside Q8_0: tg128: 31.2 % ± 0.8 % faster; size: 38.1 % smaller`."""
    for each in against:
        subject, other = (Entry(row, entries.entries[0].run) for row in (each.subject, each.other))
        told = (f"{_TITLES.get(d.what) or getattr(each.subject.spec, d.what)}: {d.text}" for d in each.differences)
        yield f"{entries.label(subject)} beside {entries.name(other)}: {'; '.join(told)}"


def tg_of_max(entry: Entry) -> float | None:
    """Generation as a share of what the machine's memory bandwidth allows; a step reads weights and KV cache once."""
    bandwidth, rate = entry.run.machine.get("bandwidth_bytes_per_s"), stats.mean(entry.row.tg_rates)
    n_bytes = entry.row.bytes_per_step
    if not bandwidth or rate is None or not n_bytes:
        return None
    return rate / entry.row.spec.n_parallel * n_bytes / float(bandwidth)


def pp_of_max(entry: Entry) -> float | None:
    """Reading a prompt as a share of the machine's arithmetic: 2 operations for each parameter and token."""
    flop_per_s, rate = entry.run.machine.get("flop_per_s"), stats.mean(entry.row.pp_rates)
    if not flop_per_s or rate is None or not entry.row.n_params:
        return None
    return rate * 2 * entry.row.n_params / float(flop_per_s)


def _parts(entry: Entry, entries: Entries, wide: bool) -> Iterator[_Part]:
    row = entry.row
    yield Column("ref", "type" if entries.model else "model", right=False), Cell(entries.name(entry), row.ref)
    yield from _where(entry, entries)
    yield Column("size_bytes", "size"), size_cell(row.size_bytes)
    yield from _settings(entry, entries)
    yield from _speed(entry, entries, wide)
    yield from _latency(row, wide)
    yield from _memory(row, wide)
    joules = row.joules_per_token
    yield Column("joules_per_token", "J/tok"), Cell(units.number(joules, 3), joules)
    yield Column("state", "state", right=False), _state(row)
    yield _hidden("reasons", "; ".join(row.reasons) or None)
    yield _hidden("error", row.failure.message if row.failure else None)


def _where(entry: Entry, entries: Entries) -> Iterator[_Part]:
    """Which machine and engine, where it is not the same for all."""
    host, build = entry.run.host, entry.run.build
    hosts, builds = entries.differing_host, entries.differing_build
    yield Column("host", "host", right=False, shown=bool(hosts)), Cell(facts(host, hosts), host.get("cpu"))
    version = " ".join(build[key] for key in ("engine", "llama.cpp") if build.get(key))
    yield Column("build", "engine", right=False, shown=bool(builds)), Cell(facts(build, builds), version or None)
    for key in ("n_cores", "memory_bytes", "system"):
        yield _hidden(key, host.get(key))
    yield _hidden("source", entry.run.source)


def _settings(entry: Entry, entries: Entries) -> Iterator[_Part]:
    spec = entry.row.spec
    yield Column("tests", "test", right=False, shown=entries.tests_vary), Cell(tests(spec), tests(spec))
    for name in TESTS:
        yield _hidden(name, getattr(spec, name))
    varying = entries.varying
    for setting in SETTINGS:
        cell = Cell(setting.text(spec), setting.value(spec))
        yield Column(setting.key, setting.title, shown=setting in varying), cell


def _speed(entry: Entry, entries: Entries, wide: bool) -> Iterator[_Part]:
    row = entry.row
    same = not entries.tests_vary and not any(setting.key == "depth" for setting in entries.varying)
    for test in ("pp", "tg", "pg"):
        name = getattr(row.spec, test) if same else test
        rates = row.rates(test)
        mean, deviation = stats.mean(rates), stats.stdev(rates)
        text = units.number(mean) + (f" ± {deviation:.2f}" if deviation is not None else "")
        yield Column(f"{test}_tok_per_s", f"{name} tok/s"), Cell(text, mean)
        yield _hidden(f"{test}_stdev_tok_per_s", deviation)
        low, high = stats.interval(rates) or (None, None)
        spread = {"median": stats.median(rates), "mad": stats.mad(rates), "low": low, "high": high}
        for key, value in spread.items():
            column = Column(f"{test}_{key}_tok_per_s", f"{test} {_SPREAD[key]}", shown=wide)
            yield column, Cell(units.number(value), value)
        yield _hidden(f"n_{test}", len(rates))
    for test, share in (("pp", pp_of_max(entry)), ("tg", tg_of_max(entry))):
        text = units.DASH if share is None else f"{share:.0%}".replace("%", " %")
        yield Column(f"{test}_of_max", f"{test} of max", shown=wide or test == "tg"), Cell(text, share)


def _latency(row: BenchRow, wide: bool) -> Iterator[_Part]:
    """The median is the number; percentiles above it need more samples than most runs have, and so more room."""
    for test, title, shown in (("ttft", "TTFT", True), ("itl", "ITL", wide)):
        for q in _PERCENTILES:
            key = f"{test}_ms" if q == 50 else f"{test}_p{q}_ms"
            yield (
                Column(key, f"{title} p{q}" if wide else title, shown=shown and (wide or q == 50)),
                time_cell(stats.percentile(row.samples(test), q)),
            )
    yield Column("load_ms", "load"), time_cell(row.load_ns)
    yield Column("first_token_ms", "first token", shown=wide), time_cell(row.first_ns)


def _memory(row: BenchRow, wide: bool) -> Iterator[_Part]:
    memory = row.memory
    known = asdict(memory) if memory else {}
    yield Column("peak_rss_bytes", "peak RSS"), size_cell(known.get("peak_rss"))
    yield _hidden("baseline_rss_bytes", known.get("baseline_rss"))
    yield Column("min_ram_bytes", "min RAM"), size_cell(row.min_ram_bytes)
    for name, title in _MEMORY:
        yield Column(f"{name}_bytes", title, shown=wide or name == "anonymous"), size_cell(known.get(name))
    faults = known.get("major_faults")
    yield Column("major_faults", "faults", shown=wide), Cell(units.DASH if faults is None else str(faults), faults)


def _state(row: BenchRow) -> Cell:
    state = FAILED if row.failure else row.state
    return Cell(state, state)


def _measured(entries: Entries) -> Iterator[str]:
    """How often, in words."""
    blocks = [entry.row.counted for entry in entries.entries if entry.row.counted]
    if not blocks:
        return
    samples = [len(entry.row.samples(test)) for entry in entries.entries for test in ("pp", "tg", "pg")]
    n_blocks = span(len(counted) for counted in blocks)
    yield (
        f"mean ± standard deviation of {span(n for n in samples if n)} repetitions "
        f"in {n_blocks} process{'' if n_blocks == '1' else 'es'}"
    )


def trouble(row: BenchRow, label: str) -> Iterator[str]:
    """Every reason not to trust a row."""
    if row.failure:
        yield f"{label}: {row.failure.message}" + (f"; {row.failure.hint}" if row.failure.hint else "")
    elif row.state in (NOISY, THROTTLED):
        yield f"{label} is {row.state}: {'; '.join(row.reasons) or 'no reason was recorded'}"
    dropped = len(row.blocks) - len(row.counted)
    if dropped:
        of = units.several(len(row.blocks), "process", "processes")
        yield f"{label}: disturbed, and left out: {dropped} of {of}"


def _memory_notes(entries: Entries) -> Iterator[str]:
    known = [entry.row.memory for entry in entries.entries if entry.row.memory]
    own = [(m.peak_rss, m.baseline_rss) for m in known if m.peak_rss is not None and m.baseline_rss is not None]
    if own:
        base, rest = span((base for _, base in own), units.size), span((peak - base for peak, base in own), units.size)
        yield f"peak RSS is of the whole process, {base} of it the interpreter and the library: {rest} without them"


def _ceiling(entry: Entry, entries: Entries) -> str:
    machine, hosts = entry.run.machine, entries.differing_host
    text = f"of max: tg of what {machine['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s of memory bandwidth allow"
    if machine.get("flop_per_s"):
        text += f", pp of {machine['flop_per_s'] / 1e9:.0f} GFLOP/s"
    return f"{text}, as measured {'on ' + facts(entry.run.host, hosts) if hosts else 'here'}"


def span(numbers: Iterable[float], text: Callable[[Any], str] = str) -> str:
    """`5` or `5 to 12`."""
    every = set(numbers)
    return " to ".join(dict.fromkeys(text(n) for n in (min(every), max(every))))


def _hidden(key: str, value: object) -> _Part:
    """For machines alone."""
    return Column(key, key, shown=False), Cell("" if value is None else str(value), value)
