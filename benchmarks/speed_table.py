"""The speed tables of the README from committed records: ``python benchmarks/speed_table.py README.md``.

A document says where a table goes; everything between its marks is written anew:

    <!-- begin speed latency -->      every engine and precision, from cpu-latency.json (make bench)
    <!-- end speed -->
    <!-- begin speed stages -->       where the time goes, the same record
    <!-- begin speed rivals -->       framegate against other tools, from latency-rivals.json
    <!-- begin speed scenarios -->    a camera, load and real-time tuning, from latency-scenarios.json
    <!-- begin speed streams -->      several cameras at once, from latency-streams.json
    <!-- begin speed page -->         what an open page costs, from page-latency.json (docs/demo.md)
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from checkout import ROOT, make_importable

make_importable()

from framegate.runtime.bench_compare import read_record  # noqa: E402
from framegate.runtime.errors import DataError, FramegateError  # noqa: E402
from framegate.runtime.stage_clock import STAGES  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
_BLOCK = re.compile(r"(<!-- begin speed ([\w-]+) -->\n).*?(<!-- end speed -->)", re.DOTALL)
_FIGURES = ("p50_ms", "p99_ms", "p99.9_ms", "max_ms")
Record = Mapping[str, Any]


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _circumstances(record: Record) -> str:
    machine = record["machine"]
    frames = sorted({row["frames"] for row in record["series"].values()})
    counted = f"{frames[0]:,}" if len(frames) == 1 else f"{frames[0]:,} to {frames[-1]:,}"
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['date']}, {counted} frames each; {record['source']}."
    )


def _spread(part: Mapping[str, float]) -> str:
    return f"{part['ratio']:.2f} [{part['low']:.2f}, {part['high']:.2f}]"


def latency(record: Record) -> str:
    """Every engine and precision against the bare loop."""
    rows = []
    for name, row in record["configurations"].items():
        verdict, bare = row["capture_to_verdict"], row["resize_normalise_infer"]
        rows.append(
            [
                name + (" (default)" if name == record["default"] else ""),
                *(f"{verdict[key]:.2f} ({bare[key]:.2f})" for key in _FIGURES),
                _spread(row["ratio_p50_spread"]),
            ]
        )
    header = ["engine / precision, ms", "p50", "p99", "p99.9", "max", "p50 to the bare loop's"]
    startup, memory = record["startup_s"], record["memory"]
    after = f"\n\nIn brackets the bare loop. Start-up, new process to first verdict: median {startup['median']:.2f} s."
    if memory:
        after += f" Resident memory over {memory['frames']:,} frames: {memory['growth_mib']:+.1f} MiB."
    return f"{_circumstances(record)}\n\n{_markdown(header, rows)}{after}"


def stages(record: Record) -> str:
    """Mean time of every stage."""
    rows = []
    for name, row in record["series"].items():
        if "stages" in row:
            means = [row["stages"][stage]["mean_ms"] for stage in STAGES]
            rows.append([name, *(f"{mean:.3f}" for mean in (*means, sum(means), row["hand_over"]["mean_ms"]))])
    header = ["mean, ms", *(stage.replace("_", " ") for stage in STAGES), "capture to verdict", "then hand-over"]
    return _markdown(header, rows)


def rivals(record: Record) -> str:
    """Framegate's default first, then everybody as a multiple of it."""
    rows = []
    for name, row in record["series"].items():
        part = row.get("to_reference")
        rows.append(
            [name, *(f"{row[key]:.2f}" for key in _FIGURES), *(_spread(part[key]) if part else "1" for key in _SPREADS)]
        )
    left_out = "".join(f" Left out: {name} ({reason})." for name, reason in record["left_out"].items())
    header = ["bundle: tool, ms", "p50", "p99", "p99.9", "max", "p50 to the default's", "p99 to the default's"]
    return f"{_circumstances(record)}{left_out}\n\n{_markdown(header, rows)}"


_SPREADS = ("p50", "p99")


def scenarios(record: Record) -> str:
    """Cameras, load, tuning."""
    rows = []
    for name, row in record["series"].items():
        part = row.get("to_untuned")
        rows.append(
            [
                name,
                *(f"{row[key]:.2f}" for key in _FIGURES),
                f"{row['dropped']} of {row['fed']}",
                f"{row['usage']['cpu_percent_of_one_core']:.0f} %",
                _spread(part["p99.9"]) if part else "",
            ]
        )
    header = ["scenario, ms", "p50", "p99", "p99.9", "max", "dropped", "of one core", "p99.9 to the untuned"]
    return f"{record['configuration']}. {_circumstances(record)}\n\n{_markdown(header, rows)}"


def page(record: Record) -> str:
    """The running demo with and without somebody who looks."""
    rows = []
    for name, row in record["series"].items():
        part = row.get("to_reference")
        rows.append(
            [
                name,
                *(f"{row[key]:.2f}" for key in _FIGURES),
                _spread(part["p50"]) if part else "1",
                f"{row['pictures_per_second']:.1f}",
                f"{row['usage']['cpu_percent_of_one_core']:.0f} %",
                f"{row['others_percent_of_one_core']:.0f} %",
            ]
        )
    said = f"{record['configuration']}. {_circumstances(record)}"
    if record["load"]["note"]:
        said += f" Beside it: {record['load']['note']}."
    repeated = sum(row["turns_repeated"] for row in record["series"].values())
    if repeated:
        said += f" {repeated} turns were measured again, because no verdict came for a second."
    header = ["ms", "p50", "p99", "p99.9", "max", "p50 to nobody's", "pictures/s", "demo, of one core", "all others"]
    return f"{said}\n\n{_markdown(header, rows)}"


_TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "latency": ("cpu-latency.json", latency),
    "stages": ("cpu-latency.json", stages),
    "rivals": ("latency-rivals.json", rivals),
    "scenarios": ("latency-scenarios.json", scenarios),
    "streams": ("latency-streams.json", scenarios),
    "page": ("page-latency.json", page),
}


def fill(document: str, folder: Path) -> str:
    """The document with every block written anew.

    Raises:
        DataError: A block has an unknown name, or its record is missing or lacks what the table shows.
    """

    def block(match: re.Match[str]) -> str:
        if match[2] not in _TABLES:
            raise DataError(f"block 'speed {match[2]}': expected one of {', '.join(_TABLES)}")
        file, table = _TABLES[match[2]]
        record = read_record(folder / file)
        try:
            return f"{match[1]}\n{table(record)}\n\n{match[3]}"
        except (KeyError, TypeError) as error:
            raise DataError(f"{folder / file}: lacks {error} for the table {match[2]!r}; measure it again") from error

    return _BLOCK.sub(block, document)


def main(words: list[str] | None = None) -> int:
    """Fill the given documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, nargs="+", help="Markdown files; they are rewritten")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    options = parser.parse_args(words)
    try:
        for path in options.documents:
            path.write_text(fill(path.read_text(encoding="utf-8"), options.results), encoding="utf-8")
    except (FramegateError, OSError) as error:
        print(f"speed_table: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
