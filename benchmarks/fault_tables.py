"""Tables of faults and of the hand-over, for docs: `framegate.benchmarks.tables` puts them there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framegate.benchmarks.latency.tables import spread
from framegate.benchmarks.table_text import Record, figures_grid, paragraph
from framegate.runtime.cli.tables import counts


def fail_closed(record: Record) -> str:
    """What could be read under faults around a frame's judgement."""
    rows = [
        (
            row["fault"],
            row["what"],
            f"rejected: {counts(row['instead'])}",
            f"{row['unsafe_accepts']} of {row['read']}",
            f"{row['within_ms']:.0f} ms",
        )
        for row in record["faults"]
    ]
    table = figures_grid(("fault", "what is injected", "what is read", "unsafe ACCEPT", "within"), rows, texts=3)
    where = f"{record['bundle']}, {record['engine']}; {record['machine']['cpu']}, {record['date']}."
    return f"{paragraph(where)}\n\n{table}"


def handover_faults(record: Record) -> str:
    """What was usable under faults between sender and receiver."""

    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f} ms"

    rows = [
        (
            row["fault"],
            row["what"].rstrip("."),
            counts({name.upper(): count for name, count in row["found"].items() if name != "lost_messages"}),
            f"{row['usable_share']:.0%}",
            ms(row["reaction_ms"]),
            ms(row["recovery_ms"]),
            f"{row['unsafe']} of {row['read']}",
        )
        for row in record["faults"]
    ]
    header = ("fault", "what is injected", "found", "usable meanwhile", "closed within", "usable again", "unsafe")
    where = f"Over {record['transport']}; {record['machine']['cpu']}, {record['date']}."
    if record.get("load"):
        where += f" Load average at the start: {record['load']:.0f} on {record['machine']['cores']} cores."
    return f"{paragraph(where)}\n\n{figures_grid(header, rows, texts=3)}"


def fail_closed_time(record: Record) -> str:
    """What those checks take, beside the same work without them."""
    rows = [
        (
            row["configuration"],
            _figures(row["bare"]),
            _figures(row["checked"]),
            spread(row["p50"]),
            spread(row["p99"]),
            "yes" if row["p50"]["ratio"] <= record["allowed"] else "no",
        )
        for row in record["rows"]
    ]
    columns = ("engine", "without", "with", "p50 ratio", "p99 ratio", f"p50 at most {record['allowed']}")
    said = f"p50 / p99 / p99.9 / max in ms of {record['rows'][0]['frames']:,} frames each, measured in turns."
    copy = record["copy"]
    copied = f"A frame of {copy['of']} whose source keeps its array is copied: p50 {copy['p50_ms']:.2f} ms."
    where = f"{record['bundle']}; {record['machine']['cpu']}, {record['date']}."
    return f"{paragraph(f'{said} {copied} {where}')}\n\n{figures_grid(columns, rows)}"


def _figures(part: Mapping[str, float]) -> str:
    return " / ".join(f"{part[name]:.2f}" for name in ("p50_ms", "p99_ms", "p99.9_ms", "max_ms"))


def handover_faults_elsewhere(udp: Record, *others: Record) -> str:
    """The campaign over the other transports, beside that over UDP."""
    records = (udp, *others)
    rows = [
        (row["fault"], *(_outcome(record, row["fault"]) for record in records), _unsafe(records, row["fault"]))
        for row in udp["faults"]
        if any(row["fault"] == each["fault"] for record in others for each in record["faults"])
    ]
    header = ("fault", *(record["transport"] for record in records), "unsafe")
    loads = ", ".join(f"{record['transport']} {record['load']:.0f}" for record in records)
    where = f"{udp['machine']['cpu']}, {udp['date']}; load average at the start: {loads}."
    said = f"Closed within / usable again, in ms; -: not closed, or not at all. {where}"
    return f"{paragraph(said)}\n\n{figures_grid(header, rows)}"


def _outcome(record: Record, fault: str) -> str:
    row = next((row for row in record["faults"] if row["fault"] == fault), None)
    if row is None:
        return "not run"
    return " / ".join("-" if row[name] is None else f"{row[name]:.0f}" for name in ("reaction_ms", "recovery_ms"))


def _unsafe(records: Sequence[Record], fault: str) -> str:
    rows = [row for record in records for row in record["faults"] if row["fault"] == fault]
    return f"{sum(row['unsafe'] for row in rows)} of {sum(row['read'] for row in rows)}"


_LIMITS_MS = {"udp": (0.08, 0.5), "udp to C": (0.08, 0.5), "zenoh": (0.25, 1.0)}
"""p50 and p99 from decided to the receiver's decision; of the transport, however its ends are scheduled."""


def handover_speed(record: Record) -> str:
    """What the hand-over takes, beside its targets."""
    streams = record["streams_percent_of_a_core"]
    figures = (
        ("encode, Python", record["python_us"]["encode"], "us", 5.0),
        ("feed a message, C", record["c_us"]["feed"], "us", 1.0),
        ("feed a message, Python", record["python_us"]["feed"], "us", None),
        ("100 streams at 30 Hz, sender", streams["sender"], "% of a core", 10.0),
        ("100 streams at 30 Hz, receiver in Python", streams["receiver"], "% of a core", 10.0),
    )
    rows = [
        (
            what,
            f"{value:.2f} {unit}",
            "" if limit is None else f"{limit:g} {unit}",
            "" if limit is None else "yes" if value <= limit else "no",
        )
        for what, value, unit, limit in figures
    ]
    where = (
        f"{record['machine']['cores']} cores of {record['machine']['cpu']}, {record['busy']} of them kept busy, "
        f"{record['date']}; load average before that: {record['load']:.0f}."
    )
    ways = (
        "From decided to the receiver's decision, and what that is made of: until the message is sent (made), until "
        "the receiver has it (way), until it has decided (judged); beside it a bare message of the same size over the "
        "same transport, in turns. p50 / p99 in ms. Pipeline: it judges a camera's pictures and sends as "
        "`framegate run` does; elsewhere verdicts are made up. Real time: both ends under SCHED_FIFO."
    )
    header = ("transport", "whole", "at most", "reached", "made", "way", "judged", "bare", "messages")
    table = figures_grid(header, [_way(name, times) for name, times in record["ms"].items()])
    return "\n\n".join(
        (paragraph(where), figures_grid(("what", "measured", "at most", "reached"), rows), paragraph(ways), table)
    )


def handover_floor(record: Record) -> str:
    """A bare datagram between two processes, by how these are scheduled."""
    rows = [
        (way, *(f"{times['p50']:.3f} / {times['p99']:.3f} / {times['max']:.3f}" for times in found.values()))
        for way, found in record["ms"].items()
    ]
    where = (
        f"{record['machine']['cores']} cores of {record['machine']['cpu']}, {record['busy']} of them kept busy, "
        f"{record['date']}; load average before that: {record['load']:.0f}. "
        f"p50 / p99 / max in ms, {_count(record):,} of each."
    )
    return f"{paragraph(where)}\n\n{figures_grid(('a bare datagram', *next(iter(record['ms'].values()))), rows)}"


def _count(record: Record) -> int:
    found: Mapping[str, Any] = next(iter(record["ms"].values()))
    return int(next(iter(found.values()))["count"])


def _way(name: str, times: Mapping[str, Any]) -> tuple[str, ...]:
    p50, p99 = times["verdicts"]["p50"], times["verdicts"]["p99"]
    limits = _LIMITS_MS.get(name.partition(",")[0])
    reached = (
        ""
        if limits is None
        else " / ".join("yes" if t <= most else "no" for t, most in zip((p50, p99), limits, strict=True))
    )
    at_most = "" if limits is None else " / ".join(f"{most:g}" for most in limits)
    parts = [
        f"{times[part]['p50']:.3f} / {times[part]['p99']:.3f}" for part in ("verdicts", "made", "way", "judged", "bare")
    ]
    return (name, parts[0], at_most, reached, *parts[1:], f"{times['verdicts']['count']:,}")
