"""Measure the work on drives: ``python -m framegate.benchmarks.drives.measure --drives DIR --work DIR PART...``.

``DIR`` is what `framegate.benchmarks.drives.make` wrote. Parts: ``index`` (verdicts per second and core), ``what-if``
(ten million rows), ``judge`` (pictures, two workers against one engine), ``mining`` (injected errors found, against
random choice), ``truth`` (what-if against driving again). Each adds its record to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from framegate.benchmarks.drives.make import FPS, ROIS, make
from framegate.evaluation.drives.index import IndexTask, find_files, plan
from framegate.evaluation.drives.merge import merge
from framegate.evaluation.drives.mine import CRITERIA, mine
from framegate.evaluation.drives.processes import Processes
from framegate.evaluation.drives.rejudge import JudgeTask, compare, units_of
from framegate.evaluation.drives.table import DriveTable, write_table
from framegate.evaluation.drives.what_if import what_if
from framegate.evaluation.drives.work import Outcome, run_units
from framegate.evaluation.report.files import write_json
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import to_stdout
from framegate.runtime.replay.messages import Contents
from framegate.runtime.replay.recording import DRIVE_METADATA, METADATA, Recording
from framegate.runtime.replay.replay import TOPIC
from framegate.runtime.session import Session

RANDOM = 200
"""Random choices that mining is compared with."""
FORMAT = "framegate-drives-cost-1"


def _quiet(*_: object) -> None:
    """No progress."""


def table_of(drives: Path, work: Path) -> Path:
    """The table of the made drives; made once."""
    out = work / "drives.parquet"
    if not out.exists():
        units = plan(find_files([drives])).units
        outcome = run_units(IndexTask(), units, work / "parts", None, _quiet, "")
        merge(outcome.parts, out, outcome.quarantined)
        shutil.rmtree(work / "parts")
    return out


def measure_index(drives: Path, work: Path, verdicts: int) -> dict[str, Any]:
    """One process reads recordings of so many verdicts, once with the pictures between them and once without."""
    made = sorted(drives.rglob("*.mcap"))
    without = work / "verdicts.mcap"
    _copy_verdicts(made, without, verdicts)
    found: dict[str, Any] = {}
    for name, files in (("without_pictures", [without]), ("with_pictures", made)):
        units = plan(files).units
        part = work / "part.parquet"
        begun, cpu = time.perf_counter(), time.process_time()
        rows = 0
        for unit in units:
            IndexTask().do(unit, part)
            rows += DriveTable(part).rows
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        size = sum(path.stat().st_size for path in files)
        found[name] = {
            "verdicts": rows,
            "megabytes": round(size / 1e6, 1),
            "verdicts_per_s": round(rows / seconds),
            "verdicts_per_cpu_s": round(rows / cpu),
            "megabytes_per_s": round(size / 1e6 / seconds, 1),
        }
    return {**found, "target_verdicts_per_s": 200_000}


def _copy_verdicts(made: list[Path], out: Path, verdicts: int) -> None:
    """Repeat the verdicts of recordings until there are enough of them."""
    from mcap.writer import Writer

    if out.exists():
        return
    messages, metadata = [], {}
    for path in made[:4]:
        contents = Contents(path)
        messages += list(contents.messages(lambda topic: topic.startswith(TOPIC)))
        metadata = contents.metadata
    with out.open("wb") as file:
        writer = Writer(file, chunk_size=2**16)  # as the black box
        writer.start()
        writer.add_metadata(METADATA, metadata[METADATA])
        writer.add_metadata(DRIVE_METADATA, {**metadata[DRIVE_METADATA], "drive": "repeated"})
        channels: dict[str, int] = {}
        for number in range(verdicts):
            message = messages[number % len(messages)]
            if message.topic not in channels:
                channels[message.topic] = writer.register_channel(message.topic, "json", 0)
            at = message.log_ns + number * 10**7
            writer.add_message(channels[message.topic], at, message.data, at, message.sequence)
        finish: Callable[[], object] = writer.finish
        finish()


def measure_what_if(drives: Path, work: Path, rows: int) -> dict[str, Any]:
    """So many rows, in this process."""
    big = work / f"rows-{rows}.parquet"
    table = DriveTable(table_of(drives, work))
    if not big.exists():
        write_table(big, _repeated(table, rows), table.signals, table.about)
    whole = DriveTable(big)
    begun, cpu = time.perf_counter(), time.process_time()
    found = what_if(whole, _with_threshold(0.5), _quiet)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return {
        "rows": whole.rows,
        "cpu_seconds": round(cpu, 2),
        "drives": len(found.drives),
        "megabytes": round(big.stat().st_size / 1e6, 1),
        "seconds": round(seconds, 2),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "target_seconds": 20,
        "target_gigabytes": 2,
    }


def _repeated(table: DriveTable, count: int) -> Iterator[pa.Table]:
    """The rows again and again, each time as other drives."""
    rows = table.read()
    left, copy = count, 0
    drives = rows["drive"].cast(pa.string()).to_pylist()
    known = sorted(set(drives))
    codes = np.array([known.index(name) for name in drives], np.int32)
    place = rows.schema.get_field_index("drive")
    while left > 0:
        names = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([f"{name}-{copy:04d}" for name in known]))
        part = rows.set_column(place, rows.schema.field(place), names)
        yield part.slice(0, min(left, rows.num_rows))
        left -= rows.num_rows
        copy += 1


def _with_threshold(factor: float) -> Callable[[Recording], Calibration]:
    def choose(recording: Recording) -> Calibration:
        assert recording.calibration is not None
        return replace(recording.calibration, threshold=recording.calibration.threshold * factor)

    return choose


def measure_judge(drives: Path, work: Path, bundle: Path) -> dict[str, Any]:
    """The pictures of all drives, by one engine in this process and by two workers that are ready."""
    table = DriveTable(table_of(drives, work))
    units = units_of(table)
    task = JudgeTask(str(bundle.resolve()), Bundle.open(bundle).digest, "onnxruntime", "fp32")
    task.prepare()

    def run(folder: str, hands: Processes | None) -> tuple[float, float, Outcome]:
        shutil.rmtree(work / folder, ignore_errors=True)
        begun, cpu = time.perf_counter(), time.process_time()
        outcome = run_units(task, units, work / folder, None if hands is None else lambda: hands, _quiet, "")
        return time.perf_counter() - begun, time.process_time() - cpu, outcome

    alone, cpu, outcome = run("one", None)
    begun = time.perf_counter()
    workers = Processes(task, 2)
    said = workers.hello()
    started = time.perf_counter() - begun
    workers.hello = lambda: said  # type: ignore[method-assign]  # they said it already
    two, _, again = run("two", workers)
    judged = compare(table, outcome.parts).verdicts
    same = [a.read_bytes() == b.read_bytes() for a, b in zip(outcome.parts, again.parts, strict=True)]
    return {
        "regions": judged,
        "files": len(units),
        "one_engine_per_s": round(judged / alone, 1),
        "one_engine_per_cpu_s": round(judged / cpu, 1),
        "two_workers_per_s": round(judged / two, 1),
        "share_of_twice": round(alone / two / 2, 3),
        "start_s": round(started, 2),
        "same_bytes": all(same),
        "target_share": 0.9,
    }


def truth_lines(drives: Path) -> list[str]:
    """One for each verdict of the made drives."""
    return [line for path in sorted(drives.glob("truth-*.csv")) for line in path.read_text().splitlines()[1:]]


def measure_mining(drives: Path, work: Path, budget: int) -> dict[str, Any]:
    """Injected errors among the chosen verdicts, against random choice from all and from those with a picture."""
    table = DriveTable(table_of(drives, work))
    injected = set()
    for line in truth_lines(drives):
        drive, region, frame, _, wrong = line.split(",")
        if wrong == "1":
            injected.add((drive, region, int(frame)))
    rows = table.read(["drive", "region", "frame_id", "picture"]).to_pylist()
    is_error = np.array([(row["drive"], row["region"], row["frame_id"]) in injected for row in rows])
    pictured = np.array([bool(row["picture"]) for row in rows])
    rng = np.random.default_rng(0)

    def at_random(of: np.ndarray) -> float:
        places = np.flatnonzero(of)
        size = min(budget, len(places))
        return float(np.mean([is_error[rng.choice(places, size, replace=False)].sum() for _ in range(RANDOM)]))

    found: dict[str, Any] = {}
    for name, criteria in (("all criteria", CRITERIA), *((each, (each,)) for each in CRITERIA)):
        chosen = mine(table, list(criteria), budget).rows.to_pylist()
        keys = [(row["drive"], row["region"], row["frame_id"]) for row in chosen]
        found[name] = {"chosen": len(keys), "injected": sum(key in injected for key in keys)}
    everything, kept = at_random(np.ones(len(rows), bool)), at_random(pictured)
    best = found["all criteria"]["injected"]
    return {
        "verdicts": len(rows),
        "with_picture": int(pictured.sum()),
        "injected": int(is_error.sum()),
        "injected_with_picture": int((is_error & pictured).sum()),
        "budget": budget,
        "mined": found,
        "random_of_all": round(everything, 1),
        "random_with_picture": round(kept, 1),
        "times_random_of_all": round(best / everything, 2) if everything else None,
        "times_random_with_picture": round(best / kept, 2) if kept else None,
        "target_times": 5,
    }


def measure_truth(work: Path, bundle: Path, clip: Path) -> dict[str, Any]:
    """What-if says what driving again with the other threshold gives, verdict for verdict counted per drive."""
    backend, precision = "onnxruntime", "fp32"
    opened = Session.open
    folders = work / "as-it-was", work / "driven-again"
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    make(folders[0], str(bundle), clip, 2, 4.0, backend=backend, precision=precision)

    def with_half(*arguments: Any, **named: Any) -> Session:
        session = opened(*arguments, **named)
        assert session.calibration is not None
        calibration = replace(session.calibration, threshold=session.calibration.threshold * 0.5)
        return Session(session.bundle, session.scorer.backend, session.precision, calibration)

    Session.open = with_half  # type: ignore[method-assign]  # the same drives under another threshold
    try:
        make(folders[1], str(bundle), clip, 2, 4.0, backend=backend, precision=precision)
    finally:
        Session.open = opened  # type: ignore[method-assign]
    tables = []
    for folder in folders:
        place = work / f"{folder.name}-work"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        tables.append(DriveTable(table_of(folder, place)))
    found = what_if(tables[0], _with_threshold(0.5), _quiet)
    driven = tables[1].read(["drive", "accepted"]).group_by("drive").aggregate([("accepted", "sum")]).to_pylist()
    actual = {row["drive"]: row["accepted_sum"] for row in driven}
    predicted = {name: int(counts[2]) for name, counts in found.drives.items()}
    return {
        "verdicts": found.verdicts,
        "turned": int(found.counts["lost"].sum() + found.counts["won"].sum()),
        "accepted_as_predicted": predicted == actual,
        "predicted": predicted,
        "driven_again": actual,
    }


def describe(drives: Path) -> dict[str, Any]:
    """What the made drives are, and what an hour of them takes."""
    files = sorted(drives.rglob("*.mcap"))
    lines = len(truth_lines(drives))
    hours = lines / len(ROIS) / FPS / 3600
    size = sum(path.stat().st_size for path in files)
    verdicts = 0
    for path in files:
        verdicts += sum(len(message.data) for message in Contents(path).messages(lambda topic: topic.startswith(TOPIC)))
    return {
        "hours": round(hours, 4),
        "files": len(files),
        "regions": len(ROIS),
        "gigabytes_per_hour": round(size / 1e9 / hours, 3),
        "verdict_gigabytes_per_hour_uncompressed": round(verdicts / 1e9 / hours, 3),
    }


def main() -> None:
    """Measure some parts and add them to the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=("index", "what-if", "judge", "mining", "truth"))
    parser.add_argument("--drives", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--budget", type=int, default=500, help="of mining")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of what-if")
    parser.add_argument("--verdicts", type=int, default=400_000, help="of index")
    parser.add_argument("--bundle", type=Path, default=Path("models/bundles/hybrid-cifar10.bundle"))
    parser.add_argument("--clip", type=Path, default=Path("camera_demo/clips/highway_1280x720_25fps.mp4"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/drives.json"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    drives, work, bundle = arguments.drives, arguments.work, arguments.bundle
    known: dict[str, Callable[[], dict[str, Any]]] = {
        "index": lambda: measure_index(drives, work, arguments.verdicts),
        "what-if": lambda: measure_what_if(drives, work, arguments.rows),
        "judge": lambda: measure_judge(drives, work, bundle),
        "mining": lambda: measure_mining(drives, work, arguments.budget),
        "truth": lambda: measure_truth(work, bundle, arguments.clip),
    }
    record: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"format": FORMAT}
    record["drives"] = describe(drives)
    record["machine"] = circumstances()
    for name in arguments.parts:
        record[name] = {
            **known[name](),
            "processors": os.cpu_count(),
            "load": [round(each, 1) for each in os.getloadavg()],
        }
        to_stdout(f"{name}: {json.dumps(record[name])}")
    write_json(arguments.out, record)


if __name__ == "__main__":
    main()
