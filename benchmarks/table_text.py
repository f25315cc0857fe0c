"""What the tables of this room share: the type of a record, Markdown tables of figures, paragraphs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from framegate.evaluation.report.table import Row, Table, grid
from framegate.evaluation.report.values import Cell

Record = Mapping[str, Any]


def figures_grid(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table whose first columns are text and all others figures."""
    return grid(Table("", tuple(columns), [Row((*row[:texts], *map(Cell, row[texts:]))) for row in rows]))


def paragraph(text: str) -> str:
    """Wrapped as documents are; a number stays on the line of its percent sign."""
    unbroken = text.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.fill(unbroken, 120, break_on_hyphens=False, break_long_words=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")
