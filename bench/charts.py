"""Dot plots as SVG: a row a contender, one or more dots a row, on a linear or a logarithmic axis.

Dots, as the length of a bar means nothing on an axis without a zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from bench.table import shown

WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 760, 26, 160, 170, 64, 52
FONT = 'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13" fill="#212529"'
OURS, PEER, FAINT = "#d9480f", "#4263eb", "#dee2e6"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its name, whether it is ours, and a value a series."""

    name: str
    is_ours: bool
    values: Mapping[str, float]


def dot_plot(title: str, axis: str, rows: Sequence[Row], *, is_log: bool) -> str:
    """The chart. `axis` names what is measured, and its unit."""
    values = [value for row in rows for value in row.values.values()]
    ticks = _log_ticks(values) if is_log else _linear_ticks(values)
    place = _scale(ticks, is_log)
    bottom = TOP + ROW * len(rows)
    series = list(dict.fromkeys(name for row in rows for name in row.values))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + BOTTOM}" role="img" {FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{bottom + BOTTOM}" fill="#ffffff"/>',
        _text(16, 26, title, 'font-size="16" font-weight="600"'),
        *(_legend(series) if len(series) > 1 else ()),
        *(_tick(place(tick), bottom, tick) for tick in ticks),
        _text((LEFT + WIDTH - RIGHT) / 2, bottom + 42, axis + (" (log scale)" if is_log else ""), _MIDDLE),
        *(part for number, row in enumerate(rows) for part in _row(row, series, TOP + ROW * (number + 0.5), place)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


_MIDDLE = 'text-anchor="middle"'
_END = 'text-anchor="end"'


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {attributes}>{escape(text)}</text>'


def _tick(x: float, bottom: int, value: float) -> str:
    label = f"{value:,.0f}" if value >= 1 else f"{value:g}"
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{bottom}" stroke="{FAINT}"/>'
    return line + _text(round(x, 1), bottom + 18, label, f'{_MIDDLE} font-size="12" fill="#868e96"')


def _legend(series: Sequence[str]) -> list[str]:
    parts, x = [], LEFT
    for number, name in enumerate(series):
        parts += [_dot(x, 44, number, "#868e96"), _text(x + 11, 48.5, name, 'font-size="12" fill="#495057"')]
        x += 34 + 7 * len(name)
    return parts


def _row(row: Row, series: Sequence[str], y: float, place: Callable[[float], float]) -> list[str]:
    colour = OURS if row.is_ours else PEER
    weight = 'font-weight="600"' if row.is_ours else ""
    xs = [place(value) for value in row.values.values()]
    parts = [_text(LEFT - 14, y + 4.5, row.name, f"{_END} {weight}")]
    if len(xs) > 1:
        parts.append(
            f'<line x1="{min(xs):.1f}" x2="{max(xs):.1f}" y1="{y:g}" y2="{y:g}" stroke="{colour}"'
            ' stroke-width="2" stroke-opacity="0.35"/>'
        )
    parts += [_dot(place(value), y, series.index(name), colour) for name, value in row.values.items()]
    figures = " · ".join(shown(row.values[name]) if name in row.values else "–" for name in series)
    parts.append(_text(WIDTH - 16, y + 4.5, figures, f'{_END} {weight} font-size="12"'))
    return parts


def _dot(x: float, y: float, series: int, colour: str) -> str:
    """Full for the first series, hollow for the second, small and full for a third."""
    fill = "#ffffff" if series == 1 else colour
    return (
        f'<circle cx="{x:.1f}" cy="{y:g}" r="{3.2 if series == 2 else 5}" fill="{fill}"'
        f' stroke="{colour}" stroke-width="2"/>'
    )


def _scale(ticks: Sequence[float], is_log: bool) -> Callable[[float], float]:
    """From a value to where it stands."""
    low, high = ticks[0], ticks[-1]
    width = WIDTH - LEFT - RIGHT

    def place(value: float) -> float:
        if is_log:
            return LEFT + width * math.log(max(value, low) / low) / math.log(high / low)
        return LEFT + width * (value - low) / (high - low)

    return place


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Powers of ten around all values."""
    positive = [value for value in values if value > 0] or [1.0]
    low = math.floor(math.log10(min(positive)))
    high = max(math.ceil(math.log10(max(positive))), low + 1)
    return [10.0**power for power in range(low, high + 1)]


def _linear_ticks(values: Sequence[float]) -> list[float]:
    """From 0 (or below) in steps of 1, 2 or 5 times a power of ten, about five of them."""
    low, high = min(0.0, *values), max(1e-9, *values)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [step * number for number in range(math.floor(low / step), math.ceil(high / step) + 1)]
