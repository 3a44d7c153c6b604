"""Labels of points that cover neither each other nor the points, as far as there is room."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Point = tuple[float, float]
_DISTANCES = (8, 18, 30, 44, 60, 78)
"""From the middle of the marker, in 1/72 inch."""
_ANGLES = (30, -30, 150, -150, 90, -90, 0, 180, 60, -60, 120, -120)
_LED = 18
"""From this distance on a thin line leads to the point."""
_MARKER = 4
_OUTSIDE, _COVERED, _CROSSED = 10_000, 1000, 15
"""What is worst; the rank of the place, one for each angle and distance, breaks ties."""


def place(axes: Any, points: Sequence[tuple[float, float, str]], lines: Sequence[Sequence[Point]]) -> None:
    """Write each text beside its point. Crossing one of the `lines` is better than covering something."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # now the layout is known
    per_point = axes.figure.dpi / 72
    pixels = [tuple(axes.transData.transform(point[:2])) for point in points]
    crossed = [p for line in lines for p in _along([tuple(axes.transData.transform(point)) for point in line])]
    taken: list[Any] = []

    def cost(box: Any, own: int) -> float:
        frame, grown = axes.bbox, box.padded(_MARKER * per_point)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        covered = sum(map(box.overlaps, taken)) + sum(grown.contains(*p) for i, p in enumerate(pixels) if i != own)
        found: float = _OUTSIDE * (not inside) + _COVERED * covered
        return found + _CROSSED * any(box.contains(*p) for p in crossed)

    for own, (x, y, text) in enumerate(points):
        measured = axes.text(x, y, text, fontsize=9, parse_math=False)
        size = measured.get_window_extent().size
        measured.remove()
        places = [
            (distance, _offset(distance * per_point, angle, size)) for distance in _DISTANCES for angle in _ANGLES
        ]
        boxes = [Bbox.from_bounds(pixels[own][0] + dx, pixels[own][1] + dy, *size) for _, (dx, dy) in places]
        costs = [cost(box, own) + rank for rank, box in enumerate(boxes)]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        distance, (dx, dy) = places[best]
        _write(axes, (x, y), text, (dx / per_point, dy / per_point), led=distance >= _LED)


def _offset(distance: float, angle: float, size: Sequence[float]) -> Point:
    """From the point to the lower left of its text, which lies so far away in that direction."""
    across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return distance * across - size[0] * (1 - across) / 2, distance * up - size[1] * (1 - up) / 2


def _write(axes: Any, point: Point, text: str, offset: Point, *, led: bool) -> None:
    leader = {"arrowstyle": "-", "linewidth": 0.5, "color": "#8C8C8C", "shrinkA": 0, "shrinkB": 3} if led else None
    look = {"va": "bottom", "fontsize": 9, "parse_math": False, "arrowprops": leader}
    note = axes.annotate(text, point, xytext=offset, textcoords="offset points", **look)
    note.set_in_layout(False)  # else the axes would shrink after the places were chosen


def _along(line: Sequence[tuple[float, ...]], step: float = 4.0) -> list[Point]:
    """Points on a line, so many pixels apart."""
    found = []
    for (x0, y0), (x1, y1) in pairwise(line):
        n = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / step))
        found += [(x0 + (x1 - x0) * i / n, y0 + (y1 - y0) * i / n) for i in range(n + 1)]
    return found
