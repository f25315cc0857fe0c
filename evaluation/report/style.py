"""How the report's figures look, and how they become part of a page that fetches nothing.

Figures are inline SVG. Text, axes and grid are drawn in two placeholder colours that become CSS variables, so that a
figure follows the page from light to dark and into print. The data colours are those of Okabe and Ito ("Color
Universal Design", 2008), which people with any colour vision tell apart; marker and line style repeat the distinction.
Figures are as narrow as a phone, so that their text stays readable there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from itertools import cycle, islice
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from framegate.evaluation.report.values import Estimate

BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, GREY = "#cc79a7", "#56b4e9", "#8a8f98"
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[str, ...] = ("-", "--", "-.", ":")
WIDTH = 5.2  # inches; 374 points: about one point to a pixel of a phone

_INK, _GRID = "#010a0b", "#020d0e"
_STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 10.0,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.7,
    "grid.color": _GRID,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.constrained_layout.use": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    # Text stays text: searchable, small, and set in the page's own font.
    "svg.fonttype": "none",
    "svg.hashsalt": "framegate",
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure with what a reader needs beside it.

    Attributes:
        name: Unique in the report; letters, digits and dashes.
        title: Heading.
        caption: What it shows and how many frames it rests on.
        alt: The same in words, with the figures that matter, for those who can't see it.
        figure: The matplotlib figure.
        wide: It needs the whole width of a page (scrolls sideways on a phone).
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    wide: bool = False

    def svg(self) -> str:
        """The figure as an ``<svg>`` element with ids of its own and without fixed size."""
        stream = io.StringIO()
        with style():
            self.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        markup = stream.getvalue()
        markup = markup[markup.index("<svg") :]
        markup = re.sub(r"<metadata>.*?</metadata>", "", markup, flags=re.DOTALL)
        for pattern in (r'(\bid=")', r'(href="#)', r"(url\(#)"):
            markup = re.sub(pattern, rf"\g<1>{self.name}-", markup)
        markup = markup.replace(_INK, "var(--ink)").replace(_GRID, "var(--grid)")
        opening, rest = markup.split(">", 1)
        opening = re.sub(r'\s(width|height|version)="[^"]*"', "", opening)
        width, height = self.figure.get_size_inches()
        return (
            f'{opening} role="img" aria-label="{escape(self.alt, quote=True)}" '
            f'style="aspect-ratio:{width:.2f}/{height:.2f}">{rest.strip()}'
        )


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style, whatever the process has set up, without changing it for anybody else."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def new_figure(height: float = 3.4, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure (inches) on the Agg canvas, with one pair of axes."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def looks(number: int) -> list[tuple[str, str, str]]:
    """(colour, marker, line style) of each of ``number`` series, no two alike among the first 28."""
    return list(islice(zip(cycle(SERIES), cycle(MARKERS), cycle(LINES), strict=False), number))


def legend_below(axes: Axes, columns: int = 2) -> None:
    """Put the legend under the axes, where it covers no data."""
    figure = axes.get_figure()
    if figure is not None and axes.get_legend_handles_labels()[1]:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def percent_axis(axes: Axes, which: str = "y") -> None:
    """Label the ticks of a share in [0, 1] as percent."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(lambda value, _position: f"{value * 100:g} %")


def error_bars(found: list[Estimate]) -> tuple[list[float], list[list[float]]]:
    """Values and the (2, n) distances to the ends of their intervals, as matplotlib's errorbar takes them."""
    spreads = [item.spread() for item in found]
    return [item.value for item in found], [[low for low, _ in spreads], [high for _, high in spreads]]


def cell_number(axes: Axes, row: float, column: float, number: str, colour: str) -> None:
    """Write a number into a cell of a heat map, without slowing the layout down: it never leaves its cell."""
    axes.text(column, row, number, ha="center", va="center", fontsize=8, color=colour, in_layout=False)


def on_colour(red: float, green: float, blue: float) -> str:
    """Black or white, whichever reads better on this colour (components in [0, 1]; luma of ITU-R BT.601)."""
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "#ffffff"
