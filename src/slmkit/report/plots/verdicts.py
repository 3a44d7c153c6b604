"""Colours of what quality measured: one for each verdict."""

from __future__ import annotations

from typing import Any

from slmkit.core.compare import Judged
from slmkit.core.divergence import BROKEN, THRESHOLDS
from slmkit.report.plots.figure import COLOURS

UNKNOWN = COLOURS[6]
_COLOURS = dict(zip((*(word for word, _ in THRESHOLDS), BROKEN), (COLOURS[i] for i in (0, 4, 2, 1, 3)), strict=True))


def word_of(quality: Judged | None) -> str | None:
    """The verdict; the base has that of a file without loss."""
    if quality is None:
        return None
    return THRESHOLDS[0][0] if quality.is_base and quality.verdict is None else quality.verdict


def colour_of(word: str | None) -> str:
    """Of a verdict, or of none."""
    return UNKNOWN if word is None else _COLOURS[word]


def legend(words: set[str | None]) -> list[Any]:
    """A handle for each verdict that is drawn, the best first."""
    from matplotlib.lines import Line2D

    names = {word: f"{word} (KLD up to {limit:g})" for word, limit in THRESHOLDS} | {BROKEN: BROKEN}
    shown = [(names[word], colour) for word, colour in _COLOURS.items() if word in words]
    shown += [("not measured", UNKNOWN)] if None in words else []
    return [Line2D([], [], color=colour, marker="o", linestyle="none", label=name) for name, colour in shown]
