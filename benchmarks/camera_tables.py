"""The table of the camera check beside a monitor of the usual kind; see `framegate.benchmarks.tables`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framegate.evaluation.report.table import Row, Table, grid
from framegate.evaluation.report.values import NOT_MEASURED, Cell

Record = Mapping[str, Any]
_BOTH = ("check", "rival")


def camera_rival(record: Record) -> str:
    """Delays and false alarms of both, on the same frames."""
    machine = record["machine"]
    where = (
        f"Rival: {record['learnt_s']} s learnt, {len(record['statistics'])} statistics, three standard deviations. "
        f"Each healthy scene lasts {record['scene_s']} s at {record['fps']} fps; {machine['date']}.\n\n"
    )
    healthy = [
        Row((f"{name}, {camera} camera", *(Cell(text) for who in _BOTH for text in _lost(part[who]))))
        for camera, found in record["cameras"].items()
        for name, part in found["healthy"].items()
    ]
    cameras = list(record["cameras"].values())
    faults = [
        Row((name, *(Cell(_found(camera["faults"].get(name), who)) for camera in cameras for who in _BOTH)))
        for name in cameras[0]["faults"]
    ]
    columns = ("healthy scene", "check: alarms an hour", "frames lost", "rival: alarms an hour", "frames lost")
    scenes = Table("", columns, healthy)
    names = [f"{who}, {camera}" for camera in record["cameras"] for who in _BOTH]
    found = Table("", ("fault, severity", *names), faults)
    return f"{where}{grid(scenes).rstrip()}\n\n{grid(found).rstrip()}"


def _lost(part: Record) -> tuple[str, str]:
    return f"{part['per_hour']:.0f}", f"{100 * part['rejected']:.0f} %"


def _found(row: Record | None, who: str) -> str:
    if row is None:
        return NOT_MEASURED
    if row[who]["alarm_before"]:
        return "alarm before it"
    return "never" if row[who]["ms"] is None else f"{row[who]['ms']} ms"
