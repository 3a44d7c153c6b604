"""The worst contexts on a page: text of any kind, whose white space is to be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from slmkit.core import units
from slmkit.core.damage import Context, Damage, Likely
from slmkit.core.history import label_of
from slmkit.report.damage import one_line
from slmkit.report.html.markup import Markup, join, tag

_SPACE = "\N{OPEN BOX}"


def worst_contexts(damage: Damage) -> Markup:
    """A list: the text with the token that followed, and what base and quant expected, most likely first."""
    label = label_of(damage.ref)
    items = (tag("li", *_context(found, label)) for found in damage.worst)
    return join(tag("h3", f"Worst contexts of {label}"), tag("ol", *items, class_="worst"))


def _context(found: Context, label: str) -> Iterator[Markup]:
    place = found.place
    yield tag("p", f"KLD {place.kld:.3f}, {place.domain}, chunk {place.number}")
    yield tag("p", tag("bdi", one_line(found.before)), _token(found.token), class_="text")
    rows = (
        tag("tr", tag("th", name, scope="row"), tag("td", units.percent(probability), class_="r"), _expected(top))
        for name, probability, top in (
            ("base", found.base_probability, found.base_top),
            (label, found.probability, found.top),
        )
    )
    titles = tag("tr", tag("th"), tag("th", "for it", scope="col", class_="r"), tag("th", "most likely", scope="col"))
    yield tag("div", tag("table", tag("thead", titles), tag("tbody", *rows)), class_="scroll")


def _expected(top: Sequence[Likely]) -> Markup:
    each = (tag("span", _token(likely.text), f" {units.percent(likely.probability)}") for likely in top)
    return tag("td", *each, class_="likely")


def _token(text: str) -> Markup:
    """Its spaces as signs: at its ends they would be lost."""
    return tag("bdi", one_line(text).replace(" ", _SPACE) or units.DASH, class_="token")
