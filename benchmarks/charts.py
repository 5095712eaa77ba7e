"""Charts as SVG, written by hand: bars in groups, and lines over a logarithmic axis."""

from __future__ import annotations

import math
from html import escape

_COLOURS = ("#2563eb", "#9ca3af", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2", "#4b5563")
_STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#6b7280}.t{font-weight:600}"
    "line{stroke:#9ca3af}</style>"
)

Group = tuple[str, list[tuple[str, float]]]  # what, [(who, value)]
Line = tuple[str, list[tuple[float, float]]]  # who, [(x, y)]


def bars(title: str, groups: list[Group]) -> str:
    """Draw horizontal bars, each with its name and value; the longest is 400 units long."""
    most = max((value for _, group in groups for _, value in group), default=0) or 1
    colours: dict[str, str] = {}
    parts, y = [_text(10, 20, title, "t")], 44
    for what, group in groups:
        parts.append(_text(10, y, what, "t"))
        for who, value in group:
            y += 18
            colour = colours.setdefault(who, _COLOURS[len(colours) % len(_COLOURS)])
            length = max(1, value / most * 400)
            parts.append(_text(210, y, who, anchor="end"))
            parts.append(
                f'<rect x="218" y="{y - 11}" width="{length:.1f}" height="13" fill="{colour}"/>'
            )
            parts.append(_text(224 + length, y, _number(value)))
        y += 28
    return _svg(720, y, parts)


def lines(title: str, across: str, series: list[Line]) -> str:
    """Draw a line for each of `series`, starting at 0; the axis `across` is logarithmic."""
    xs = sorted({x for _, points in series for x, _ in points})
    top = max((y for _, points in series for _, y in points), default=0) or 1
    width, height, left, upper = 420, 260, 60, 40
    low, high = math.log(xs[0]), math.log(xs[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log(x) - low) / ((high - low) or 1)
        return left + share * width, upper + height * (1 - y / top)

    parts = [_text(10, 20, title, "t"), _text(left + width / 2, 340, across, anchor="middle")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = place(xs[0], top * share)[1]
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" opacity=".3"/>')
        parts.append(_text(left - 6, y + 4, _number(top * share), anchor="end"))
    for x in xs:
        parts.append(_text(place(x, 0)[0], upper + height + 18, f"{x:,.0f}", anchor="middle"))
    for number, (who, points) in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = upper + 12 + number * 18
        parts.append(f'<rect x="500" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(518, y, who))
    return _svg(720, 350, parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(width: int, height: float, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}">'
    return "\n".join([head, _STYLE, *parts, "</svg>", ""])
