"""Measure the work on drives: ``python -m framegate.benchmarks.drives.measure PART... --drives DIR... --work DIR``.

Each ``DIR`` is what `framegate.benchmarks.drives.make` wrote. Parts: ``index`` (verdicts per second and core, and the
floor), ``what-if`` (ten million rows), ``judge`` (pictures, two workers against one engine), ``mining`` (injected
errors found, against random choice), ``truth`` (risk and what-if). Each adds its record to ``--out``; the first three
take the first ``DIR``, the others all.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from framegate.benchmarks.drives.make import open_session
from framegate.benchmarks.drives.scenes import FPS, Highway, Scene, Signs
from framegate.benchmarks.drives.tables import quiet, table_of, with_threshold
from framegate.benchmarks.drives.truth import measure_mining, measure_truth, truth_of
from framegate.evaluation.drives.index import IndexTask, plan
from framegate.evaluation.drives.merge import merge
from framegate.evaluation.drives.processes import Processes
from framegate.evaluation.drives.rejudge import JudgeTask, compare, units_of
from framegate.evaluation.drives.table import VALUES, DriveTable, write_table
from framegate.evaluation.drives.what_if import what_if
from framegate.evaluation.drives.work import Outcome, Unit, run_units
from framegate.evaluation.report.files import write_json
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import to_stdout
from framegate.runtime.mcap_messages import Contents
from framegate.runtime.native import library
from framegate.runtime.replay.columns import read_columns
from framegate.runtime.replay.recording import DRIVE_METADATA, EVENT, METADATA
from framegate.runtime.replay.replay import TOPIC
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sinks.mcap_file import CAMERA
from framegate.runtime.verdict import Frame

PASSES = 3
BARE_S = 5.0
"""Seconds of the yardstick of two processes."""
FORMAT = "framegate-drives-cost-1"


def measure_index(drives: Path, work: Path, verdicts: int) -> dict[str, Any]:
    """One process reads recordings of so many verdicts, without the pictures between them, and as they are."""
    made = sorted(drives.rglob("*.mcap"))
    without = work / "verdicts.mcap"
    _copy_verdicts(made, without, verdicts)
    found: dict[str, Any] = {"compiled": library()[0] is not None}
    for name, files in (("without_pictures", [without]), ("with_pictures", made)):
        units = plan(files).units
        part = work / "part.parquet"
        size, rows = sum(path.stat().st_size for path in files), 0
        for unit in units:  # once before, for what is loaded at the first call
            IndexTask().do(unit, part)
            rows += DriveTable(part).rows

        def index(units: tuple[Unit, ...] = units, part: Path = part) -> None:
            for unit in units:
                IndexTask().do(unit, part)

        def unpack(files: list[Path] = files) -> None:
            for path in files:
                for _ in Contents(path).chunks():
                    pass

        def understand(files: list[Path] = files) -> None:
            for path in files:
                read_columns(Contents(path), (TOPIC, CAMERA, EVENT), VALUES)

        seconds, cpu = _timed(index)
        unpacked = sum(len(data) for path in files for data in Contents(path).chunks())
        found[name] = {
            "verdicts": rows,
            "megabytes": round(size / 1e6, 1),
            "unpacked_megabytes": round(unpacked / 1e6, 1),
            "verdicts_per_s": round(rows / seconds),
            "verdicts_per_cpu_s": round(rows / cpu),
            "megabytes_per_s": round(size / 1e6 / seconds, 1),
            "cpu_s": {
                "all": round(cpu, 3),
                "of_it_read_unpack_and_check": round(_timed(unpack)[1], 3),
                "the_same_and_columns": round(_timed(understand)[1], 3),
            },
        }
    cpu = time.process_time()
    out = work / "whole.parquet"
    outcome = run_units(IndexTask(), plan([without]).units, work / "whole", None, quiet, "")
    merge(outcome.parts, out, {})
    found["command_verdicts_per_cpu_s"] = round(verdicts / (time.process_time() - cpu))
    shutil.rmtree(work / "whole")
    return {**found, "target_verdicts_per_s": 200_000}


def _timed(do: Callable[[], None]) -> tuple[float, float]:
    """Seconds on the clock and of processor time: the median of `PASSES`."""
    found = []
    for _ in range(PASSES):
        begun, cpu = time.perf_counter(), time.process_time()
        do()
        found.append((time.perf_counter() - begun, time.process_time() - cpu))
    return float(np.median([each[0] for each in found])), float(np.median([each[1] for each in found]))


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
    found = what_if(whole, with_threshold(0.5), quiet)
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


def measure_judge(drives: Path, work: Path, bundle: Path) -> dict[str, Any]:
    """The pictures of all drives, by one engine in this process and by two workers that are ready."""
    table = DriveTable(table_of(drives, work))
    units = units_of(table)
    task = JudgeTask(str(bundle.resolve()), Bundle.open(bundle).digest, "onnxruntime", "fp32")
    task.prepare()

    def run(folder: str, hands: Processes | None) -> tuple[float, float, Outcome]:
        shutil.rmtree(work / folder, ignore_errors=True)
        begun, cpu = time.perf_counter(), time.process_time()
        outcome = run_units(task, units, work / folder, None if hands is None else lambda: hands, quiet, "")
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
    bare_one, bare_two = _bare(bundle, 1), _bare(bundle, 2)
    return {
        "regions": judged,
        "files": len(units),
        "one_engine_per_s": round(judged / alone, 1),
        "one_engine_per_cpu_s": round(judged / cpu, 1),
        "two_workers_per_s": round(judged / two, 1),
        "share_of_twice": round(alone / two / 2, 3),
        "without_files_one_process_per_s": round(bare_one, 1),
        "without_files_two_processes_per_s": round(bare_two, 1),
        "without_files_share_of_twice": round(bare_two / bare_one / 2, 3),
        "start_s": round(started, 2),
        "same_bytes": all(same),
        "target_share": 0.9,
    }


def _bare(bundle: Path, processes: int) -> float:
    """Regions per second that so many processes judge together, of one picture again and again: what the cores give."""
    context = multiprocessing.get_context("spawn")
    ready, begin = context.Barrier(processes), context.Queue()
    started = [context.Process(target=_judge_one, args=(str(bundle), ready, begin)) for _ in range(processes)]
    for each in started:
        each.start()
    total = sum(begin.get() for _ in started)
    for each in started:
        each.join()
    return float(total)


def _judge_one(bundle: str, ready: Any, answers: Any) -> None:
    session = Session.open(bundle, "onnxruntime", "fp32", 1, camera=False)
    image = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
    rois = tuple(Roi(str(k), 100 * k, 100, 90, 90, fractions=False) for k in range(4))
    count = 0
    for warm in (True, False):
        ready.wait()
        end = time.perf_counter() + (1.0 if warm else BARE_S)
        count = 0
        while time.perf_counter() < end:
            health = session.camera_health(fixed_size=False)
            count += len(session.frame_judge.judge(Frame(0, 0, image), rois, health, None, None))
    answers.put(count / BARE_S)


def describe(drives: Path) -> dict[str, Any]:
    """What the made drives are, and what an hour of them takes."""
    files = sorted(drives.rglob("*.mcap"))
    truth = truth_of(drives)
    frames = len({(drive, frame) for drive, _, frame in truth})
    hours = frames / FPS / 3600
    size = sum(path.stat().st_size for path in files)
    verdicts = 0
    for path in files:
        verdicts += sum(len(message.data) for message in Contents(path).messages(lambda topic: topic.startswith(TOPIC)))
    return {
        "hours": round(hours, 4),
        "files": len(files),
        "regions": round(len(truth) / frames),
        "gigabytes_per_hour": round(size / 1e9 / hours, 3),
        "verdict_gigabytes_per_hour_uncompressed": round(verdicts / 1e9 / hours, 3),
    }


def _scenes(arguments: argparse.Namespace) -> dict[str, tuple[Scene, Session]]:
    """What is driven again."""
    found: dict[str, tuple[Scene, Session]] = {
        "highway": (
            Highway(arguments.clip),
            open_session(str(arguments.bundle), "onnxruntime", "fp32", limits=False),
        )
    }
    if arguments.signs:
        found["signs"] = (
            Signs(arguments.clip, arguments.signs), open_session("hybrid-gtsrb", "onnxruntime", "fp32", limits=True)
        )  # fmt: skip
    return found


def main() -> None:
    """Measure some parts and add them to the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=("index", "what-if", "judge", "mining", "truth"))
    parser.add_argument("--drives", required=True, nargs="+", type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--budget", type=int, default=500, help="of mining")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of what-if")
    parser.add_argument("--verdicts", type=int, default=400_000, help="of index")
    parser.add_argument("--bundle", type=Path, default=Path("models/bundles/hybrid-cifar10.bundle"))
    parser.add_argument("--signs", type=Path, metavar="DATA", help="GTSRB, for truth")
    parser.add_argument("--clip", type=Path, default=Path("camera_demo/clips/highway_1280x720_25fps.mp4"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/drives.json"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    work, bundle = arguments.work, arguments.bundle
    folders, drives = arguments.drives, arguments.drives[0]
    known: dict[str, Callable[[], dict[str, Any]]] = {
        "index": lambda: measure_index(drives, work, arguments.verdicts),
        "what-if": lambda: measure_what_if(drives, work, arguments.rows),
        "judge": lambda: measure_judge(drives, work, bundle),
        "mining": lambda: measure_mining(folders, work, arguments.budget),
        "truth": lambda: measure_truth(folders, _scenes(arguments), work, arguments.budget),
    }
    record: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"format": FORMAT}
    before = {name: each for name, each in record.get("drives", {}).items() if isinstance(each, dict)}
    record["drives"] = before | {each.name: describe(each) for each in folders}
    for name in arguments.parts:
        record[name] = {
            **known[name](),
            "machine": circumstances(),
            "processors": os.cpu_count(),
            "load": [round(each, 1) for each in os.getloadavg()],
        }
        to_stdout(f"{name}: {json.dumps(record[name])}")
        write_json(arguments.out, record)


if __name__ == "__main__":
    main()
