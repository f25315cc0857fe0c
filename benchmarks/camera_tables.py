"""The table of the camera check beside a monitor of the usual kind; see `framegate.benchmarks.tables`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framegate.evaluation.report.table import Row, Table, grid
from framegate.evaluation.report.values import Cell

Record = Mapping[str, Any]


def camera_rival(record: Record) -> str:
    """Delays and false alarms of both, on the same frames."""
    machine = record["machine"]
    where = (
        f"Rival: {record['learnt_s']} s learnt, {len(record['statistics'])} statistics, three standard deviations. "
        f"Each healthy scene lasts {record['scene_s']} s at {record['fps']} fps; {machine['date']}.\n\n"
    )
    healthy = [
        Row((name, *(Cell(text) for who in ("check", "rival") for text in _lost(part[who]))))
        for name, part in record["healthy"].items()
    ]
    faults = [
        Row((name, *(Cell(text) for who in ("check", "rival") for text in _found(part[who]))))
        for name, part in record["faults"].items()
    ]
    scenes = Table(
        "", ("healthy scene", "check: alarms an hour", "frames lost", "rival: alarms an hour", "lost"), healthy
    )
    found = Table("", ("fault, severity", "check: delay", "frames rejected", "rival: delay", "frames rejected"), faults)
    return f"{where}{grid(scenes)}\n{grid(found)}"


def _lost(part: Record) -> tuple[str, str]:
    return f"{part['per_hour']:.0f}", f"{100 * part['rejected']:.0f} %"


def _found(part: Record) -> tuple[str, str]:
    delay = "never" if part["ms"] is None else f"{part['ms']} ms"
    return ("alarm before it" if part["alarm_before"] else delay), f"{100 * part['rejected']:.0f} %"
