"""The tables of attacks and of certificates; see `framegate.benchmarks.tables`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framegate.benchmarks.table_text import paragraph
from framegate.evaluation.attack_rows import failed_checks
from framegate.evaluation.report.table import Row, Table, grid
from framegate.evaluation.report.values import NOT_MEASURED, Cell

Record = Mapping[str, Any]
FORMAT = "framegate-certificate-figures-1"
"""Of what `framegate.benchmarks.certificates` writes."""


def attacks(records: Sequence[Record]) -> Table | str:
    """Attacks of every kind on every bundle: what they make wrong, and what of it the gate accepts."""
    if not records:
        return _MISSING
    columns = _columns(records)
    names: dict[str, str] = {}
    for column in columns:
        names |= {name: row["aims_at"] for name, row in column.rows.items()}
    order = sorted(names, key=lambda name: _GROUPS.index(names[name]))
    return Table(
        "Wrong frames / of these accepted by the gate",
        ("attack", "aims at", *(column.title for column in columns)),
        [Row((name, names[name], *(_pair(column, name) for column in columns))) for name in order],
        note="Both numbers are shares of all attacked frames, with the 95 % interval of the second; 90.0 / 30.0 % "
        "means that of 100 attacked frames 90 are wrong, and 30 of these are accepted, so used without a warning. "
        f"{_circumstances(records)} The gate is the promised one, at the float32 network's threshold.",
    )


def attacks_short(records: Sequence[Record]) -> str:
    """What gets through, for README: one row a kind of attack, wrong and accepted only."""
    if not records:
        return _MISSING
    columns = _columns(records)
    rows = [
        Row((words, *(_accepted(column, name) for column in columns)))
        for name, words in _SHORT.items()
        if any(name in column.rows for column in columns)
    ]
    table = grid(Table("", ("wrong and accepted, of all frames", *(column.title for column in columns)), rows))
    return f"{table.rstrip()}\n\n{paragraph(_circumstances(records))}"


_MISSING = "Not yet measured: `make attacks CIFAR10=... GTSRB=...`."
_GROUPS = ("nothing", "classifier", "another network", "classifier and gate")
_SHORT = {
    "none": "no attack",
    "PGD-20 8/255": "PGD-20, 8/255",
    "PGD-20 2/255": "PGD-20, 2/255",
    "PGD-20 L2 0.5": "PGD-20, L2 0.5",
    "patch 5x5": "a patch of 5x5 pixels",
    "rotation 20 degrees, shift 3": "rotated by 20 degrees, shifted by 3 pixels",
    "transfer of PGD-20 8/255": "PGD-20, 8/255, made for another network",
    "adaptive 2/255": "aimed at network and gate, 2/255",
    "adaptive 8/255": "aimed at network and gate, 8/255",
}
"""Rows of the short table, and how they are called there."""


@dataclass(frozen=True)
class _Column:
    """A bundle, or a bundle with a certificate.

    Attributes:
        title: Heading.
        rows: Of the record, by the attack's name.
        key: Which share counts as accepted.
    """

    title: str
    rows: Mapping[str, Record]
    key: str = "wrong_and_accepted"


def _columns(records: Sequence[Record]) -> list[_Column]:
    found = []
    for record in records:
        rows = {row["attack"]: row for row in record["rows"]}
        found.append(_Column(record["bundle"], rows))
        if record.get("certificate"):
            budget = record["certificate"].partition(" ")[0]
            title = f"{record['bundle']}, certificate of {budget} required"
            found.append(_Column(title, rows, "wrong_accepted_and_certified"))
    return found


def _circumstances(records: Sequence[Record]) -> str:
    """Frames of each record, and what the health checks of its attacks said."""
    frames = "; ".join(_frames(each) for each in records)
    failed = [f"{each['bundle']} ({', '.join(names)})" for each in records if (names := failed_checks(each))]
    said = (
        f"Health checks of the attacks failed for {'; '.join(failed)}: do not quote these columns."
        if failed
        else "The attacks passed all their health checks."
    )
    return f"Test frames: {frames}. A gate that accepts little on clean frames lets little through. {said}"


def _frames(record: Record) -> str:
    """How many frames were attacked, and how many of the clean ones the gate accepts."""
    aimed = f"{record['adaptive_frames']} of them" if record["adaptive_frames"] else "none"
    text = f"{record['bundle']} {record['frames']}, {aimed} under attacks that aim at network and gate"
    clean: Record = next((row for row in record["rows"] if row["attack"] == "none"), {})
    if "accepted" in clean:
        text += f", {100 * clean['accepted']['value']:.0f} % accepted without attack"
    if "accepted_and_certified" in clean:
        text += f", {100 * clean['accepted_and_certified']['value']:.0f} % with the certificate"
    return text


def _pair(column: _Column, name: str) -> Cell:
    if name not in column.rows:
        return Cell(NOT_MEASURED)
    row = column.rows[name]
    accepted = row[column.key]
    text = f"{100 * row['wrong']['value']:.1f} / {100 * accepted['value']:.1f} %"
    return Cell(text, f"[{100 * accepted['low']:.1f}, {100 * accepted['high']:.1f}]")


def _accepted(column: _Column, name: str) -> Cell:
    if name not in column.rows:
        return Cell(NOT_MEASURED)
    found = column.rows[name][column.key]
    return Cell(f"{100 * found['value']:.0f} %", f"[{100 * found['low']:.0f}, {100 * found['high']:.0f}]")


_NO_TRACKS = "no tracks"
"""Of data whose frames are single pictures."""


def certificates(records: Sequence[Record]) -> Table:
    """What each shipped certificate proves, covers and withstands."""
    return Table(
        "Certificates",
        ("bundle", "budget", "engine", "ms each", "proved", "test frames: event", "test frames: certified",
         "tracks with a certified frame", "frames to the first", "attacked frames", "counterexamples"),
        [_certificate(record) for record in records],
        note="Proved: largest share of all captured units that can be made wrong and accepted, with 95 % confidence. "
        "Event: clean test frames on which an attacker within the budget might win, which the proof bounds; the "
        "interval counts frames singly, and frames of a track resemble each other. Tracks: of the calibration split. "
        "Ms each: median of one certificate on the two cores that measured the row; they have several speeds.",
    )  # fmt: skip


def _certificate(record: Record) -> Row:
    test, tracks = record["test"]["shipped"], record["calibration"]["shipped"]
    attacked = record.get("attacks", {}).values()
    wait = tracks.get("frames_to_first")
    return Row(
        (
            record["bundle"],
            record["certificate"],
            record["engine"],
            Cell(f"{record['cost']['certificate_p50_us'] / 1e3:.2f}" if "cost" in record else NOT_MEASURED),
            Cell(f"{100 * record['risk_bound']:.2f} % of {record['unit']}s"),
            _share(test["event"]),
            _share(test["certified"]),
            Cell(f"{100 * tracks['tracks_certified']:.0f} %" if "tracks_certified" in tracks else _NO_TRACKS),
            Cell(f"{wait:g}" if wait is not None else NOT_MEASURED if "tracks_certified" in tracks else _NO_TRACKS),
            Cell(f"{max(each['frames'] for each in attacked)} x {len(attacked)} attacks" if attacked else NOT_MEASURED),
            Cell(f"{sum(each['counterexamples'] for each in attacked)}" if attacked else NOT_MEASURED),
        )
    )


def _share(found: Record) -> Cell:
    return Cell(f"{100 * found['value']:.2f} %", f"[{100 * found['low']:.2f}, {100 * found['high']:.2f}]")
