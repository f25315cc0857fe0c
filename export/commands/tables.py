"""The tables that export and calibration print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from framegate.export.checks.parity import ParityRow
from framegate.runtime.bundle.calibration import UNITS, Calibration


def parity_table(rows: Sequence[ParityRow]) -> Table:
    """How close every exported file is to the trained network."""
    compared, images = rows[0].compared, rows[0].test_images
    table = Table(title=f"Beside the trained network ({compared} test images; last three columns: all {images})")
    columns = ("", "accuracy", "same label", "same verdict", "logit difference", "accuracy", "coverage", "risk")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        risk = "-" if row.test_selective_risk is None else f"{row.test_selective_risk:.2%}"
        table.add_row(
            row.key,
            f"{row.accuracy:.1%}",
            f"{row.agreement:.1%}",
            f"{row.verdict_agreement:.1%}",
            f"{row.largest_difference:.2g}",
            f"{row.test_accuracy:.2%}",
            f"{row.test_coverage:.1%}",
            risk,
        )
    return table


def calibration_table(calibrations: Mapping[str, Calibration]) -> Table:
    """What was promised, and what was counted."""
    first = next(iter(calibrations.values()))
    what = "new units with a wrong accept" if first.about == UNITS else f"accepted frames wrong, for {first.drawn}"
    title = f"Promise: at most {first.target_risk:.2%} of {what}; {first.confidence_level:.0%} confidence"
    table = Table(
        title=first.unproved or title,
        caption="for frames like the calibration data; not under attack. Coverage and risk count frames outside the "
        "limits as rejected. Given that a threshold was issued, nothing more is promised",
    )
    units = "images" if first.groups is None else f"{first.unit or 'track'}s"
    columns = ("", "temperature", "score", "<=", "coverage", "wrong / counted", units)
    with_units = first.units_wrong is not None
    for column in (*columns, *([f"{units} with a wrong accept", "of new ones at most"] if with_units else [])):
        table.add_column(column, justify="right" if column else "left")
    for key in sorted(calibrations):
        item = calibrations[key]
        errors, trials = item.counts
        row = [
            key,
            f"{item.temperature:.3f}",
            item.score,
            f"{item.threshold:.4f}",
            f"{item.coverage:.1%}",
            f"{errors} / {trials}",
            str(item.size),
        ]
        if with_units:
            bound = "-" if item.units_bound is None else f"{item.units_bound:.1%}"
            row += [f"{item.units_wrong} of {item.size}", bound]
        table.add_row(*row)
        for each in item.classes:
            own = (f"{each.threshold:.4f}", "", f"{each.errors} / {each.accepted}", "")
            table.add_row(f"  read as {each.label}: {each.target_risk:.2%}", "", "", *own)
    return table
