"""Charts as inline SVG strings: no script, no font, no network. Shared by the report and the web pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

INK, FAINT, GRID = "#1f2933", "#66727f", "#e3e7eb"
COLORS = ("#0b6e99", "#c2571a", "#4b7f3a", "#8a4f9e")


@dataclass(frozen=True)
class Line:
    """One series: x and y of equal length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    """True marks what training did not see, with dashes and hollow dots. False draws solid."""
    hue: int | None = None
    """Which of `COLORS`; None takes the next one. Series of one quantity share theirs."""
    labels: Sequence[str] = ()
    """Names of the points, which are then no series in time: dots that carry their names, no line between them."""


def line_chart(lines: Sequence[Line], *, x_label: str, y_label: str, width: int = 420, height: int = 240) -> str:
    """Lines with dots, or named dots, and a legend below; empty series are left out."""
    drawn = [line for line in lines if line.x]
    if not drawn:
        return f'<p class="note">No data for {escape(y_label)} yet.</p>'
    left, right, top, bottom = 48, 12, 10, 40
    x_low, x_high = _range([value for line in drawn for value in line.x])
    y_low, y_high = _range([value for line in drawn for value in line.y])

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x_low) / (x_high - x_low) * (width - left - right)
        down = top + (y_high - y) / (y_high - y_low) * (height - top - bottom)
        return across, down

    parts = [f'<svg viewBox="0 0 {width} {height + 18 * len(drawn)}" role="img" aria-label="{escape(y_label)} against {escape(x_label)}">']
    for tick in _ticks(y_low, y_high):
        _, down = at(x_low, tick)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{down:.1f}" y2="{down:.1f}" stroke="{GRID}"/>')
        parts.append(_text(left - 6, down + 4, f"{tick:g}", anchor="end"))
    for tick in _ticks(x_low, x_high):
        across, _ = at(tick, y_low)
        parts.append(_text(across, height - bottom + 16, f"{tick:g}", anchor="middle"))
    named: list[tuple[float, float, str]] = []
    for index, line in enumerate(drawn):
        color = COLORS[(index if line.hue is None else line.hue) % len(COLORS)]
        points = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        legend = height + 18 * index + 8
        if line.labels:
            parts += [_dot(across, down, color, 4.5, hollow=line.dashed) for across, down in points]
            for (across, down), label in zip(points, line.labels, strict=True):
                # Two dots of one policy side by side need its name once.
                if any(name == label and abs(across - x) < 12 and abs(down - y) < 16 for x, y, name in named):
                    continue
                named.append((across, down, label))
                right_of = across < 0.8 * width
                parts.append(_text(across + (8 if right_of else -8), down - 6, label, anchor="start" if right_of else "end"))
            parts.append(_dot(left + 12, legend, color, 4.5, hollow=line.dashed))
        else:
            path = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
            parts += [_dot(across, down, color, 2.5, hollow=line.dashed) for across, down in points]
            parts.append(f'<line x1="{left}" x2="{left + 24}" y1="{legend}" y2="{legend}" stroke="{color}" stroke-width="2"{dash}/>')
        parts.append(_text(left + 32, legend + 4, line.name))
    parts.append(_text((left + width - right) / 2, height - 6, x_label, anchor="middle"))
    return "".join(parts) + "</svg>"


def bar_rows(rows: Sequence[tuple[str, float, str]], *, maximum: float, width: int = 420) -> str:
    """Horizontal bars: (label, value, text at the end), scaled to `maximum`."""
    height = 26 * len(rows) + 4
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(", ".join(f"{label} {text}" for label, _, text in rows))}">'
    ]
    label_width, text_width = 120, 70
    for index, (label, value, text) in enumerate(rows):
        y = 26 * index + 4
        length = max(1.0, (width - label_width - text_width) * value / maximum) if maximum > 0 else 1.0
        parts.append(_text(label_width - 8, y + 14, label, anchor="end", color=INK))
        parts.append(f'<rect x="{label_width}" y="{y}" width="{length:.1f}" height="18" rx="2" fill="{COLORS[index % len(COLORS)]}"/>')
        parts.append(_text(label_width + length + 6, y + 14, text, color=INK))
    return "".join(parts) + "</svg>"


def interval_rows(rows: Sequence[tuple[str, float, float, float]], *, middle: float = 0.5, label: str, width: int = 420) -> str:
    """Shares as dots on their intervals, a row each, from 0 to 1.

    Args:
        rows: (name, share, low, high).
        middle: where a thin line stands: what chance gives.
        label: what the shares are of.
    """
    if not rows:
        return f'<p class="note">No data for {escape(label)} yet.</p>'
    left, right, step = 120, 60, 26
    height = step * len(rows) + 40

    def at(share: float) -> float:
        return left + share * (width - left - right)

    told = ", ".join(f"{name} {share:.2f}" for name, share, _, _ in rows)
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(f"{label}: {told}")}">']
    bottom = step * len(rows) + 4
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="4" y2="{bottom}" stroke="{GRID}"/>')
        parts.append(_text(at(tick), bottom + 14, f"{tick:g}", anchor="middle"))
    parts.append(f'<line x1="{at(middle):.1f}" x2="{at(middle):.1f}" y1="4" y2="{bottom}" stroke="{FAINT}" stroke-dasharray="2 3"/>')
    for index, (name, share, low, high) in enumerate(rows):
        y, color = step * index + 18, COLORS[0]
        parts.append(_text(left - 8, y + 4, name, anchor="end", color=INK))
        parts.append(f'<line x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{y}" y2="{y}" stroke="{color}" stroke-width="2"/>')
        parts.append(_dot(at(share), y, color, 4.5, hollow=False))
        parts.append(_text(width - right + 8, y + 4, f"{share:.2f}", color=INK))
    parts.append(_text((left + width - right) / 2, height - 4, label, anchor="middle"))
    return "".join(parts) + "</svg>"


def _dot(x: float, y: float, color: str, radius: float, *, hollow: bool) -> str:
    fill = f'fill="#fff" stroke="{color}" stroke-width="2"' if hollow else f'fill="{color}"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {fill}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", color: str = FAINT) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" fill="{color}" text-anchor="{anchor}">{escape(text)}</text>'


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < 1e-9:
        return low - 0.5, high + 0.5
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers inside the range."""
    rough = (high - low) / count
    power = 10.0 ** _floor_log10(rough)
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = -(-low // step) * step
    return [round(first + i * step, 10) for i in range(int((high - first) / step) + 1)]


def _floor_log10(value: float) -> int:
    return math.floor(math.log10(value))
