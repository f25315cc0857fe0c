"""The table and the plot of `framegate.benchmarks.latency.pareto`, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framegate.benchmarks.latency.plot import load_pyplot, save
from framegate.evaluation.report.table import Row, Table
from framegate.evaluation.report.values import NOT_MEASURED, Cell

_MARKS = {
    ("openvino", "fp32"): "o",
    ("openvino", "int8"): "s",
    ("onnxruntime", "fp32"): "^",
    ("onnxruntime", "int8"): "D",
}
_COLOURS = [f"tab:{name}" for name in ("blue", "orange", "green", "red", "purple", "brown", "pink", "olive", "cyan")]


def table(record: Mapping[str, Any] | None) -> Table | str:
    """Time of each network beside the baseline's."""
    if record is None:
        return "Not yet measured: `python -m framegate.benchmarks.latency.pareto`."
    rows = sorted(record["rows"], key=lambda row: (row["engine"], row["p50_ms"]))
    return Table(
        "One engine call of each classifier, and of MobileNetV2 at 96x96",
        ("network", "input", "engine", "p50", "p99", "p50 to MobileNetV2 fp32, same engine", "test accuracy, fp32"),
        [
            Row(
                (
                    row["network"],
                    f"{row['input']}x{row['input']}",
                    f"{row['engine']}/{row['precision']}",
                    Cell(f"{row['p50_ms']:.3f} ms"),
                    Cell(f"{row['p99_ms']:.3f} ms"),
                    _ratio(row.get("to_baseline_p50")),
                    _accuracy(row.get("accuracy")),
                )
            )
            for row in rows
        ],
        note=f"Measured on {record['machine']['cpu']}, {record['machine']['cores']} cores, {_threads(record)}, "
        f"{min(row['calls'] for row in rows):,} calls each, all in turn within one process; intervals of the ratio: "
        "95 %, block bootstrap. MobileNetV2 has drawn weights: a time and no accuracy.",
    )


def _threads(record: Mapping[str, Any]) -> str:
    count = record.get("threads")
    if count is None:
        return "each engine on as many threads as it takes by itself"
    return f"every engine on {count} thread{'s' if count > 1 else ''}"


def _ratio(found: Mapping[str, float] | None) -> Cell:
    if found is None:
        return Cell("1")
    return Cell(f"{found['ratio']:.2f}", f"[{found['low']:.2f}, {found['high']:.2f}]")


def _accuracy(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell(NOT_MEASURED)
    return Cell(f"{100 * found['value']:.1f} % ({found['data']})")


def plot(record: Mapping[str, Any], path: Path) -> None:
    """Draw accuracy against the median time; the baseline is a line, it has no accuracy.

    Args:
        record: Of `framegate.benchmarks.latency.pareto`.
        path: Where to; its ending says the format.

    Raises:
        UsageError: matplotlib is not installed, or does not write this ending.
        SinkError: The file cannot be written.
    """
    pyplot = load_pyplot()
    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    networks = sorted({row["network"] for row in record["rows"] if row["accuracy"]})
    for row in record["rows"]:
        kind = row["engine"], row["precision"]
        if row["accuracy"] is None:
            if row.get("to_baseline_p50") is not None:
                continue  # a bundle without a record of its accuracy stands in the table only
            axis.axvline(row["p50_ms"], color="grey", linestyle="-" if kind[0] == "openvino" else ":", linewidth=1)
            axis.annotate(
                f"{row['network']} {kind[0]}/{kind[1]}", (row["p50_ms"], 0.02), xycoords=("data", "axes fraction"),
                rotation=90, fontsize=6, ha="right",
            )  # fmt: skip
            continue
        colour = _COLOURS[networks.index(row["network"]) % len(_COLOURS)]
        axis.plot(row["p50_ms"], 100 * row["accuracy"]["value"], _MARKS[kind], color=colour, markersize=6)
    for number, name in enumerate(networks):
        axis.plot([], [], "o", color=_COLOURS[number % len(_COLOURS)], label=name)
    for (engine, precision), mark in _MARKS.items():
        axis.plot([], [], mark, color="grey", label=f"{engine}/{precision}")
    axis.set(
        xscale="log", xlabel="median of one engine call, milliseconds", ylabel="test accuracy of the fp32 network, %"
    )
    axis.set_title(f"Accuracy and time on {record['machine']['cpu']}", fontsize=10)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=6, loc="lower right")
    save(figure, path)
