"""``framegate bench``: capture-to-verdict latency, stage by stage, against the bare engine or under a camera's pace."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framegate.benchmarks.latency import measure as bench
from framegate.benchmarks.latency.compare import circumstances_that_differ, compare_records, read_record
from framegate.benchmarks.latency.measure import Progress
from framegate.benchmarks.latency.options import (
    BACK_TO_BACK,
    SOURCE,
    can_loop,
    check_options,
    command_of,
    frame_size,
    paces,
    wants_scenarios,
)
from framegate.benchmarks.latency.page import page
from framegate.benchmarks.latency.record import (
    CLOSED_LOOP,
    SCENARIOS,
    head,
    latency_record,
    startup_record,
    write_record,
)
from framegate.benchmarks.latency.scenarios import PacedBareLoop, Scenario, measure_scenario
from framegate.benchmarks.latency.series import summarise
from framegate.benchmarks.latency.stream import HELD, read_frames
from framegate.benchmarks.latency.summaries import SUMMARIES
from framegate.benchmarks.latency.tables import comparison_table, left_out_lines, lines, tables
from framegate.benchmarks.latency.yardstick import BareLoop
from framegate.evaluation.report.files import write_text
from framegate.runtime.backends.choice import choose_backend, default_precision
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.cli.options import BUNDLE_HELP, SWITCH_INTERVAL_S, require_distinct
from framegate.runtime.console import OUT, json_to_stdout, progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import UsageError
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.realtime import WAITING, spin_us
from framegate.runtime.session import Session
from framegate.runtime.sources.open import open_source
from framegate.runtime.verdict import Image

STARTS = 5
"""New processes whose start-up is measured."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``bench`` to the command line."""
    parser = commands.add_parser("bench", help=SUMMARIES["bench"])
    parser.add_argument("bundle", nargs="?", help=BUNDLE_HELP)
    parser.add_argument(
        "--frames",
        type=int,
        default=2000,
        metavar="N",
        help="timed frames per configuration, rounded up to whole blocks (default: %(default)s)",
    )
    parser.add_argument(
        "--memory-frames",
        type=int,
        default=10_000,
        metavar="N",
        help="frames of the memory test, 0 skips it (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of every engine (default: each engine's own choice)"
    )
    parser.add_argument("--source", help="real frames from a clip, folder or camera (default: a moving test pattern)")
    parser.add_argument(
        "--size",
        metavar="WxH",
        help="size of the synthetic frames in pixels (default: 1280x720, for volumes a column of slices)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="also write the figures and the machine to this JSON file (default: none)",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page with histograms; needs Jinja2 (default: none)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("FIRST", "SECOND"),
        help="measure nothing, but say what changed beyond noise between two files of --out (default: measure)",
    )
    group = parser.add_argument_group("one configuration as it runs in a vehicle (any of these)")
    group.add_argument(
        "--pace",
        action="append",
        metavar="FPS",
        help=f"frames per second of each stream, {BACK_TO_BACK}, or {SOURCE}: the source at its own pace, "
        f"decoding included; repeat for several (default: {BACK_TO_BACK})",
    )
    group.add_argument(
        "--streams", type=int, action="append", metavar="N", help="cameras at once, 1 to 8; repeat (default: 1)"
    )
    group.add_argument("--load", action="store_true", help="also with a foreign process on the last core, in turns")
    group.add_argument(
        "--realtime",
        choices=WAITING,
        help="also tuned, in turns: no garbage collection, workers on cores of their own, SCHED_FIFO where allowed; "
        "the worker sleeps (block) or looks (spin) until the next frame (default: not tuned)",
    )
    group.add_argument(
        "--deadline-ms",
        type=float,
        metavar="MS",
        help="milliseconds after which a verdict is LATE (default: the camera's period)",
    )
    group.add_argument("--backend", help="engine (default: auto)")
    group.add_argument("--precision", help="fp32, fp16 or int8 (default: the backend's fastest)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and report, or compare: then the exit code is 1 if something became worse."""
    if arguments.compare:
        return _compare(arguments)
    if arguments.bundle is None:
        raise UsageError("bench needs a bundle to measure, or --compare with two records")
    check_options(arguments)
    require_distinct([arguments.source or ""], arguments.out, arguments.html)
    bundle = Bundle.open(arguments.bundle).for_classifiers("bench")
    size = frame_size(arguments.size, bundle.preprocess)
    if arguments.source:
        images = read_frames(arguments.source)
        source, size = hide_passwords(arguments.source), (images[0].shape[1], images[0].shape[0])
    else:
        images = bench.synthetic_frames(HELD, *size)
        source = "moving test pattern"
    source += f", {size[0]}x{size[1]}"
    command = command_of(arguments)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with progress_bar() as progress:
        if wants_scenarios(arguments):
            record = head(SCENARIOS, command, bundle, source) | _scenarios(arguments, bundle, images, progress)
        else:
            record = head(CLOSED_LOOP, command, bundle, source) | _latency(arguments, bundle, images, size, progress)
    if arguments.out:
        write_record(arguments.out, record)
    if arguments.html:
        write_text(arguments.html, page(record))
    if arguments.json:
        json_to_stdout(record)
        return 0
    for table in tables(record):
        OUT.print(table)
    for line in lines(record):
        to_stdout(line)
    return 0


def _latency(
    arguments: argparse.Namespace, bundle: Bundle, images: list[Image], size: tuple[int, int], progress: Progress
) -> dict[str, Any]:
    wanted, left_out = bench.configurations(bundle)
    for line in left_out_lines(left_out):
        to_stderr(f"left out: {line}")
    default = choose_backend("auto")
    precision = default_precision(default, bundle.models)
    results = bench.measure_latency(bundle, wanted, arguments.frames, arguments.threads, size, progress, images)
    startup = bench.measure_startup(bundle.path, default, precision, size, STARTS, True, progress)
    compiling = bench.measure_startup(bundle.path, default, precision, size, STARTS, False, progress)
    memory = (
        bench.measure_memory(bundle, default, precision, arguments.memory_frames, size, progress)
        if arguments.memory_frames
        else None
    )
    return latency_record(results, f"{default}/{precision}") | {
        "startup_s": startup_record(*startup),
        "startup_compiling_s": startup_record(*compiling),
        "memory": memory,
        "left_out": left_out,
    }


def _scenarios(
    arguments: argparse.Namespace, bundle: Bundle, images: list[Image], progress: Progress
) -> dict[str, Any]:
    # auto as the product means it: with a GPU, the engine that was built and calibrated there.
    chosen = Session.open(bundle, arguments.backend or "auto", arguments.precision, arguments.threads)
    backend, precision, engine = chosen.scorer.backend.name, chosen.precision, chosen.scorer.backend.engine

    def open_session() -> Session:
        return Session.open(bundle, backend, precision, arguments.threads)

    series: dict[str, Any] = {}
    alone: dict[str, Any] = {}
    for pace in paces(arguments):
        own_pace = pace == SOURCE
        fps = pace if isinstance(pace, float) else None
        period_ms = 1000 / fps if fps else None
        for streams in arguments.streams or [1]:
            scenario = Scenario(
                fps,
                streams,
                arguments.load,
                arguments.realtime is not None,
                spin_us=spin_us(arguments.realtime, fps, streams),
                deadline_ms=arguments.deadline_ms or period_ms,
            )
            open_live: Callable[[], Any] | None = (
                (lambda: open_source(arguments.source, loop=can_loop(arguments.source))) if own_pace else None
            )
            bare = None
            if fps is not None and streams == 1:
                loop = BareLoop(bundle, backend, precision, arguments.threads)
                bare = PacedBareLoop(loop, images, fps)
            found = measure_scenario(scenario, open_session, images, arguments.frames, progress, open_live, bare)
            series |= {_named(name, own_pace): row for name, row in found.items()}
            if bare is not None:
                alone[scenario.name] = summarise(bare.took_ns, scenario.block)
    return {"configuration": f"{backend}/{precision}", "engine": engine, "series": series, "bare_loop": alone}


def _named(name: str, own_pace: bool) -> str:
    return name.replace("back to back", "the source's pace") if own_pace else name


def _compare(arguments: argparse.Namespace) -> int:
    if arguments.bundle is not None:
        raise UsageError("--compare compares two records and measures nothing; leave the bundle out")
    first, second = (read_record(path) for path in arguments.compare)
    changes = compare_records(first, second)
    differ = circumstances_that_differ(first, second)
    worse = any(change.worse for change in changes)
    if arguments.json:
        json_to_stdout({"differ": differ, "changes": [vars(change) for change in changes]})
        return int(worse)
    for line in differ:
        to_stdout(f"differs: {line}")
    if not changes:
        raise UsageError(f"{arguments.compare[0]} and {arguments.compare[1]} have no series in common")
    OUT.print(comparison_table(changes))
    moved = [change for change in changes if change.beyond_noise]
    to_stdout(
        f"{len(moved)} of {len(changes)} figures changed beyond noise" if moved else "nothing changed beyond noise"
    )
    return int(worse)
