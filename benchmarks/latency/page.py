"""A bench record as one page of HTML with its histograms in it: no file beside it, nothing from the internet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24;
  background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .7rem; border-bottom: 1px solid #ccd2d9;
  text-align: right } td:first-child, th:first-child { text-align: left }
svg { width: 100%; height: auto } .bar { fill: #3b6ea8 } .mark { stroke: #b3261e; stroke-width: 1.5 }
text { font: 12px system-ui, sans-serif; fill: #1b1f24 } .axis { stroke: #7a828c }
.scroll { overflow-x: auto } figure { margin: 1.5rem 0 }
"""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 900, 190, 60, 28, 22
_COLUMNS = (
    ("p50", "p50_ms"),
    ("p90", "p90_ms"),
    ("p99", "p99_ms"),
    ("p99.9", "p99.9_ms"),
    ("max", "max_ms"),
    ("jitter", "jitter_ms"),
)


def page(record: Mapping[str, Any]) -> str:
    """The page. All histograms share one axis of time, so that they can be compared by eye."""
    series: Mapping[str, Any] = record["series"]
    edges = [_edges(row["histogram"]) for row in series.values()]
    low, high = min(each[0] for each in edges), max(each[-1] for each in edges)
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{row['frames']}</td>"
        + "".join(f"<td>{row[key]:.3f}</td>" for _, key in _COLUMNS)
        + "</tr>"
        for name, row in series.items()
    )
    machine = "".join(
        f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>" for key, value in record["machine"].items()
    )
    figures = "".join(
        f"<figure><figcaption>{escape(name)}</figcaption>{_drawing(name, row, low, high)}</figure>"
        for name, row in series.items()
    )
    title = f"Latency of {record['bundle']['name']}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><p>{escape(str(record['what']))}. Frames: {escape(str(record['source']))}.</p>"
        f"<p><code>{escape(str(record['command']))}</code></p>"
        '<div class="scroll"><table><tr><th>milliseconds</th><th>frames</th>'
        + "".join(f"<th>{name}</th>" for name, _ in _COLUMNS)
        + f"</tr>{rows}</table></div><h2>Histograms</h2><p>Both axes are logarithmic: single late frames are seen.</p>"
        + f'{figures}<h2>Machine</h2><div class="scroll"><table>{machine}</table></div></body></html>\n'
    )


def _edges(histogram: Mapping[str, Any]) -> list[float]:
    return [histogram["lowest_ms"] * histogram["ratio"] ** k for k in range(len(histogram["counts"]) + 1)]


def _drawing(name: str, row: Mapping[str, Any], low: float, high: float) -> str:
    counts, edges = row["histogram"]["counts"], _edges(row["histogram"])
    tallest = math.log10(max(counts)) + 0.3
    floor = _HEIGHT - _BOTTOM

    def x(milliseconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 20) * math.log(milliseconds / low) / math.log(high / low)

    def y(count: float) -> float:
        return floor - (floor - _TOP) * (math.log10(count) + 0.3) / (tallest + 0.3)

    bars = "".join(
        f'<rect class="bar" x="{x(left):.1f}" width="{max(x(right) - x(left) - 0.3, 0.5):.1f}" '
        f'y="{y(count):.1f}" height="{floor - y(count):.1f}"/>'
        for count, left, right in zip(counts, edges, edges[1:], strict=False)
        if count
    )
    marks = "".join(
        f'<line class="mark" x1="{x(row[key]):.1f}" x2="{x(row[key]):.1f}" y1="{_TOP - 4}" y2="{floor}"/>'
        f'<text x="{x(row[key]):.1f}" y="{12 if k % 2 else _TOP}" text-anchor="middle">{label}</text>'
        for k, (label, key) in enumerate((("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p99.9_ms")))
    )
    ticks = "".join(
        f'<line class="axis" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{floor}" y2="{floor + 4}"/>'
        f'<text x="{x(t):.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{t:g} ms</text>'
        for t in _ticks(low, high)
    )
    powers = "".join(
        f'<text x="{_LEFT - 6}" y="{y(10**p) + 4:.1f}" text-anchor="end">{10**p}</text>'
        for p in range(int(tallest - 0.3) + 1)
    )
    summary = f"{name}: p50 {row['p50_ms']:.3f} ms, p99 {row['p99_ms']:.3f} ms, max {row['max_ms']:.3f} ms"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(summary)}">{bars}{marks}'
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{floor}" y2="{floor}"/>{ticks}{powers}</svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
    return [tick for tick in found if low <= tick <= high]
