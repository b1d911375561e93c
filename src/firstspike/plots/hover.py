"""Points that say what they are under the pointer: SVG for a page, without a script."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from firstspike.plots._style import BLUE, MUTED, ORANGE

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _RIGHT, _TOP = 640, 400, 70, 50, 20, 20


@dataclass(frozen=True)
class Point:
    """A point of `hover_scatter`: its place, what it says, and whether it stands out.

    Attributes:
        x, y: where it is drawn.
        text: what is shown when it is pointed at.
        marked: whether it stands out.
    """

    x: float
    y: float
    text: str
    marked: bool = False


def hover_scatter(points: Sequence[Point], x: str, y: str) -> str:
    """An SVG element with one circle per point, whose text shows under the pointer.

    Args:
        points: x positive, on a logarithmic axis; marked ones are drawn large and in orange.
        x, y: names of the axes, with units.

    Raises:
        ValueError: if there are no points, or an x is not positive.

    >>> "<title>here</title>" in hover_scatter([Point(2.0, 0.9, "here")], "steps", "accuracy")
    True
    """
    if not points or min(point.x for point in points) <= 0:
        raise ValueError("`points` must hold some, each with a positive x. Leave out the others.")
    xs = _Axis([math.log10(p.x) for p in points], _LEFT, _WIDTH - _RIGHT)
    ys = _Axis([p.y for p in points], _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(y)} against '
        f'{html.escape(x)}" style="max-width:100%;height:auto;font-size:12px;fill:currentColor">',
        "<style>.hover circle:hover{stroke:currentColor;stroke-width:2}</style>",
    ]
    for place in (0.0, 0.25, 0.5, 0.75, 1.0):
        across, up = xs.between(place), ys.between(place)
        parts += [
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up[0]:.1f}" y2="{up[0]:.1f}" '
            'stroke="currentColor" stroke-opacity="0.15"/>',
            f'<text x="{_LEFT - 6}" y="{up[0] + 4:.1f}" text-anchor="end">{up[1]:.4g}</text>',
            f'<text x="{across[0]:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
            f"{10 ** across[1]:,.4g}</text>",
        ]
    parts += [
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{html.escape(x)}</text>",
        f'<text transform="translate(14 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y)}</text>",
        '<g class="hover">',
    ]
    for point in sorted(points, key=lambda point: point.marked):
        radius, colour = (7, ORANGE) if point.marked else (4.5, BLUE if point.text else MUTED)
        parts.append(
            f'<circle cx="{xs.place(math.log10(point.x)):.1f}" cy="{ys.place(point.y):.1f}" '
            f'r="{radius}" fill="{colour}" fill-opacity="0.8">'
            f"<title>{html.escape(point.text)}</title></circle>"
        )
    return "\n".join([*parts, "</g></svg>"])


class _Axis:
    """Numbers laid evenly between two places, with a margin."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        margin = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
        self.low, self.high, self.start, self.end = low - margin, high + margin, start, end

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def between(self, share: float) -> tuple[float, float]:
        """Place and value at a share of the axis."""
        value = self.low + share * (self.high - self.low)
        return self.place(value), value
