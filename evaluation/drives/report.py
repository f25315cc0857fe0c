"""One HTML page about a table of drives. DuckDB counts, the templates of `framegate.evaluation.report` show."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from framegate.evaluation.drives.intervals import FEWEST, ratio
from framegate.evaluation.drives.questions import Questions, Rows
from framegate.evaluation.drives.table import DriveTable
from framegate.evaluation.report.files import write_text
from framegate.evaluation.report.html import Part
from framegate.evaluation.report.table import Row, Section, Table
from framegate.evaluation.report.templating import template
from framegate.evaluation.report.values import NOT_MEASURED, Cell, count, percent, plain
from framegate.runtime.errors import DataError, UsageError

_SHOWN = 50


def write_report(table: DriveTable, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        DataError: The table has no verdict on a frame.
        UsageError: matplotlib or Jinja2 is not installed.
        SinkError: The file cannot be written.
    """
    try:
        from framegate.evaluation.drives import plots
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise UsageError("drives report: matplotlib is not installed; pip install 'framegate[drives]'") from error
    questions = Questions(table)
    whole = questions.per("'all'")
    if not whole:
        raise DataError(f"{table.path}: it holds no verdict on a frame, so there is nothing to report")
    drives = len(whole)
    verdicts, accepted, labelled, wrong = (sum(int(row[k]) for row in whole) for k in range(2, 6))
    summary = [
        f"{count(verdicts)} verdicts in {plots.drive_count(drives)}: {accepted / verdicts:.1%} accepted.",
        f"Of {count(labelled)} accepted verdicts with a label {count(wrong)} are wrong."
        if labelled
        else "No accepted verdict has a label, so nothing is known about wrong accepts.",
    ]
    if table.about.broken:
        summary.append(f"{count(len(table.about.broken))} files are damaged; the last table names them.")
    coverage, reasons, scores = plots.pictures(questions)
    page = template("framegate.evaluation.report", "report.html.j2").render(
        title="Recorded drives",
        scope=f"{table.path.name}. Intervals are over drives; fewer than {FEWEST} have none.",
        banner="",
        summary=summary,
        not_measured=NOT_MEASURED,
        slider=None,
        parts=[
            Part(_coverage(questions), [coverage]),
            Part(_reasons(questions, verdicts), [reasons]),
            Part(_scores(questions), [scores]),
            Part(_damaged(table), ()),
        ],
    )
    write_text(path, page)


def _figures(rows: Rows) -> tuple[Cell, ...]:
    """Verdicts, coverage, labelled accepts and risk of some drives."""
    numbers = np.array([row[2:6] for row in rows], np.int64)
    verdicts, accepted, labelled, wrong = numbers.T
    return (
        Cell(count(len({row[1] for row in rows}))),
        Cell(count(int(verdicts.sum()))),
        percent(ratio(accepted, verdicts)),
        Cell(count(int(labelled.sum()))),
        percent(ratio(wrong, labelled)),
    )


def _per(questions: Questions, name: str, title: str, shown: str) -> Table:
    rows = questions.per(name)
    groups: dict[str, Rows] = {}
    for row in rows:
        groups.setdefault(str(row[0]), []).append(row)
    columns = (shown, "drives", "verdicts", "coverage", "labelled accepts", "wrong among them")
    body = [Row((key, *_figures(each))) for key, each in list(groups.items())[:_SHOWN]]
    more = f"{len(groups) - _SHOWN} more are left out." if len(groups) > _SHOWN else ""
    return Table(title, columns, body, more)


def _coverage(questions: Questions) -> Section:
    tables = (
        _per(questions, "camera", "Per camera", "camera"),
        _per(questions, "region", "Per region", "region"),
        _per(questions, "bundle || ' ' || bundle_digest[:12]", "Per bundle", "bundle"),
        _per(questions, "calibration", "Per calibration", "calibration"),
        _per(questions, "drive", "Per drive", "drive"),
    )
    return Section(
        "coverage", "Coverage and risk", "Wrong among the labelled and accepted: where labels exist.", tables
    )


def _reasons(questions: Questions, verdicts: int) -> Section:
    rows = questions.ask(
        """select reason, count(*), count(distinct drive), min(recorded_at)::varchar, max(recorded_at)::varchar
        from (select drive, recorded_at, unnest(string_split(reasons, ' ')) as reason from drives where not accepted)
        group by reason order by 2 desc, 1"""
    )
    body = [
        Row(
            (
                str(name),
                Cell(count(n)),
                Cell(f"{n / verdicts:.1%}"),
                Cell(count(drives)),
                str(first)[:19],
                str(last)[:19],
            )
        )
        for name, n, drives, first, last in rows
    ]
    columns = ("reason", "verdicts", "of all", "drives", "first (UTC)", "last (UTC)")
    tables = (Table("Why verdicts were rejected", columns, body, "One verdict can have several."),) if body else ()
    return Section("reasons", "Reasons over time", "", tables, "Nothing was rejected.")


def _scores(questions: Questions) -> Section:
    rows = questions.ask(
        """select drive, camera, region, median(score), any_value(threshold),
            count(*) filter (list_contains(string_split(reasons, ' '), 'DRIFT')), count(*)
        from drives where isfinite(score) group by all order by 6 desc, 4 desc, 1, 2, 3"""
    )
    body = [
        Row(
            (
                f"{drive}, {camera}, {region}",
                plain(middle),
                plain(threshold),
                Cell(count(drift)),
                Cell(f"{drift / n:.1%}"),
            )
        )
        for drive, camera, region, middle, threshold, drift, n in rows[:_SHOWN]
    ]
    note = f"{len(rows) - _SHOWN} more streams are left out." if len(rows) > _SHOWN else ""
    columns = ("stream", "median score", "threshold", "DRIFT", "of its verdicts")
    tables = (Table("Drift, the worst streams first", columns, body, note),) if body else ()
    return Section("drift", "Scores and drift", "", tables, "No verdict has a score.")


def _damaged(table: DriveTable) -> Section:
    body = [Row((name, why)) for name, why in sorted(table.about.broken.items())[:_SHOWN]]
    tables = (Table("Files of which something is missing", ("file", "why"), body),) if body else ()
    return Section("files", "Damaged files", "", tables, "All files were whole.")
