"""A difference as a page, a record, and a few lines for the terminal."""

from __future__ import annotations

from pathlib import Path

from framegate.evaluation.drives.difference import Difference
from framegate.evaluation.drives.table import DriveTable
from framegate.evaluation.report.files import rounded, write_json, write_text
from framegate.evaluation.report.html import Part
from framegate.evaluation.report.templating import template
from framegate.evaluation.report.values import NOT_MEASURED, Cell, count
from framegate.runtime.console import to_stdout


def lines(found: Difference) -> list[str]:
    """In short."""
    whole = found.sections()[0].tables[0]
    said = []
    for row in whole.rows:
        name, *cells = (" ".join(each).strip() if isinstance(each, Cell) else each for each in row.cells)
        said.append(f"{name}: {cells[0]} before, {cells[1]} after, difference {cells[2]}")
    said.append(f"drives that change: {count(found.changed_drives)} of {count(len(found.drives))}")
    return said


def show(found: Difference) -> None:
    """Print it."""
    for line in lines(found):
        to_stdout(line)


def write_difference(found: Difference, table: DriveTable, path: Path) -> None:
    """Write the page or the record, whole or not at all.

    Raises:
        UsageError: Jinja2 is not installed.
        SinkError: The file cannot be written.
    """
    if path.suffix == ".json":
        write_json(path, rounded(found.to_json(), 12))
        return
    page = template("framegate.evaluation.report", "report.html.j2").render(
        title="What if",
        scope=f"{table.path.name}, decided again.",
        banner="",
        summary=lines(found),
        not_measured=NOT_MEASURED,
        slider=None,
        parts=[Part(section, ()) for section in found.sections()],
    )
    write_text(path, page)
