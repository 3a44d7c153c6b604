"""The page of runs of `quality --sensitivity`: the costs as bars, the table, machine, and what the words mean."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from slmkit.core.sensitivity import Sensitivity
from slmkit.report.html.machine import machine
from slmkit.report.html.markup import Markup, tag
from slmkit.report.html.page import notes, page, sortable
from slmkit.report.html.pictures import WIDTH, pictures
from slmkit.report.plots import sensitivity as bars
from slmkit.report.sensitivity import sensitivity_table

_DEFINITIONS = (
    "KLD: how far the probabilities of all possible next tokens are from the base's, in nats, the mean over the tokens "
    "of the text, when the tensors of this group alone are quantized.",
    "of the sum: its share of what all roles cost, or all layers and what is in none; errors do not simply add up.",
    "KLD per MiB: what it costs for what it saves.",
)


def sensitivity_page(*several: Sensitivity) -> str:
    """One run, or several below each other."""
    first = several[0]
    title = f"sensitivity: {first.ref} to {first.type}" if len(several) == 1 else "sensitivity"
    parts = [part for i, found in enumerate(several) for part in _part(found, f"p{i}-", alone=len(several) == 1)]
    means = [tag("h2", "What the words mean"), tag("ul", *(tag("li", text) for text in _DEFINITIONS))]
    return page(title, *parts, *means, *(machine(found.host, found.build) for found in several))


def _part(found: Sensitivity, name: str, *, alone: bool) -> Iterator[Markup]:
    table = sensitivity_table(found, bars=False)
    if not alone:
        yield tag("h2", f"{found.ref} to {found.type}")
    yield tag("p", f"{found.created[:16].replace('T', ' ')} UTC, slmkit {found.slmkit}")
    if bars.is_known(found):
        yield pictures([partial(bars.draw, found, WIDTH)], name)
    yield sortable(table)
    yield notes(table)
