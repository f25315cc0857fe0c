"""``report.html``: one file, no fetches, readable on a phone, in the dark and on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape as escape_markup
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framegate.evaluation.report.findings import failed_checks
from framegate.evaluation.report.page import CSS
from framegate.evaluation.report.summary import summary
from framegate.evaluation.report.table import Section, Table, write_text
from framegate.evaluation.report.tables import BANNER, sections, title
from framegate.evaluation.report.values import NOT_MEASURED, Cell, check_format, text
from framegate.runtime.errors import UsageError

if TYPE_CHECKING:
    from framegate.evaluation.report.style import Picture

_ROOMY = 5  # columns of figures; with more, intervals go below their figures


def write_report(results: Mapping[str, Any], path: str | Path) -> None:
    """Write the report as one HTML file, whole or not at all.

    Args:
        results: A results record; what is missing from it is shown as not measured.
        path: Target file.

    Raises:
        DataError: The record is of another kind.
        UsageError: matplotlib is not installed.
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


def page(results: Mapping[str, Any], drawn: Mapping[str, Sequence[Picture]]) -> str:
    """The whole page as text, from the record and the figures of each section."""
    parts = sections(results)
    heading = _text(title(results))
    banner = f'<p class="banner" role="alert">{_text(BANNER)}</p>' if failed_checks(results) else ""
    limited = text(results, "limit")
    scope = f"Suite: {text(results, 'suite') or 'not recorded'}" + (f", limited to {limited} frames" if limited else "")
    contents = "".join(f'<li><a href="#{part.key}">{_text(part.title)}</a></li>' for part in parts)
    body = "".join(_section(part, drawn.get(part.key, ())) for part in parts)
    sentences = "".join(f"<li>{_text(sentence)}</li>" for sentence in summary(results))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{heading}</title><style>{CSS}</style></head>\n<body><main>"
        f'<h1>{heading}</h1><p class="scope">{_text(scope)}. {_text(_about(results))}</p>{banner}'
        f'<section id="summary"><h2>In short</h2><ul class="summary">{sentences}</ul>'
        f'<p class="note">Intervals are 95 %. {NOT_MEASURED} means not measured. Coverage = accepted / evaluated; '
        "false accept = wrong and accepted; a score is higher where a frame is less trustworthy; entropy in nats.</p>"
        f"</section><nav><ul>{contents}</ul></nav>{body}</main></body></html>\n"
    )


def _about(results: object) -> str:
    facts = (("architecture", "Architecture"), ("data", "data"), ("precision", "precision"))
    found = [f"{label} {text(results, 'bundle', key)}" for key, label in facts if text(results, "bundle", key)]
    return ", ".join(found) + ("." if found else "")


def _section(part: Section, drawn: Sequence[Picture]) -> str:
    heading = f'<section id="{part.key}"><h2>{_text(part.title)}</h2>'
    if not part.tables and not drawn:
        return f'{heading}<p class="missing">{_text(part.missing)}</p></section>\n'
    about = f"<p>{_text(part.about)}</p>" if part.about else ""
    checks = [table for table in part.tables if any(row.mark in ("pass", "fail") for row in table.rows)]
    rest = [table for table in part.tables if table not in checks]
    figures = "".join(_figure(picture) for picture in drawn)
    grid = f'<div class="figures">{figures}</div>' if figures else ""
    return f"{heading}{about}{''.join(map(_table, checks))}{grid}{''.join(map(_table, rest))}</section>\n"


def _figure(picture: Picture) -> str:
    wide = ' class="wide"' if picture.wide else ""
    return (
        f'<figure{wide} id="figure-{picture.name}"><h3>{_text(picture.title)}</h3>'
        f'<div class="draw">{picture.svg()}</div>'
        f"<figcaption>{_text(picture.caption)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    right = table.figures()
    head = "".join(
        f'<th scope="col"{_align(k in right)}>{_text(column)}</th>' for k, column in enumerate(table.columns)
    )
    rows = "".join(
        f"<tr{_class(row.mark)}>"
        + "".join(_cell(cell, k == 0, k in right) for k, cell in enumerate(row.cells))
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    dense = ' class="dense"' if len(right) > _ROOMY else ""
    header = f"<thead><tr>{head}</tr></thead>" if any(table.columns) else ""
    drawn = f'<div class="scroll" tabindex="0"><table{dense}>{header}<tbody>{rows}</tbody></table></div>{note}'
    caption = _text(table.title)
    if table.folded:
        return f"<details><summary>{caption}</summary>{drawn}</details>"
    return f'<div class="table"><h3>{caption}</h3>{drawn}</div>'


def _cell(cell: str | Cell, first: bool, right: bool) -> str:
    if isinstance(cell, Cell):
        interval = f" <small>{_text(cell.interval)}</small>" if cell.interval else ""
        content = f"{_text(cell.text)}{interval}"
    else:
        content = _text(cell)
    tag = 'th scope="row"' if first else "td"
    return f"<{tag}{_align(right)}>{content}</{tag.partition(' ')[0]}>"


def _align(right: bool) -> str:
    return ' class="figure"' if right else ""


def _class(mark: str) -> str:
    return f' class="{mark}"' if mark else ""


def _text(plain: str) -> str:
    """Escaped, and with a percent sign that stays on the line of its number."""
    return escape_markup(plain).replace(" %", "&nbsp;%")
