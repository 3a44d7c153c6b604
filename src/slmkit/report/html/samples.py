"""The raw samples of a row as a small strip, so that drift, outliers and steps can be seen."""

from __future__ import annotations

from collections.abc import Iterator

from slmkit.core import stats, units
from slmkit.core.bench import BenchRow, Block
from slmkit.report.html.markup import Markup, join, raw, tag
from slmkit.report.settings import Entries, Entry

_WIDTH, _HEIGHT, _GAP = 240.0, 40.0, 2
_CLOSE_SHARE = 0.02
_WORTH_SAYING = 0.001
_LEAST_SHARE = 0.04
"""Half of a strip's height is at least this share of the mean, so that what is steady looks steady."""


def samples(entries: Entries) -> Markup:
    """A table: each row and test with its strip, how many samples, and what the machine did meanwhile."""
    heads = ("", "test", "tok/s, in the order measured", "samples", "least to most", "meanwhile")
    rows = [row for entry in entries.entries for row in _rows(entry, entries.label(entry))]
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in heads)))
    body = tag("tbody", *(join(row, raw("\n")) for row in rows))
    return tag("div", tag("table", head, raw("\n"), body), class_="scroll")


def _rows(entry: Entry, label: str) -> Iterator[Markup]:
    row = entry.row
    for test in ("pp", "tg", "pg"):
        rates = row.rates(test)
        if rates:
            name = getattr(row.spec, test)
            yield tag(
                "tr",
                tag("td", label),
                tag("td", name),
                tag("td", strip(row, test)),
                tag("td", str(len(rates)), class_="r"),
                tag("td", f"{min(rates):.2f} to {max(rates):.2f}"),
                tag("td", "; ".join(dict.fromkeys(filter(None, map(meanwhile, row.counted)))) or "–", class_="wrap"),
            )


def strip(row: BenchRow, test: str) -> Markup:
    """A dot for each repetition, processes apart, hollow where they were measured again; the band is the mean ± 2 %."""
    rates, mean = row.rates(test), stats.mean(row.rates(test)) or 1.0
    blocks = [(stats.rates_per_s(row.n_tokens(test), getattr(b, f"{test}_ns")), b.counted) for b in row.blocks]
    every = [rate for found, _ in blocks for rate in found]
    reach = max(_LEAST_SHARE * mean, *(abs(rate - mean) for rate in every))
    n_places = len(every) + _GAP * (len(blocks) - 1)

    def x(place: float) -> str:
        return f"{(place + 0.5) / n_places * _WIDTH:.1f}"

    def y(rate: float) -> str:
        return f"{_HEIGHT / 2 - (rate - mean) / reach * (_HEIGHT / 2 - 4):.1f}"

    band = _CLOSE_SHARE * mean / reach * (_HEIGHT - 8)
    parts = [tag("rect", x="0", y=f"{(_HEIGHT - band) / 2:.1f}", width=f"{_WIDTH:g}", height=f"{band:.1f}")]
    parts.append(tag("line", x1="0", x2=f"{_WIDTH:g}", y1=y(mean), y2=y(mean)))
    place = 0
    for i, (found, counted) in enumerate(blocks):
        if i:
            middle = x(place - _GAP / 2 - 0.5)
            parts.append(tag("line", class_="gap", x1=middle, x2=middle, y1="0", y2=f"{_HEIGHT:g}"))
        for rate in found:
            parts.append(tag("circle", class_=None if counted else "out", cx=x(place), cy=y(rate), r="2.2"))
            place += 1
        place += _GAP
    said = f"{getattr(row.spec, test)}: {len(rates)} samples from {min(rates):.2f} to {max(rates):.2f} tok/s"
    return tag("svg", tag("title", said), *parts, class_="strip", viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", role="img")


def meanwhile(block: Block) -> str:
    """What was seen of the machine, in a few words; nothing where nobody looked."""
    seen = block.seen
    parts = []
    elapsed_s, n_cores = seen.get("elapsed_s"), seen.get("n_cores")
    if elapsed_s and n_cores:
        for key, name in (("others_cpu_s", "others"), ("steal_s", "steal")):
            share = (seen.get(key) or 0.0) / elapsed_s / n_cores
            if share >= _WORTH_SAYING:
                parts.append(f"{name} {units.percent(share)}")
    if seen.get("frequency_mean_hz"):
        parts.append(f"{seen['frequency_mean_hz'] / 1e9:.2f} GHz")
    if seen.get("temperature_max_c"):
        parts.append(f"{seen['temperature_max_c']:.0f} °C")
    return ", ".join(parts)
