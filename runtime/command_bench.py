"""``framegate bench``: capture-to-verdict latency, stage by stage, against the bare engine or under a camera's pace."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framegate.runtime import bench
from framegate.runtime.backend import BACKENDS, choose_backend, default_precision, load_backend
from framegate.runtime.bench_compare import circumstances_that_differ, compare_records, read_record
from framegate.runtime.bench_page import page
from framegate.runtime.bench_record import (
    CLOSED_LOOP,
    SCENARIOS,
    head,
    latency_record,
    startup_record,
    write_record,
    write_text,
)
from framegate.runtime.bench_report import comparison_table, lines, tables
from framegate.runtime.bench_scenarios import Progress, Scenario, measure_scenario
from framegate.runtime.bench_stream import HELD, read_frames
from framegate.runtime.bundle import Bundle
from framegate.runtime.command_run import SWITCH_INTERVAL_S
from framegate.runtime.console import OUT, progress_bar, say, tell
from framegate.runtime.errors import BackendError, SinkError, UsageError
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.session import Session
from framegate.runtime.source import open_source
from framegate.runtime.verdict import Image

_MOST_STREAMS = 8
_BACK_TO_BACK, _SOURCE = "back-to-back", "source"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``bench`` to the command line."""
    parser = commands.add_parser("bench", help="measure latency, start-up and memory on this machine")
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--frames", type=int, default=2000, help="timed frames per configuration (default: 2000)")
    parser.add_argument("--memory-frames", type=int, default=10_000, help="frames of the memory test, 0 skips it")
    parser.add_argument("--threads", type=int, help="CPU threads of every engine (default: each engine's own choice)")
    parser.add_argument("--source", help="real frames from a clip, folder or camera (default: a moving test pattern)")
    parser.add_argument(
        "--size", metavar="WxH", help="size of the synthetic frames (default: 1280x720, for volumes a column of slices)"
    )
    parser.add_argument("--out", type=Path, help="also write the figures with their circumstances to this JSON file")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with histograms")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("FIRST", "SECOND"), help="two JSON files: what changed beyond noise?"
    )
    group = parser.add_argument_group("one configuration as it runs in a vehicle (any of these)")
    group.add_argument(
        "--pace",
        action="append",
        metavar="FPS",
        help=f"frames per second of each stream, {_BACK_TO_BACK}, or {_SOURCE}: the source at its own pace, "
        "decoding included; repeat for several",
    )
    group.add_argument("--streams", type=int, action="append", metavar="N", help="cameras at once, 1 to 8; repeat")
    group.add_argument("--load", action="store_true", help="also with a foreign process on the last core, in turns")
    group.add_argument(
        "--realtime",
        choices=("block", "spin"),
        help="also tuned, in turns: no garbage collection, workers on cores of their own, SCHED_FIFO where allowed; "
        "the worker sleeps (block) or looks (spin) until the next frame",
    )
    group.add_argument("--deadline-ms", type=float, help="a later verdict is LATE (default: the camera's period)")
    group.add_argument("--backend", help="default: auto")
    group.add_argument("--precision", help="default: the backend's fastest")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and report, or compare: then the exit code is 1 if something became worse."""
    if arguments.compare:
        return _compare(arguments)
    if arguments.bundle is None:
        raise UsageError("bench needs a bundle to measure, or --compare with two records")
    _check(arguments)
    bundle = Bundle.open(arguments.bundle)
    size = _size(arguments.size, bundle.preprocess)
    if arguments.source:
        images = read_frames(arguments.source)
        source, size = arguments.source, (images[0].shape[1], images[0].shape[0])
    else:
        images = bench.synthetic_frames(HELD, *size)
        source = "moving test pattern"
    source += f", {size[0]}x{size[1]}"
    command = _command(arguments)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with progress_bar() as progress:
        if _wants_scenarios(arguments):
            record = head(SCENARIOS, command, bundle, source) | _scenarios(arguments, bundle, images, progress)
        else:
            record = head(CLOSED_LOOP, command, bundle, source) | _latency(arguments, bundle, images, size, progress)
    if arguments.out:
        write_record(arguments.out, record)
    if arguments.html:
        write_text(arguments.html, page(record), "page")
    if arguments.json:
        say(json.dumps(record, indent=2))
        return 0
    for table in tables(record):
        OUT.print(table)
    for line in lines(record):
        say(line)
    return 0


def _command(arguments: argparse.Namespace) -> str:
    """What has to be typed to measure the same again."""
    words = ["framegate", "bench", str(arguments.bundle)]
    for name, value in vars(arguments).items():
        option = f"--{name.replace('_', '-')}"
        if name in ("bundle", "run", "command", "out", "html", "json", "compare") or value is None or value is False:
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [option] if one is True else [option, str(one)]
    return shlex.join(words)


def _wants_scenarios(arguments: argparse.Namespace) -> bool:
    return bool(arguments.pace or arguments.streams or arguments.load or arguments.realtime)


def _check(arguments: argparse.Namespace) -> None:
    """Before anything is opened: wrong usage costs no time."""
    if arguments.frames < 1 or arguments.memory_frames < 0:
        raise UsageError("--frames must be at least 1 and --memory-frames at least 0")
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads {arguments.threads}: expected at least 1")
    for streams in arguments.streams or ():
        if not 1 <= streams <= _MOST_STREAMS:
            raise UsageError(f"--streams {streams}: expected 1 to {_MOST_STREAMS}")
    for option in ("backend", "precision", "deadline_ms"):
        if getattr(arguments, option) is not None and not _wants_scenarios(arguments):
            raise UsageError(
                f"--{option.replace('_', '-')} belongs to --pace, --streams, --load or --realtime; "
                "without them every configuration is measured"
            )
    if arguments.deadline_ms is not None and not arguments.deadline_ms > 0:
        raise UsageError(f"--deadline-ms {arguments.deadline_ms:g}: expected milliseconds above 0")
    if arguments.source and arguments.size:
        raise UsageError("--size is that of the synthetic frames; those of --source have their own")
    _paces(arguments)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if arguments.realtime == "spin" and max(arguments.streams or [1]) >= cores:
        raise UsageError(
            f"--realtime spin takes a core for every stream and needs one more; here are {cores}: take fewer --streams "
            "or --realtime block"
        )
    for path, what in ((arguments.out, "results"), (arguments.html, "page")):
        if path and not path.parent.is_dir():
            raise SinkError(f"{what} {path}: the folder {path.parent} does not exist")


def _paces(arguments: argparse.Namespace) -> list[float | str | None]:
    """Frames per second, None for back to back, or ``source``."""
    found: list[float | str | None] = []
    for text in arguments.pace or [_BACK_TO_BACK]:
        if text in (_BACK_TO_BACK, _SOURCE):
            found.append(None if text == _BACK_TO_BACK else text)
            continue
        try:
            fps = float(text)
        except ValueError:
            fps = math.nan
        if not 0.1 <= fps <= 1000:
            raise UsageError(f"--pace {text}: expected 0.1 to 1000 frames per second, {_BACK_TO_BACK} or {_SOURCE}")
        found.append(fps)
    if _SOURCE in found and not arguments.source:
        raise UsageError(f"--pace {_SOURCE}: which one? give --source")
    return found


def _latency(
    arguments: argparse.Namespace, bundle: Bundle, images: list[Image], size: tuple[int, int], progress: Progress
) -> dict[str, Any]:
    installed = []
    for name, entry in BACKENDS.items():
        try:
            chosen = choose_backend(name)
            for precision in bundle.models if entry.gpu else ():
                load_backend(chosen, bundle.model_path(precision))  # a GPU, an engine: found out now
            installed.append(chosen)
        except BackendError as error:
            tell(f"left out: {error}")
    wanted = [(backend, precision) for backend in installed for precision in bundle.models]
    default = choose_backend("auto")
    precision = default_precision(default, bundle.models)
    results = bench.measure_latency(bundle, wanted, arguments.frames, arguments.threads, size, progress, images)
    startup = bench.measure_startup(arguments.bundle, default, precision, size, 5, progress)
    memory = (
        bench.measure_memory(bundle, default, precision, arguments.memory_frames, size, progress)
        if arguments.memory_frames
        else None
    )
    return latency_record(results, f"{default}/{precision}") | {
        "startup_s": startup_record(startup),
        "memory": memory,
    }


def _scenarios(
    arguments: argparse.Namespace, bundle: Bundle, images: list[Image], progress: Progress
) -> dict[str, Any]:
    backend = choose_backend(arguments.backend or "auto")
    precision = arguments.precision or default_precision(backend, bundle.models)

    def open_session() -> Session:
        return Session.open(bundle, backend, precision, arguments.threads)

    series: dict[str, Any] = {}
    for pace in _paces(arguments):
        own_pace = pace == _SOURCE
        fps = pace if isinstance(pace, float) else None
        period_ms = 1000 / fps if fps else None
        for streams in arguments.streams or [1]:
            scenario = Scenario(
                fps,
                streams,
                arguments.load,
                arguments.realtime is not None,
                spin_us=1200 * (period_ms or 2.0) if arguments.realtime == "spin" else 0.0,
                deadline_ms=arguments.deadline_ms or period_ms,
            )
            open_live: Callable[[], Any] | None = (
                (lambda: open_source(arguments.source, loop=_can_loop(arguments.source))) if own_pace else None
            )
            found = measure_scenario(scenario, open_session, images, arguments.frames, progress, open_live)
            series |= {_named(name, own_pace): row for name, row in found.items()}
    return {"configuration": f"{backend}/{precision}", "engine": open_session().backend.engine, "series": series}


def _named(name: str, own_pace: bool) -> str:
    return name.replace("back to back", "the source's pace") if own_pace else name


def _can_loop(uri: str) -> bool:
    """Clips, folders and test patterns start again at their end; cameras and streams have none."""
    return (Path(uri).exists() and not Path(uri).is_char_device()) or uri.startswith("synthetic://")


def _compare(arguments: argparse.Namespace) -> int:
    if arguments.bundle is not None:
        raise UsageError("--compare compares two records and measures nothing; leave the bundle out")
    first, second = (read_record(path) for path in arguments.compare)
    changes = compare_records(first, second)
    differ = circumstances_that_differ(first, second)
    worse = any(change.worse for change in changes)
    if arguments.json:
        say(json.dumps({"differ": differ, "changes": [vars(change) for change in changes]}, indent=2))
        return int(worse)
    for line in differ:
        say(f"differs: {line}")
    if not changes:
        raise UsageError(f"{arguments.compare[0]} and {arguments.compare[1]} have no series in common")
    OUT.print(comparison_table(changes))
    moved = [change for change in changes if change.beyond_noise]
    say(f"{len(moved)} of {len(changes)} figures changed beyond noise" if moved else "nothing changed beyond noise")
    return int(worse)


def _size(text: str | None, spec: PreprocessSpec) -> tuple[int, int]:
    """Width and height of the frames; without a wish the smallest column of slices that the test pattern can fill."""
    if text is None:
        if spec.depth == 1:
            return 1280, 720
        scale = max(-(-128 // spec.width), -(-64 // (spec.depth * spec.height)), -(-16 // spec.height))
        return scale * spec.width, scale * spec.depth * spec.height
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 64 and int(height) >= 64):
        raise UsageError(f"--size {text!r}: expected WIDTHxHEIGHT in pixels, at least 64x64")
    if int(height) % spec.depth:
        raise UsageError(f"--size {text!r}: the height must be a multiple of the {spec.depth} slices of a volume")
    return int(width), int(height)
