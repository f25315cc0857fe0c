"""The tables of attacks and of certificates; see `framegate.benchmarks.tables`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framegate.evaluation.report.table import Row, Table
from framegate.evaluation.report.values import NOT_MEASURED, Cell

Record = Mapping[str, Any]
FORMAT = "framegate-certificate-figures-1"
"""Of what `framegate.benchmarks.certificates` writes."""


def attacks(records: Sequence[Record]) -> Table | str:
    """Attacks of every kind on every bundle: what they make wrong, and what of it the gate accepts."""
    if not records:
        return "Not yet measured: `make attacks CIFAR10=... GTSRB=...`."
    by_bundle = {record["bundle"]: {row["attack"]: row for row in record["rows"]} for record in records}
    names: dict[str, str] = {}
    for rows in by_bundle.values():
        names |= {name: row["aims_at"] for name, row in rows.items()}
    order = sorted(names, key=lambda name: _GROUPS.index(names[name]))
    return Table(
        "What attacks of many kinds make wrong / wrong and accepted by the gate",
        ("attack", "aims at", *by_bundle),
        [Row((name, names[name], *(_pair(rows.get(name)) for rows in by_bundle.values()))) for name in order],
        note="Wrong / wrong and accepted, of all attacked frames, with the 95 % interval of the second. "
        + "; ".join(
            f"{each['bundle']}: {each['frames']} test frames, adaptive {each['adaptive_frames']}" for each in records
        )
        + ". Every attack passed its health checks. The gate is the promised one, at the float32 network's threshold.",
    )


_GROUPS = ("nothing", "classifier", "another network", "classifier and gate")


def _pair(row: Record | None) -> Cell:
    if row is None:
        return Cell(NOT_MEASURED)
    accepted = row["wrong_and_accepted"]
    text = f"{100 * row['wrong']['value']:.1f} / {100 * accepted['value']:.1f} %"
    return Cell(text, f"[{100 * accepted['low']:.1f}, {100 * accepted['high']:.1f}]")


def certificates(records: Sequence[Record]) -> Table:
    """What each shipped certificate proves, covers and withstands."""
    return Table(
        "Certificates",
        ("bundle", "budget", "proved", "test frames: event", "test frames: certified", "tracks with a certified frame",
         "frames to the first", "attacked frames", "counterexamples"),
        [_certificate(record) for record in records],
        note="Proved: largest share of all captured units that can be made wrong and accepted, with 95 % confidence. "
        "Event: clean test frames on which an attacker within the budget might win, which the proof bounds; the "
        "interval counts frames singly, and frames of a track resemble each other. Tracks: of the calibration split.",
    )  # fmt: skip


def _certificate(record: Record) -> Row:
    test, tracks = record["test"]["shipped"], record["calibration"]["shipped"]
    attacked = record.get("attacks", {}).values()
    wait = tracks.get("frames_to_first")
    return Row(
        (
            record["bundle"],
            record["certificate"],
            Cell(f"{100 * record['risk_bound']:.2f} % of {record['unit']}s"),
            _share(test["event"]),
            _share(test["certified"]),
            Cell(f"{100 * tracks['tracks_certified']:.0f} %"),
            Cell(NOT_MEASURED if wait is None else f"{wait:g}"),
            Cell(f"{max(each['frames'] for each in attacked)} x {len(attacked)} attacks" if attacked else NOT_MEASURED),
            Cell(f"{sum(each['counterexamples'] for each in attacked)}" if attacked else NOT_MEASURED),
        )
    )


def _share(found: Record) -> Cell:
    return Cell(f"{100 * found['value']:.2f} %", f"[{100 * found['low']:.2f}, {100 * found['high']:.2f}]")
