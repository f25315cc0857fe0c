"""The table of what the kernels' machine code lets expect, beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framegate.benchmarks.table_text import Record, figures_grid, paragraph

_NOT_MEASURED = "not yet measured"
_NAMES = {"nv12 1920x1080 -> 224 bilinear": "1080p NV12 -> 224 x 224, bilinear"}


def kernel_model(model: Record, kernels: Record | None, latency: Record | None) -> str:
    """One table a GPU: expected, bound, target, measured.

    Args:
        model: ``kernel-model.json``.
        kernels: ``kernels.json``, or None where no GPU has been at hand.
        latency: ``gpu-latency.json``, likewise.
    """
    measured = [record for record in (latency, kernels) if record is not None]
    parts = []
    for gpu in model["gpus"]:
        title = (
            f"**{gpu['name']}** (sm_{gpu['architecture']}, {gpu['multiprocessors']} multiprocessors at "
            f"{gpu['gigahertz']} GHz, copies at {gpu['copy_bytes_per_us'] / 1e6:g} TB/s), compiled by "
            f"{model['compiler']}; microseconds:"
        )
        found = _measured(measured, gpu["architecture"])
        header = ["case", "registers", "instructions a warp", "floors: bytes, instructions", "bound", "expected"]
        rows = [_row(row, found) for row in gpu["rows"]]
        parts.append(f"{paragraph(title)}\n\n" + figures_grid([*header, "target", "measured"], rows))
    return "\n\n".join(parts)


def _row(row: Mapping[str, Any], found: Mapping[str, float]) -> list[str]:
    low, high = row["expected_us"]
    floors = row.get("floors_us")
    target = f"<= {row['target_us']:g}: {row['target']}" if "target" in row else ""
    return [
        row["case"],
        str(row.get("registers", "")),
        f"{row['instructions_a_warp']:.0f}",
        f"{floors['bytes']:.1f}, {floors['instructions']:.1f}" if floors else "",
        row["bound"],
        f"{low:.1f} to {high:.1f}",
        target,
        f"{found[row['case']]:.1f}" if row["case"] in found else _NOT_MEASURED,
    ]


def _measured(records: Sequence[Record], architecture: int) -> dict[str, float]:
    """Case -> microseconds, out of the records of this architecture."""
    found: dict[str, float] = {}
    for record in records:
        if record["machine"]["architecture"] == f"sm_{architecture}":
            found |= _cases(record)
    return found


def _cases(record: Record) -> dict[str, float]:
    timed = [one for part in ("grid", "preprocess") for one in record.get(part, []) if "us" in one]
    found = {_NAMES.get(one["case"], one["case"]): float(one["us"]["p50"]) for one in timed}
    if "added_us" in record.get("graph", {}):
        found["[1, 1000] as a node of a graph"] = float(record["graph"]["added_us"]["of_medians"])
    return found
