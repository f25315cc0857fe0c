"""A bench record as one page of HTML with its histograms in it: no file beside it, nothing from the internet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from framegate.benchmarks.latency.series import histogram_edges
from framegate.evaluation.report.templating import template

if TYPE_CHECKING:
    from jinja2 import Template

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 900, 190, 60, 28, 22
_COLUMNS = {
    "p50": "p50_ms",
    "p90": "p90_ms",
    "p99": "p99_ms",
    "p99.9": "p99.9_ms",
    "max": "max_ms",
    "jitter": "jitter_ms",
}
_MARKED = ("p50", "p99", "p99.9")


def page_template() -> Template:
    """The template of the page; a command loads it before it measures for minutes.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    return template("framegate.benchmarks.latency", "page.html.j2")


def page(record: Mapping[str, Any]) -> str:
    """The page. All histograms share one axis of time, so that they can be compared by eye.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    series: Mapping[str, Any] = record["series"]
    edges = [histogram_edges(row["histogram"]) for row in series.values()]
    low, high = min(each[0] for each in edges), max(each[-1] for each in edges)
    return page_template().render(
        title=f"Latency of {record['bundle']['name']}",
        record=record,
        columns=_COLUMNS,
        drawings=[_drawing(name, row, low, high) for name, row in series.items()],
    )


@dataclass(frozen=True)
class _Place:
    """Something in a drawing, in its units; what it does not need stays empty."""

    x: str = ""
    y: str = ""
    width: str = ""
    height: str = ""
    text: str = ""


@dataclass(frozen=True)
class _Drawing:
    """One histogram.

    Attributes:
        name: Of the series.
        summary: The same in words, for those who cannot see it.
        bars: One for each bin that is not empty.
        marks: Percentiles.
        ticks: On the axis of time.
        counts: Powers of ten on the axis of counts.
        width: Of the whole drawing.
        height: Of the whole drawing.
        left: Where the axis of time begins.
        top: Where the highest bar ends.
        floor: Where the bars stand.
    """

    name: str
    summary: str
    bars: list[_Place]
    marks: list[_Place]
    ticks: list[_Place]
    counts: list[_Place]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    top: int = _TOP
    floor: int = _HEIGHT - _BOTTOM


def _drawing(name: str, row: Mapping[str, Any], low: float, high: float) -> _Drawing:
    counts, edges = row["histogram"]["counts"], histogram_edges(row["histogram"])
    tallest = math.log10(max(counts)) + 0.3
    floor = _HEIGHT - _BOTTOM

    def x(milliseconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 20) * math.log(milliseconds / low) / math.log(high / low)

    def y(count: float) -> float:
        return floor - (floor - _TOP) * (math.log10(count) + 0.3) / (tallest + 0.3)

    bars = [
        _Place(
            f"{x(left):.1f}", f"{y(count):.1f}", f"{max(x(right) - x(left) - 0.3, 0.5):.1f}", f"{floor - y(count):.1f}"
        )
        for count, left, right in zip(counts, edges, edges[1:], strict=False)
        if count
    ]
    marks = [
        _Place(f"{x(row[_COLUMNS[label]]):.1f}", f"{12 if k % 2 else _TOP}", text=label)
        for k, label in enumerate(_MARKED)
    ]
    return _Drawing(
        name,
        f"{name}: p50 {row['p50_ms']:.3f} ms, p99 {row['p99_ms']:.3f} ms, max {row['max_ms']:.3f} ms",
        bars,
        marks,
        [_Place(f"{x(t):.1f}", text=f"{t:g} ms") for t in _ticks(low, high)],
        [_Place(y=f"{y(10**p) + 4:.1f}", text=f"{10**p}") for p in range(int(tallest - 0.3) + 1)],
    )


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
    return [tick for tick in found if low <= tick <= high]
