"""Tables of speed, of the demo and of its page, for README and docs: `framegate.benchmarks.tables` puts them there.

Each takes the records it shows, as they were read, and gives Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping

from framegate.benchmarks.latency.floors import above_floor
from framegate.benchmarks.latency.tables import STAGE_NAMES, beside, left_out_lines, spread, stage_means
from framegate.benchmarks.table_text import Record, figures_grid, paragraph
from framegate.evaluation.report.table import Row, Table, grid
from framegate.evaluation.report.values import Cell
from framegate.runtime.cli.tables import counts
from framegate.runtime.stage_clock import STAGES

_FIGURES = ("p50_ms", "p99_ms", "p99.9_ms", "max_ms")
_HEADINGS = ("p50, ms", "p99, ms", "p99.9, ms", "longest, ms")


def _caption(text: str, record: Record | None = None) -> str:
    """A paragraph above a table, with where, when and on what it was measured."""
    if record is not None:
        source = record["source"]
        source = source if "://" in source else source.rpartition("/")[2]
        frames = sorted({row["frames"] for row in record["series"].values()})
        counted = f"{frames[0]:,}" if len(frames) == 1 else f"{frames[0]:,} to {frames[-1]:,}"
        text += f" {counted} frames a row from {source}; {_circumstances(record)}."
        if frames[0] < 1000:
            text += " Of fewer than 1,000 frames the p99.9 is the longest."
    return paragraph(text) + "\n\n"


def _circumstances(record: Record) -> str:
    machine = record["machine"]
    return f"{machine['cores']} cores of {machine['cpu']}, {machine['date']}"


def _spread(part: Mapping[str, float]) -> str:
    return spread(part, 2)


def speed_line(record: Record) -> str:
    """The default engine in one sentence."""
    row = record["configurations"][record["default"]]
    verdict, bare = row["capture_to_verdict"], row["resize_normalise_infer"]
    size = record["source"].rpartition(", ")[2]
    return paragraph(
        f"A {size} frame takes {verdict['p50_ms']:.2f} ms from capture to verdict (median; p99 {verdict['p99_ms']:.2f} "
        f"ms), camera check included: {record['bundle']['name']}, {record['default']}, {_circumstances(record)}. "
        f"A bare loop of resize, normalise and the engine's call takes {bare['p50_ms']:.2f} ms (p99 "
        f"{bare['p99_ms']:.2f} ms); ratio of the medians {_spread(row['ratio_p50_spread'])}."
    )


def demo(record: Record) -> str:
    """What `make demo` prints at its end."""
    streams = [(name, each, each["accepted_labels"]) for name, each in record["streams"].items()]
    rows = [
        Row(
            (
                name,
                *(Cell(f"{each[key]}") for key in ("evaluated", "accepted")),
                Cell(f"{each['accepted'] / each['evaluated']:.1%}"),
                counts(labels) if labels is not None else "",
                counts(each["rejected_by_reason"]),
            )
        )
        for name, each, labels in [*streams, ("all", record, None)]
    ]
    columns = ("region", "verdicts", "accepted", "coverage", "accepted as", "rejected because")
    objects = record.get("objects")
    whole = "all objects of a frame together" if objects else f"{len(streams)} regions one after the other"
    latency = [
        [label, *(f"{record[key][figure]:.2f}" for figure in _FIGURES)]
        for label, key in (
            (f"capture to verdict, {whole}", "capture_to_verdict"),
            ("bare engine call, same run", "engine"),
        )
    ]
    heading = f"{record['captured']} frames captured, {record['dropped']} dropped"
    return grid(Table("", columns, rows)) + "\n\n" + figures_grid((heading, *_HEADINGS), latency) + _found_as(objects)


def _found_as(objects: Record | None) -> str:
    """What a detector called the objects of a run, and how many verdicts of each may be used."""
    if not objects:
        return ""
    found = ", ".join(
        f"{name} {each['verdicts']} ({each['accepted']} used)" for name, each in objects["called"].items()
    )
    return f"\n\nFound by the detector as: {found}. What it missed is in none of these figures."


def latency(record: Record) -> str:
    """Every engine and precision against the bare loop."""
    rows = []
    for name, row in record["configurations"].items():
        verdict, bare = row["capture_to_verdict"], row["resize_normalise_infer"]
        rows.append(
            [
                name + (" (default)" if name == record["default"] else ""),
                *beside(verdict, bare, _FIGURES),
                _spread(row["ratio_p50_spread"]),
            ]
        )
    caption = _caption(
        "**One frame after the other.** Capture to verdict, and in brackets the bare loop: resize, normalise and the "
        "engine's call on the same frame, nothing else. p50 is the median; one frame in 100 takes longer than p99, one "
        "in 1,000 longer than p99.9. Last column: the medians divided, with the 95 % interval.",
        record,
    )
    header = ["engine / precision", *_HEADINGS, "p50 : bare loop's p50"]
    startup, memory = record["startup_s"], record["memory"]
    after = f"\n\nFrom the start of a new process to its first verdict: {startup['median']:.2f} s (median)"
    compiling = record.get("startup_compiling_s")
    after += f"; {compiling['median']:.2f} s where the network was not compiled before." if compiling else "."
    if memory:
        after += f" Growth of resident memory over {memory['frames']:,} frames: {memory['growth_mib']:+.1f} MiB."
    return caption + figures_grid(header, rows) + after + _left_out(record, "cpu-latency.json")


def _tail(row: Record) -> float:
    return float(row["p99.9_ms"] / row["p50_ms"])


def targets(closed: Record, paced: Record, several: Record, race: Record, viewed: Record, gate: Record | None) -> str:
    """What was aimed at on two processor cores, and what came of it.

    Args:
        closed: Frames one after the other, beside the bare loop.
        paced: One camera.
        several: Four cameras.
        race: The rivals.
        viewed: The demo with and without an open page.
        gate: What the gate costs, with small networks; None where that was not measured.
    """
    default = closed["configurations"][closed["default"]]["ratio_p50_spread"]
    alone = next(row for name, row in paced["series"].items() if "load" not in name and "realtime" not in name)
    tail, floor = _tail(alone), [_tail(row) for row in paced.get("bare_loop", {}).values()]
    dropped, fed = (sum(row[key] for row in several["series"].values()) for key in ("dropped", "fed"))
    eager = next(row for name, row in race["series"].items() if "torch eager" in name)["to_reference"]["p50"]
    viewer = viewed["series"]["one viewer"]["to_reference"]["p50"]
    mine = f"{race['bundle']['name']}: "
    rival, quickest = min(
        (row["to_reference"]["p50"]["ratio"], name.removeprefix(mine))
        for name, row in race["series"].items()
        if name.startswith(mine) and not name.startswith(f"{mine}framegate")
    )
    rows = [
        ("p50 of the default : bare loop's", "<= 1.00", _spread(default), default["ratio"] <= 1.0),
        *_small_networks(gate),
        (f"p50 of the default : {quickest}, the quickest rival", "<= 1.00", f"{1 / rival:.2f}", rival >= 1.0),
        (
            "p99.9 : p50 at 60 fps, no other load",
            "<= 2",
            f"{tail:.1f}" + "".join(f" (bare loop: {each:.1f})" for each in floor),
            tail <= 2,
        ),
        *_start(closed["startup_s"]),
        ("frames dropped of four 30 fps streams", "0", f"{dropped} of {fed}", dropped == 0),
        ("torch eager's p50 : the default's", ">= 2", _spread(eager), eager["ratio"] >= 2),
        ("p50 with an open page : without", "<= 1.05", _spread(viewer), viewer["ratio"] <= 1.05),
    ]
    caption = paragraph(
        "The targets for two processor cores. The bare loop is cv2.resize, a table look-up with cv2 and the engine's "
        "own call, with the same threads, and no more; nothing that makes framegate faster is in it."
    )
    header = ["what", "target", "measured", ""]
    told = {True: "kept", False: "**missed**", None: ""}
    return f"{caption}\n\n" + figures_grid(header, [[a, b, c, told[kept]] for a, b, c, kept in rows])


_NOT_MEASURED = "not yet measured"
_Target = tuple[str, str, str, bool | None]


def _small_networks(gate: Record | None) -> list[_Target]:
    """What the gate costs on top of a bare loop where an engine's call takes less than a tenth of a millisecond."""
    names = ("mobilenet-cifar10", "simplecnn-cifar10")
    if gate is None:
        return [(f"the same, {name}", "<= 1.15", _NOT_MEASURED, None) for name in names]
    parts = [(name, gate["bundles"][name]["ratio_p50"]) for name in names]
    return [(f"the same, {name}", "<= 1.15", _spread(part), part["ratio"] <= 1.15) for name, part in parts]


def _start(startup: Record) -> list[_Target]:
    median, resident = startup["median"], startup.get("resident_mib")
    memory = _NOT_MEASURED if resident is None else f"{resident:.0f}"
    return [
        ("new process to first verdict, s", "<= 0.4", f"{median:.2f}", median <= 0.4),
        ("memory of such a process, MiB", "< 150", memory, None if resident is None else resident < 150),
    ]


def floors(record: Record | None) -> str:
    """How far each stage is from what it must cost."""
    if record is None:
        return paragraph("**How far from the floor:** not yet measured on a quiet machine; `make bench` does.")
    rows = []
    for name, row in record["bundles"].items():
        found = above_floor(row["stages"], row["floors"])
        cells = [
            f"{1000 * found[stage][0]:.0f} ({1000 * found[stage][1]:.0f})" if stage in found else "-"
            for stage in (*STAGES, "hand_over")
        ]
        total, bare = row["capture_to_verdict"]["p50_ms"], row["bare"]["p50_ms"]
        rows.append([f"{name}, {row['configuration']}", *cells, f"{1000 * total:.0f} ({1000 * bare:.0f})"])
    first = next(iter(record["bundles"].values()))
    count = first["frames"]
    whats = "; ".join(
        f"{STAGE_NAMES[STAGES.index(stage)] if stage in STAGES else 'hand-over'}: {floor['what']}"
        for stage, floor in first["floors"].items()
    )
    caption = paragraph(
        "**How far from the floor.** Medians of the stages in microseconds, and in brackets what each of them costs at "
        f"least on the same machine, measured in turns with it. {whats}. Last column: capture to verdict, and the bare "
        f"loop. {count:,} frames a row; {_circumstances(record)}."
    )
    header = ["bundle", *STAGE_NAMES, "then hand-over", "**capture to verdict**"]
    return f"{caption}\n\n" + figures_grid(header, rows)


def stages(record: Record) -> str:
    """Mean time of every stage."""
    rows = []
    for name, row in record["series"].items():
        if "stages" in row:
            rows.append([name, *stage_means(row)])
    caption = _caption(
        "**Where the time goes**, same run: mean milliseconds of a frame. The stages follow each other and add up to "
        "capture to verdict; after that the verdict is handed over to whoever waits for it."
    )
    header = [
        "engine / precision",
        *STAGE_NAMES,
        "**capture to verdict**",
        "then hand-over",
    ]
    return caption + figures_grid(header, rows)


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
    header = ["bundle", "who", *_HEADINGS, "p50 : default's", "p99 : default's", "same label"]
    return caption + figures_grid(header, rows, texts=2) + _left_out(record, "latency-rivals.json")


def _left_out(record: Record, file: str) -> str:
    lines = "\n".join(f"- {line}" for line in left_out_lines(record.get("left_out", {})))
    return f"\n\nCould not run on that machine (in full in `benchmarks/results/{file}`):\n\n{lines}" if lines else ""


def streams(record: Record) -> str:
    """Several cameras."""
    return _paced(record, "**Several cameras at once**, which fire at the same moment.")


_BARE_AT_PACE = (
    " Bare loop: resize, normalise and the engine's call at the same pace and in turns with the others, nothing else; "
    "how unsteady the machine is by itself."
)


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
        "divided by the row without realtime, with the 95 % interval; below 1 is better."
        + (_BARE_AT_PACE if record.get("bare_loop") else ""),
        record,
    )
    for name, row in record.get("bare_loop", {}).items():
        rows.append([f"{name}, bare loop", *(f"{row[key]:.2f}" for key in _FIGURES), "", "", ""])
    header = ["frames", *_HEADINGS, "dropped", "CPU", "p99.9 : without realtime"]
    return caption + figures_grid(header, rows)


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
    header = ["who looks", *_HEADINGS, "p50 : nobody's", "pictures/s", "CPU of the demo", "CPU of all others"]
    return _caption(said, record) + figures_grid(header, rows)
