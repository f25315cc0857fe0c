"""Two records of `framegate bench`: what changed beyond noise.

A series is compared by the medians of its blocks of consecutive frames and by their 99th percentiles. Blocks of one run
differ as much as the machine is restless, so their spread is the noise: a change counts when the 99 % interval of
the ratio (`ratio_of_blocks`) lies wholly beyond a tolerance. Where both records hold the series' reference, the bare
loop or the contender measured in turns with it, the ratio is that of the ratios: a machine that was slower on that day
slows both, and says nothing about the pipeline. p99.9 and the maximum are never judged: there are too few such frames.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from framegate.benchmarks.latency.series import ratio_of_blocks
from framegate.runtime.errors import DataError

FORMAT, VERSION = "framegate-bench", 1
CONFIDENCE = 0.99
TOLERANCE = {"p50_ms": 0.03, "p99_ms": 0.10}
"""Smaller changes are not reported, however certain: they come from where code and buffers lie in memory."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One figure of one series in both records.

    Attributes:
        series: Which series.
        figure: ``p50_ms`` or ``p99_ms``, ``dropped`` or ``deadline_misses``.
        before: In the first record, in ms or frames.
        after: In the second.
        ratio: After to before, relative to the reference if there is one; NaN for counts.
        low: Lower end of its interval.
        high: Upper end.
        reference: Which series it is relative to; empty if to none.
        beyond_noise: Whether it counts as a change.
    """

    series: str
    figure: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    reference: str
    beyond_noise: bool

    @property
    def worse(self) -> bool:
        """A change to slower, or to more drops or misses."""
        return self.beyond_noise and (self.after > self.before if math.isnan(self.ratio) else self.ratio > 1)


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        DataError: It cannot be read, is no JSON, or no record of this format.
    """
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"bench record {path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # UnicodeDecodeError is one, too
        raise DataError(f"bench record {path}: is not JSON ({error}); write one with framegate bench --out") from error
    found = record.get("format") if isinstance(record, dict) else None
    if not isinstance(record, dict) or found != FORMAT:
        raise DataError(
            f"bench record {path}: expected the format {FORMAT!r}, found {found!r}; "
            "write a new one with framegate bench --out"
        )
    if record.get("version") != VERSION:
        raise DataError(
            f"bench record {path}: version {record.get('version')!r}, this framegate reads {VERSION}; measure again"
        )
    series = record.get("series")
    if not isinstance(series, dict) or not series or not all(map(_usable, series.values())):
        raise DataError(f"bench record {path}: its series are missing or damaged; write a new one")
    return record


def _usable(row: object) -> bool:
    blocks = row.get("blocks") if isinstance(row, dict) else None
    return isinstance(blocks, dict) and all(
        isinstance(blocks.get(name), list)
        and blocks[name]
        and all(isinstance(value, (int, float)) and math.isfinite(value) and value > 0 for value in blocks[name])
        for name in TOLERANCE
    )


def circumstances_that_differ(before: Record, after: Record) -> list[str]:
    """What makes the two hard to compare, one line each: machine, versions, frames, bundle; not the commit."""
    lines = []
    for part in ("machine", "bundle"):
        first, second = (record.get(part) or {} for record in (before, after))
        lines += [
            f"{part} {key}: {first.get(key)} -> {second.get(key)}"
            for key in sorted({*first, *second} - {"commit", "changed_since_commit", "date"})
            if first.get(key) != second.get(key)
        ]
    if before.get("source") != after.get("source"):
        lines.append(f"source: {before.get('source')} -> {after.get('source')}")
    for name in sorted({*before["series"], *after["series"]}):
        here = [side for side, record in (("first", before), ("second", after)) if name in record["series"]]
        if len(here) == 1:
            lines.append(f"series {name!r}: only in the {here[0]} record")
    return lines


def compare_records(before: Record, after: Record) -> list[Change]:
    """Every figure that both records have, in the order of the first."""
    changes = []
    for name, first in before["series"].items():
        second = after["series"].get(name)
        if second is None:
            continue
        reference = _reference(name, before, after)
        changes += [_compare(name, figure, before, after, reference) for figure in TOLERANCE]
        changes += [
            _compare_counts(name, figure, first, second)
            for figure in ("dropped", "deadline_misses")
            if figure in first and figure in second
        ]
    return changes


def _reference(name: str, before: Record, after: Record) -> str:
    reference = before["series"][name].get("reference", "")
    same = reference == after["series"][name].get("reference", "")
    return reference if same and all(reference in record["series"] for record in (before, after)) else ""


def _compare(name: str, figure: str, before: Record, after: Record, reference: str) -> Change:
    ratio, low, high = ratio_of_blocks(
        _blocks(before, name, figure, reference),
        _blocks(after, name, figure, reference),
        CONFIDENCE,
        # A tail that got worse in a few blocks has got worse; their median would not know.
        np.median if figure == "p50_ms" else np.mean,
    )
    tolerance = TOLERANCE[figure]
    beyond = low > 1 + tolerance or high < 1 / (1 + tolerance)
    first, second = before["series"][name], after["series"][name]
    return Change(name, figure, first[figure], second[figure], ratio, low, high, reference, beyond)


def _blocks(record: Record, name: str, figure: str, reference: str) -> list[float]:
    mine: list[float] = record["series"][name]["blocks"][figure]
    if not reference:
        return mine
    # The same blocks if the two took turns, which takes the restless seconds out as well. The median of the
    # reference also under a p99: its own p99 has as much noise as the figure that it should steady.
    others: list[float] = record["series"][reference]["blocks"]["p50_ms"]
    if len(others) != len(mine):
        return [value / (sum(others) / len(others)) for value in mine]
    return [value / other for value, other in zip(mine, others, strict=True)]


def _compare_counts(name: str, figure: str, first: Record, second: Record) -> Change:
    before, after = float(first[figure]), float(second[figure])
    scale = first["fed"] / second["fed"]  # as if both had been asked equally often
    difference = abs(after * scale - before)
    # Counts of rare events: their difference has the standard deviation sqrt(a + b); one more where both are zero.
    beyond = difference > 3 * math.sqrt(before + after * scale + 1)
    return Change(name, figure, before, after * scale, math.nan, math.nan, math.nan, "", beyond)
