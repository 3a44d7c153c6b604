"""Pictures on a page, beside each other where there is room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from slmkit.errors import DependencyMissingError
from slmkit.report.html.markup import Markup, raw, tag
from slmkit.report.plots.figure import as_element

WIDTH = 5.4
"""Inches of a picture: narrow, so that its letters can still be read on a phone."""


def pictures(draw: Sequence[Callable[[], Any]], name: str = "p") -> Markup:
    """Those that are drawn, or why they are left out; `name` keeps their ids apart from others on the page."""
    try:
        drawn = [tag("figure", raw(as_element(each(), f"{name}{i}"))) for i, each in enumerate(draw)]
    except DependencyMissingError as error:
        return tag("p", f"The plots are left out: {error.message}, {error.hint}.")
    return tag("div", *drawn, class_="plots")
