"""The table of foreign networks from file to gated verdicts; see `framegate.benchmarks.tables`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framegate.evaluation.report.table import Row, Table, grid
from framegate.evaluation.report.values import NOT_MEASURED, Cell

Record = Mapping[str, Any]
_COLUMNS = (
    "network", "export: processor time", "promised", "held back: wrong of accepted", "risk there", "images accepted",
    "monitor", "its processor time", "with it: wrong of accepted",
)  # fmt: skip


def foreign_networks(record: Record) -> str:
    """One row a network: of its engines, the one whose promise came nearest to being broken."""
    rows = [
        Row((network["kind"], *_export(network), *_monitor(network.get("monitor")))) for network in record["networks"]
    ]
    machine = record["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, shared with other work; {machine['date']}."
    return f"{grid(Table('', _COLUMNS, rows)).rstrip()}\n\n{where}"


def _export(network: Record) -> tuple[Cell, ...]:
    seconds = Cell(f"{network['export']['cpu_s']:.0f} s")
    if "verdicts" not in network:
        said = "refused, as expected" if network["as_expected"] else "refused"
        return seconds, Cell(said), *[Cell(NOT_MEASURED)] * 3
    worst = _worst(network["verdicts"])
    return (
        seconds,
        Cell(f"{100 * worst['promised_risk']:g} %"),
        Cell(f"{worst['wrong']} of {worst['accepted']}"),
        _risk(worst),
        Cell(f"{100 * worst['accepted'] / worst['images']:.0f} %"),
    )


def _monitor(monitor: Record | None) -> tuple[Cell, ...]:
    if monitor is None:
        return (Cell(NOT_MEASURED),) * 3
    seconds = Cell(f"{monitor['cpu_s']:.0f} s")
    if "verdicts" not in monitor:
        return Cell("refused with its figures"), seconds, Cell(NOT_MEASURED)
    worst = _worst(monitor["verdicts"])
    return Cell("works"), seconds, Cell(f"{worst['wrong']} of {worst['accepted']}")


def _worst(verdicts: Record) -> Record:
    found: Record = min(verdicts.values(), key=lambda each: each["probability_if_kept"])
    return found


def _risk(found: Record) -> Cell:
    risk = found["risk"]
    if risk is None:
        return Cell(NOT_MEASURED)
    return Cell(f"{100 * risk['value']:.2f} %", f"[{100 * risk['low']:.2f}, {100 * risk['high']:.2f}]")
