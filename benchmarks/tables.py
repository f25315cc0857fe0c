"""The speed tables of the README from committed records: ``python -m framegate.benchmarks.tables README.md``.

A document says where a table goes; everything between its marks is written anew:

    <!-- begin speed latency -->      every engine and precision, from cpu-latency.json (make bench)
    <!-- end speed -->
    <!-- begin speed targets -->      what was aimed at and what was measured, from all of these records
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
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from framegate.benchmarks.checkout import RESULTS
from framegate.benchmarks.latency.compare import read_record
from framegate.benchmarks.latency.tables import left_out_lines
from framegate.runtime.errors import DataError, FramegateError
from framegate.runtime.stage_clock import STAGES

_BLOCK = re.compile(r"(<!-- begin speed ([\w-]+) -->\n).*?(<!-- end speed -->)", re.DOTALL)
_FIGURES = ("p50_ms", "p99_ms", "p99.9_ms", "max_ms")
Record = Mapping[str, Any]


def _markdown(header: list[str], rows: list[list[str]], texts: int = 1) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * texts + "---:|" * (len(header) - texts)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _caption(text: str, record: Record | None = None) -> str:
    """A paragraph, with where, when and on what it was measured."""
    if record is not None:
        machine, source = record["machine"], record["source"]
        source = source if "://" in source else source.rpartition("/")[2]
        frames = sorted({row["frames"] for row in record["series"].values()})
        counted = f"{frames[0]:,}" if len(frames) == 1 else f"{frames[0]:,} to {frames[-1]:,}"
        text += (
            f" {counted} frames a row from {source}; {machine['cores']} cores of {machine['cpu']}, {machine['date']}."
        )
        if frames[0] < 1000:
            text += " Of fewer than 1,000 frames the p99.9 is the longest."
    unbroken = text.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.fill(unbroken, 120, break_on_hyphens=False, break_long_words=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ") + "\n\n"


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
    caption = _caption(
        "**One frame after the other.** Capture to verdict, and in brackets the bare loop: resize, normalise and the "
        "engine's call on the same frame, nothing else. p50 is the median; one frame in 100 takes longer than p99, one "
        "in 1,000 longer than p99.9. Last column: the medians divided, with the 95 % interval.",
        record,
    )
    header = ["engine / precision", "p50, ms", "p99, ms", "p99.9, ms", "longest, ms", "p50 : bare loop's p50"]
    startup, memory = record["startup_s"], record["memory"]
    after = f"\n\nFrom the start of a new process to its first verdict: {startup['median']:.2f} s (median)."
    if memory:
        after += f" Growth of resident memory over {memory['frames']:,} frames: {memory['growth_mib']:+.1f} MiB."
    return caption + _markdown(header, rows) + after + _left_out(record, "cpu-latency.json")


def targets(record: Record) -> str:
    """What was aimed at on two processor cores, and what came of it, from all records."""
    paced, several, race, page = (
        read_record(RESULTS / _TABLES[name][0]) for name in ("scenarios", "streams", "rivals", "page")
    )
    default = record["configurations"][record["default"]]["ratio_p50_spread"]
    alone = next(row for name, row in paced["series"].items() if "load" not in name and "realtime" not in name)
    tail = alone["p99.9_ms"] / alone["p50_ms"]
    dropped, fed = (sum(row[key] for row in several["series"].values()) for key in ("dropped", "fed"))
    eager = next(row for name, row in race["series"].items() if "torch eager" in name)["to_reference"]["p50"]
    viewer = page["series"]["one viewer"]["to_reference"]["p50"]
    rows = [
        ("p50 of the default : bare loop's", "<= 1.05", _spread(default), default["ratio"] <= 1.05),
        ("p99.9 : p50 at 60 fps, no other load", "<= 3", f"{tail:.1f}", tail <= 3),
        ("frames dropped of four 30 fps streams", "0", f"{dropped} of {fed}", dropped == 0),
        ("torch eager's p50 : INT8 default's", ">= 2", _spread(eager), eager["ratio"] >= 2),
        ("p50 with an open page : without", "<= 1.05", _spread(viewer), viewer["ratio"] <= 1.05),
    ]
    caption = (
        "The targets for two processor cores. The bare loop is the same engine with the same threads, and no more."
    )
    header = ["what", "target", "measured", ""]
    return f"{caption}\n\n" + _markdown(header, [[a, b, c, "kept" if kept else "**missed**"] for a, b, c, kept in rows])


def stages(record: Record) -> str:
    """Mean time of every stage."""
    rows = []
    for name, row in record["series"].items():
        if "stages" in row:
            means = [row["stages"][stage]["mean_ms"] for stage in STAGES]
            rows.append([name, *(f"{mean:.3f}" for mean in (*means, sum(means), row["hand_over"]["mean_ms"]))])
    caption = _caption(
        "**Where the time goes**, same run: mean milliseconds of a frame. The stages follow each other and add up to "
        "capture to verdict; after that the verdict is handed over to whoever waits for it."
    )
    header = [
        "engine / precision",
        *(_STAGE_NAMES.get(stage, stage) for stage in STAGES),
        "**capture to verdict**",
        "then hand-over",
    ]
    return caption + _markdown(header, rows)


_STAGE_NAMES = {"wait_for_frame": "wait for frame", "health": "camera check"}


def rivals(record: Record) -> str:
    """Framegate's default first, then everybody as a multiple of it."""
    rows = []
    for name, row in record["series"].items():
        part = row.get("to_reference")
        bundle = row["bundle"]
        who = name.removeprefix(f"{bundle}: ")
        same = record["agreement"].get(who, {}).get("same_label") if bundle == record["bundle"]["name"] else None
        rows.append(
            [
                bundle,
                who,
                *(f"{row[key]:.2f}" for key in _FIGURES),
                *(_spread(part[key]) if part else "1" for key in ("p50", "p99")),
                "" if same is None else f"{100 * same:.0f} %",
            ]
        )
    caption = _caption(
        "**Against what one would write or pick instead**, in turns within one process. framegate: capture to verdict, "
        "through the whole pipeline. The others: a plain loop from a frame in memory to label and entropy, without "
        "camera check, thresholds or the age of a frame. Ratios: divided by framegate's default, the bundle's first "
        "row, with the 95 % interval; above 1 is slower. Last column: frames of the clip on which a plain loop gives "
        "the label that framegate gives in fp32; where it is low, the loop computes something else.",
        record,
    )
    header = ["bundle", "who", "p50, ms", "p99, ms", "p99.9, ms", "longest, ms", "p50 : default's", "p99 : default's"]
    header.append("same label")
    return caption + _markdown(header, rows, texts=2) + _left_out(record, "latency-rivals.json")


def _left_out(record: Record, file: str) -> str:
    lines = "\n".join(f"- {line}" for line in left_out_lines(record.get("left_out", {})))
    return f"\n\nCould not run on that machine (in full in `benchmarks/results/{file}`):\n\n{lines}" if lines else ""


def streams(record: Record) -> str:
    """Several cameras."""
    return _paced(record, "**Several cameras at once**, which fire at the same moment.")


def scenarios(record: Record) -> str:
    """One camera, load, tuning."""
    return _paced(record, "**One camera**, alone and beside a foreign process that keeps the last core busy (load).")


def _paced(record: Record, what: str) -> str:
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
    caption = _caption(
        f"{what} Capture to verdict at the camera's pace, {record['configuration']}; realtime: with `--realtime`. "
        "Dropped: overtaken by a newer frame before their turn. CPU: all threads, 100 % is one core. Last column: "
        "divided by the row without realtime, with the 95 % interval; below 1 is better.",
        record,
    )
    header = ["frames", "p50, ms", "p99, ms", "p99.9, ms", "longest, ms", "dropped", "CPU", "p99.9 : without realtime"]
    return caption + _markdown(header, rows)


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
                f"{max(row['others_percent_of_one_core'], 0.0):.0f} %",  # a difference of two clocks
            ]
        )
    said = (
        f"Capture to verdict of the running demo, {record['configuration']}: while nobody looks, with one viewer as on "
        "another machine, and with Chromium on the same cores. Fifth column of figures: the medians divided, with the "
        "95 % interval. CPU: 100 % is one core."
    )
    if record["load"]["note"]:
        said += f" Beside it: {record['load']['note']}."
    repeated = sum(row["turns_repeated"] for row in record["series"].values())
    if repeated:
        said += f" {repeated} turns were measured again, because no verdict came for a second."
    figures = ["p50, ms", "p99, ms", "p99.9, ms", "longest, ms", "p50 : nobody's"]
    header = ["who looks", *figures, "pictures/s", "CPU of the demo", "CPU of all others"]
    return _caption(said, record) + _markdown(header, rows)


_TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "latency": ("cpu-latency.json", latency),
    "targets": ("cpu-latency.json", targets),
    "stages": ("cpu-latency.json", stages),
    "rivals": ("latency-rivals.json", rivals),
    "scenarios": ("latency-scenarios.json", scenarios),
    "streams": ("latency-streams.json", streams),
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
