"""Labels of points that neither cover each other nor the points, as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Point = tuple[float, float]
_PLACES = ((7, 4), (7, -12), (-7, 4), (-7, -12), (0, 9), (0, -17), (12, 14), (12, -22), (-12, 14), (-12, -22))
"""In 1/72 inch from the point; the first that is free is taken."""
_MARKER = 5
_OUTSIDE, _COVERED, _CROSSED = 1000, 100, 20
"""What is worst; the rank of the place breaks ties."""


def place(
    axes: Any, points: Sequence[tuple[float, float, str]], lines: Sequence[Sequence[tuple[float, float]]]
) -> None:
    """Write each text beside its point. Crossing one of the `lines` is better than covering something."""
    axes.figure.draw_without_rendering()  # now the layout is known
    pixels = [tuple(axes.transData.transform(point[:2])) for point in points]
    crossed = [p for line in lines for p in _along([tuple(axes.transData.transform(point)) for point in line])]
    margin = _MARKER * axes.figure.dpi / 72
    taken: list[Any] = []

    def cost(box: Any, own: int) -> float:
        frame, grown = axes.bbox, box.padded(margin)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        covered = sum(map(box.overlaps, taken)) + sum(grown.contains(*p) for i, p in enumerate(pixels) if i != own)
        found: float = _OUTSIDE * (not inside) + _COVERED * covered
        return found + _CROSSED * any(box.contains(*p) for p in crossed)

    for own, (x, y, text) in enumerate(points):
        notes = [_note(axes, (x, y), text, offset) for offset in _PLACES]
        costs = [cost(note.get_window_extent(), own) + rank for rank, note in enumerate(notes)]
        best = notes.pop(costs.index(min(costs)))
        taken.append(best.get_window_extent())
        for note in notes:
            note.remove()


def _note(axes: Any, point: Point, text: str, offset: Point) -> Any:
    side = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
    note = axes.annotate(text, point, xytext=offset, textcoords="offset points", ha=side, fontsize=9, parse_math=False)
    note.set_in_layout(False)  # else the axes would shrink after the places were chosen
    return note


def _along(line: Sequence[tuple[float, ...]], step: float = 4.0) -> list[Point]:
    """Points on a line, so many pixels apart."""
    found = []
    for (x0, y0), (x1, y1) in pairwise(line):
        n = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / step))
        found += [(x0 + (x1 - x0) * i / n, y0 + (y1 - y0) * i / n) for i in range(n + 1)]
    return found
