"""Tables of a bench record for people."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from framegate.benchmarks.latency.compare import Change
from framegate.benchmarks.latency.floors import above_floor
from framegate.runtime.cli.tables import counts
from framegate.runtime.stage_clock import STAGES

Record = Mapping[str, Any]
_FIGURES = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")
_PRECISION = re.compile(r"[ /](fp32|fp16|int8)\b")
_PREAMBLE = re.compile(r"^(?:\w+(?:Error|Exception): |backend '[\w-]+' was asked for, but )+")
_FIRST_SENTENCE = re.compile(r"[;(]|\. |\n")


def tables(record: Record) -> list[Table]:
    """All tables that the record has something for."""
    found = [_configurations(record)] if "configurations" in record else [_scenarios(record)]
    staged = {name: row for name, row in record["series"].items() if "stages" in row}
    floored = {name: row for name, row in staged.items() if row.get("floors")}
    return [*found, *([_stages(staged)] if staged else []), *([_floors(floored)] if floored else [])]


def lines(record: Record) -> list[str]:
    """What is said in sentences beside the tables."""
    said = []
    if "configurations" in record:
        said.append(
            f"default {record['default']} p50 / fastest bare p50 ({record['fastest_bare']}): "
            f"{record['default_p50_to_fastest_bare_p50']:.2f}"
        )
    if record.get("startup_s"):
        startup, compiling = record["startup_s"], record.get("startup_compiling_s")
        said.append(
            f"start-up, new process to first verdict: median {startup['median']:.2f} s, max {startup['max']:.2f} s"
            + (f"; it then holds {startup['resident_mib']:.0f} MiB" if "resident_mib" in startup else "")
            + (f"; median {compiling['median']:.2f} s where no network was compiled before" if compiling else "")
        )
    if record.get("memory"):
        memory = record["memory"]
        said.append(
            f"resident memory over {memory['frames']} frames: {memory['after_warm_up_mib']:.1f} -> "
            f"{memory['at_end_mib']:.1f} MiB ({memory['growth_mib']:+.1f})"
        )
    for name, row in record["series"].items():
        if "verdicts" in row:
            verdicts = row["verdicts"]
            said.append(
                f"{name}: {verdicts['accepted']} of {verdicts['evaluated']} accepted; rejected: "
                f"{counts(verdicts['rejected_by_reason'])}"
            )
        if "to_untuned" in row:
            said.append(f"{name}: {row['tuning']}")
            said += [f"{name}: {figure} {spread(part)} of untuned" for figure, part in row["to_untuned"].items()]
    return said


def left_out_lines(left_out: Mapping[str, str]) -> list[str]:
    """Who was left out and why, in one short line a reason.

    Args:
        left_out: Name, with or without its precision -> the whole reason, of which the first sentence is taken.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for name, reason in left_out.items():
        why = _FIRST_SENTENCE.split(_PREAMBLE.sub("", reason), maxsplit=1)[0].strip()
        precision = _PRECISION.search(name)
        who = name if precision is None else name[: precision.start()] + name[precision.end() :]
        groups.setdefault(why, {}).setdefault(who, []).extend([precision[1]] if precision else [])
    return [
        ", ".join(f"{who} ({', '.join(sorted(each))})" if each else who for who, each in names.items()) + f": {why}"
        for why, names in groups.items()
    ]


def spread(part: Mapping[str, float], digits: int = 3) -> str:
    """``ratio [low, high]``."""
    return "{ratio:.{0}f} [{low:.{0}f}, {high:.{0}f}]".format(digits, **part)


def beside(verdict: Mapping[str, float], bare: Mapping[str, float], figures: Sequence[str]) -> list[str]:
    """Figures of capture to verdict, and in brackets those of the bare loop."""
    return [f"{verdict[figure]:.2f} ({bare[figure]:.2f})" for figure in figures]


STAGE_NAMES = tuple({"wait_for_frame": "wait for frame", "health": "camera check"}.get(name, name) for name in STAGES)
"""What tables call the stages of a frame, in their order."""


def stage_means(row: Record) -> list[str]:
    """Mean milliseconds of every stage, their sum, and the hand-over after them."""
    means = [row["stages"][stage]["mean_ms"] for stage in STAGES]
    return [f"{mean:.3f}" for mean in (*means, sum(means), row["hand_over"]["mean_ms"])]


def _columns(table: Table, first: str, *others: str) -> Table:
    table.add_column(first, no_wrap=True)
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _configurations(record: Record) -> Table:
    frames = max(row["frames"] for row in record["series"].values())
    table = _columns(
        Table(title=f"Latency in ms, {frames:,} frames each: capture to verdict, and (resize + normalise + engine)"),
        *("backend/precision", "p50", "p90", "p99", "p99.9", "max", "ratio p50 [95 %]"),
    )
    for name, row in record["configurations"].items():
        verdict, bare = row["capture_to_verdict"], row["resize_normalise_infer"]
        table.add_row(
            name + (" (default)" if name == record["default"] else ""),
            *beside(verdict, bare, _FIGURES),
            spread(row["ratio_p50_spread"]),
        )
    return table


def _scenarios(record: Record) -> Table:
    table = _columns(
        Table(title=f"Capture to verdict in ms, {record['configuration']}"),
        *("scenario", "frames", "p50", "p90", "p99", "p99.9", "max", "jitter", "dropped", "late", "CPU %", "RSS MiB"),
    )
    for name, row in record["series"].items():
        usage = row["usage"]
        table.add_row(
            name,
            str(row["frames"]),
            *(f"{row[key]:.2f}" for key in (*_FIGURES, "jitter_ms")),
            f"{row['dropped']}/{row['fed']}",
            "-" if row["deadline_ms"] is None else str(row["deadline_misses"]),
            f"{usage['cpu_percent_of_one_core']:.0f}",
            f"{usage['resident_mib']:.0f}",
        )
    for name, row in record.get("bare_loop", {}).items():
        figures = (f"{row[key]:.2f}" for key in (*_FIGURES, "jitter_ms"))
        table.add_row(f"{name}, bare loop", str(row["frames"]), *figures, "", "", "", "")
    return table


def _stages(series: Mapping[str, Record]) -> Table:
    table = _columns(
        Table(
            title="Where the time goes: means in ms, which add up to the mean of capture to verdict; p99 in the JSON"
        ),
        *("", *STAGE_NAMES, "sum", "then hand-over"),
    )
    for name, row in series.items():
        table.add_row(name, *stage_means(row))
    return table


def floor_rows(series: Mapping[str, Record]) -> list[list[str]]:
    """For every configuration the medians of its stages in us, and in brackets those of their floors."""
    rows = []
    for name, row in series.items():
        found = above_floor({**row["stages"], "hand_over": row["hand_over"]}, row["floors"])
        cells = [
            f"{1000 * found[stage][0]:.0f} ({1000 * found[stage][1]:.0f})" if stage in found else "-"
            for stage in (*STAGES, "hand_over")
        ]
        rows.append([name, *cells])
    return rows


def _floors(series: Mapping[str, Record]) -> Table:
    table = _columns(
        Table(title="How far from the floor: medians of the stages in us, and (what they cost at least)"),
        *("", *STAGE_NAMES, "then hand-over"),
    )
    for row in floor_rows(series):
        table.add_row(*row)
    return table


def comparison_table(changes: Sequence[Change]) -> Table:
    """What was compared, and what came of it."""
    table = _columns(
        Table(title="Second record to first; 99 % intervals of the ratio"),
        *("series", "figure", "first", "second", "ratio", "relative to", "finding"),
    )
    for change in changes:
        count = math.isnan(change.ratio)
        finding = ("WORSE" if change.worse else "better") if change.beyond_noise else "within noise"
        table.add_row(
            change.series,
            change.figure.removesuffix("_ms"),
            f"{change.before:.0f}" if count else f"{change.before:.3f} ms",
            f"{change.after:.0f}" if count else f"{change.after:.3f} ms",
            "-" if count else spread(vars(change)),
            change.reference or "-",
            finding,
        )
    return table
