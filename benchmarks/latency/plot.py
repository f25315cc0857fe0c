"""Histograms of a bench record as a PNG: ``python -m framegate.benchmarks.latency.plot RECORD.json PLOT.png``.

One panel a series above each other on one axis of time, so that whole distributions are compared and not two numbers.
Needs matplotlib (``pip install 'framegate[evaluate]'``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framegate.benchmarks.latency.compare import read_record
from framegate.benchmarks.latency.series import histogram_edges
from framegate.runtime.errors import FramegateError, SinkError, UsageError

_MARKS = (("p50", "p50_ms", "-"), ("p99", "p99_ms", "--"), ("p99.9", "p99.9_ms", ":"))


def plot(record: Mapping[str, Any], path: Path) -> None:
    """Draw the series of a record; of several bundles only those of the one that the record is about.

    Args:
        record: A checked record (`read_record`).
        path: Where to; its ending says the format.

    Raises:
        UsageError: matplotlib is not installed, or does not write this ending.
        SinkError: The file cannot be written.
    """
    pyplot = load_pyplot()
    prefix = f"{record['bundle']['name']}: "
    own = {name.removeprefix(prefix): row for name, row in record["series"].items() if name.startswith(prefix)}
    series = own or record["series"]
    figure, axes = pyplot.subplots(
        len(series), 1, sharex=True, squeeze=False, figsize=(9, 1 + 1.1 * len(series)), layout="constrained"
    )
    for axis, (name, row) in zip(axes[:, 0], series.items(), strict=True):
        histogram = row["histogram"]
        axis.stairs(histogram["counts"], histogram_edges(histogram), fill=True, color="#3b6ea8")
        for label, key, style in _MARKS:
            axis.axvline(row[key], color="#b3261e", linestyle=style, linewidth=1, label=f"{label} {row[key]:.2f}")
        axis.set(xscale="log", yscale="log", ylim=(0.7, None))
        axis.set_title(f"{name} ({row['frames']} frames)", loc="left", fontsize=8)
        axis.legend(fontsize=6, loc="upper right", frameon=False)
        axis.yaxis.set_minor_formatter("")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.tick_params(labelsize=7)
    axes[-1, 0].set_xlabel("milliseconds")
    figure.suptitle(f"{record['bundle']['name']}: latency on {record['machine']['cpu']}", fontsize=10)
    save(figure, path)


def load_pyplot() -> Any:
    """Matplotlib's pyplot, drawing without a display.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("a plot needs matplotlib: pip install 'framegate[evaluate]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path) -> None:
    """Write a figure and close it.

    Args:
        figure: Of matplotlib.
        path: Where to; its ending says the format.

    Raises:
        UsageError: matplotlib does not write this ending.
        SinkError: The file cannot be written.
    """
    from PIL import Image  # comes with matplotlib

    try:
        figure.savefig(path, dpi=110)
        if path.suffix.lower() == ".png":  # a handful of colours: a third of the bytes
            Image.open(path).convert("RGB").quantize(32).save(path, optimize=True)
    except OSError as error:
        raise SinkError(f"plot {path}: cannot be written ({error.strerror})") from error
    except ValueError as error:  # an unknown ending
        raise UsageError(f"plot {path}: {error}") from error
    finally:
        load_pyplot().close(figure)


def main(words: list[str] | None = None) -> int:
    """Read a record, draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("plot", type=Path)
    options = parser.parse_args(words)
    try:
        plot(read_record(options.record), options.plot)
    except FramegateError as error:
        print(f"latency_plot: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
