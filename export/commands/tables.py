"""The tables that export and calibration print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from framegate.export.checks.parity import ParityRow
from framegate.runtime.calibration import Calibration


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
    """What was promised, and on what it was proved."""
    first = next(iter(calibrations.values()))
    table = Table(
        title=f"Promise: at most {first.target_risk:.2%} of accepted frames wrong, with probability "
        f"{first.confidence_level:.0%}",
        caption="for frames like the calibration data; not under attack. Coverage and risk count frames outside the "
        "limits as rejected",
    )
    units = "images" if first.groups is None else "tracks"
    for column in ("", "temperature", "score", "<=", "coverage", "risk", "proved bound", units):
        table.add_column(column, justify="right" if column else "left")
    for key in sorted(calibrations):
        item = calibrations[key]
        table.add_row(
            key,
            f"{item.temperature:.3f}",
            item.score,
            f"{item.threshold:.4f}",
            f"{item.coverage:.1%}",
            f"{item.selective_risk:.2%}",
            f"{item.risk_bound:.2%}",
            str(item.size),
        )
    return table
