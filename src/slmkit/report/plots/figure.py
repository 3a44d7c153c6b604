"""The door of matplotlib: empty figures, and figures as files or as a part of a page."""

from __future__ import annotations

import errno
import io
import os
import re
from pathlib import Path
from typing import Any

from slmkit.errors import CannotWriteError, DependencyMissingError, UsageError
from slmkit.report.table import writing

FORMATS = (".svg", ".png")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#8C8C8C", "#5D4EA0")
"""Told apart by colour-blind people too: Okabe and Ito, "Color Universal Design" (2008), without black and yellow,
which are lost on a dark or a white page; grey and violet are added."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_BARE = {"Date": None, "Creator": None, "Format": None, "Type": None}


def check_plot(path: Path) -> None:
    """Before the work, not after it: raise `UsageError` for a file that cannot be drawn by its suffix, and
    `CannotWriteError` for one in a folder that is not there.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"cannot draw {path.name}", hint=f"name a file that ends in {' or '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise CannotWriteError(f"cannot write {path}: {os.strerror(errno.ENOENT)}")


def figure(width: float, height: float, *, n_panels: int = 1) -> tuple[Any, list[Any]]:
    """A figure of so many inches and its panels, one under the other; raises `DependencyMissingError`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyMissingError("drawing needs matplotlib", hint="`pip install 'slmkit[plot]'`") from error
    drawn = Figure(figsize=(width, height), layout="constrained")
    panels = list(drawn.subplots(n_panels, 1, squeeze=False)[:, 0])
    for axes in panels:
        axes.set_prop_cycle(color=COLOURS)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return drawn, panels


def plain_ticks(axis: Any) -> None:
    """Numbers as they are on a logarithmic axis, at 1, 2 and 5: its own are formulas, and none are drawn here."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def plain(drawn: Any) -> None:
    """Show dollar signs of names as they are, not as formulas."""
    from matplotlib.text import Text

    for text in drawn.findobj(Text):
        text.set_parse_math(False)


def save(drawn: Any, path: Path) -> None:
    """No date and no random ids in the file: the same numbers give the same bytes."""
    from matplotlib import rc_context

    plain(drawn)
    with rc_context({"svg.hashsalt": "slmkit"}), writing(path):
        drawn.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def as_element(drawn: Any, name: str) -> str:
    """An SVG element for a page: in the page's own colour, as wide as its place; `name` keeps its ids apart."""
    from matplotlib import rc_context

    plain(drawn)
    out = io.StringIO()
    with rc_context({"svg.hashsalt": "slmkit"}):
        drawn.savefig(out, format="svg", transparent=True, metadata=_BARE)
    text = out.getvalue()
    text = re.sub(r"<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" fill="currentColor">', text)
    return re.sub(r"#000000|\bblack\b", "currentColor", text)
