"""A table of the report, and how it reads as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from framegate.evaluation.report.values import NOT_MEASURED, Cell

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
"""What may begin HTML in Markdown (CommonMark 0.31, section 6.6)."""


@dataclass(frozen=True)
class Row:
    """One row: words as ``str``, figures as `Cell`.

    Attributes:
        cells: As many as the table has columns.
        mark: ``control`` (needs no network), ``best``, ``fail``, ``pass`` or nothing.
    """

    cells: tuple[str | Cell, ...]
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """Figures with their headings.

    Attributes:
        title: What the table shows.
        columns: One heading each.
        rows: At least one, else the table is left out.
        note: What the columns mean and on what they rest.
        folded: Long or secondary: shown closed on the page.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    note: str = ""
    folded: bool = False

    def figures(self) -> set[int]:
        """Columns that hold figures, to be aligned on the right."""
        return {k for row in self.rows for k, cell in enumerate(row.cells) if isinstance(cell, Cell)}


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        key: Under which the figures are found; an HTML id.
        title: Heading.
        about: One paragraph, or nothing.
        tables: Those with rows.
        missing: What stands there when the record holds nothing for this section.
    """

    key: str
    title: str
    about: str
    tables: tuple[Table, ...]
    missing: str = "Not measured in this run."


def of_columns(title: str, columns: Sequence[str], rows: Sequence[Row], note: str = "", folded: bool = False) -> Table:
    """A table without the columns in which nothing was measured (the first always stays)."""
    empty = Cell(NOT_MEASURED)
    kept = [k for k in range(len(columns)) if not k or any(row.cells[k] not in (empty, "") for row in rows)]
    slim = [Row(tuple(row.cells[k] for k in kept), row.mark) for row in rows]
    return Table(title, tuple(columns[k] for k in kept), slim, note, folded)


def markdown(table: Table) -> str:
    """The table as Markdown: title, grid, note."""
    note = ["", table.note] if table.note else []
    return "\n".join([f"**{_clean(table.title)}**", "", grid(table), *note]) + "\n"


def grid(table: Table) -> str:
    """The table's columns and rows as a Markdown table; columns of figures are aligned on the right."""
    right = table.figures()
    lines = [_line(map(_clean, table.columns))]
    lines.append("|" + "|".join("---:" if k in right else "---" for k in range(len(table.columns))) + "|")
    for row in table.rows:
        cells = [_clean(" ".join(cell).strip() if isinstance(cell, Cell) else cell) for cell in row.cells]
        if row.mark == "best":
            cells[0] = f"**{cells[0]}**"
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _clean(cell: str) -> str:
    """Escape what would leave the cell or begin HTML; ``<=`` begins none."""
    text = cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return _TAG.sub("&lt;", text)
