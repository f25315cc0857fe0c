"""``report.html``: one file, no fetches, readable on a phone, in the dark and on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framegate.evaluation.report.files import write_text
from framegate.evaluation.report.findings import failed_checks
from framegate.evaluation.report.slider import as_json, slider
from framegate.evaluation.report.summary import summary
from framegate.evaluation.report.table import Section, Table
from framegate.evaluation.report.tables import BANNER, sections, title
from framegate.evaluation.report.templating import template
from framegate.evaluation.report.values import NOT_MEASURED, check_format, follow, text
from framegate.runtime.errors import UsageError

if TYPE_CHECKING:
    from framegate.evaluation.report.style import Picture


def write_report(results: Mapping[str, Any], path: str | Path) -> None:
    """Write the report as one HTML file, whole or not at all.

    Args:
        results: A results record; what is missing from it is shown as not measured.
        path: Target file.

    Raises:
        DataError: The record is of another kind.
        UsageError: matplotlib or Jinja2 is not installed.
        SinkError: The file cannot be written.
    """
    check_format(results)
    try:
        from framegate.evaluation.report.plots import pictures
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise UsageError(
            "report: its figures need matplotlib, which is not installed; pip install 'framegate[evaluate]'"
        ) from error
    write_text(path, page(results, pictures(results)))


@dataclass(frozen=True)
class Part:
    """One section of the page.

    Attributes:
        section: Its heading and tables.
        pictures: Its figures.
    """

    section: Section
    pictures: Sequence[Picture]

    @property
    def empty(self) -> bool:
        """Whether nothing of it was measured."""
        return not self.section.tables and not self.pictures

    @property
    def checks(self) -> list[Table]:
        """The tables of passed and failed checks, which stand before the figures."""
        return [table for table in self.section.tables if any(row.mark in ("pass", "fail") for row in table.rows)]

    @property
    def tables(self) -> list[Table]:
        """All other tables."""
        return [table for table in self.section.tables if table not in self.checks]


def page(results: Mapping[str, Any], drawn: Mapping[str, Sequence[Picture]]) -> str:
    """The whole page as text, from the record and the figures of each section."""
    costs = slider(results)
    return template("framegate.evaluation.report", "report.html.j2").render(
        title=title(results),
        scope=_scope(results),
        banner=BANNER if failed_checks(results) else "",
        summary=summary(results),
        slider=costs,
        slider_data=as_json(costs) if costs else "",
        not_measured=NOT_MEASURED,
        parts=[Part(section, drawn.get(section.key, ())) for section in sections(results)],
    )


def _scope(results: object) -> str:
    """How much was measured, and on what."""
    limit = text(results, "limit")
    suite = f"Suite: {text(results, 'suite') or 'not recorded'}" + (f", limited to {limit} frames" if limit else "")
    facts = (("architecture", "Architecture"), ("data", "data"), ("precision", "precision"))
    about = ", ".join(f"{label} {found}" for key, label in facts if (found := text(results, "bundle", key)))
    unfinished = "Unfinished: the evaluation still ran when this was written. " if follow(results, "partial") else ""
    return f"{unfinished}{suite}. " + (f"{about}." if about else "")
