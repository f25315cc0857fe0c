"""``framegate run front=0 rear=1``: several cameras side by side in one process, one stream of verdicts each."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from framegate.runtime.cameras import Camera, Cameras, stream_name
from framegate.runtime.circumstances import circumstances
from framegate.runtime.cli.black_box import open_black_box
from framegate.runtime.cli.handover import sender_of
from framegate.runtime.cli.metrics import MetricsServer
from framegate.runtime.cli.options import (
    LINES_OUT,
    SWITCH_INTERVAL_S,
    demand_of,
    inputs_of,
    policy_of,
    require_distinct,
    source_options,
    wants_pictures,
)
from framegate.runtime.cli.signals import exit_code, let_it_end, received, stopped_by_signals, why_ended
from framegate.runtime.cli.tables import stats_tables
from framegate.runtime.console import ERR, OUT, StatusLine, json_to_stdout, note, to_stderr, to_stdout
from framegate.runtime.errors import UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.handover.sender import Identity
from framegate.runtime.pipeline import default_deadline_ms
from framegate.runtime.replay.recording import Recording
from framegate.runtime.roi import Roi, parse_rois
from framegate.runtime.session import Session
from framegate.runtime.sinks.base import Sink
from framegate.runtime.sinks.jsonl import BEATS, JsonLinesSink
from framegate.runtime.sinks.open import open_sinks, require_formats
from framegate.runtime.sinks.record_file import STDOUT
from framegate.runtime.sinks.recorder import Recorder
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.open import open_source

PLACE = "{camera}"
"""In the name of a recording: the camera's name."""
_LOOK_S = 0.1


def run_cameras(arguments: argparse.Namespace, named: Sequence[tuple[str, str]]) -> int:
    """Judge all cameras until their sources end, or a signal ends the command.

    Args:
        arguments: Of ``framegate run``.
        named: Name and address of each camera.

    Returns:
        1 if a camera failed for good, or if a recording is not what it should be.
    """
    _check(arguments, [name for name, _ in named])
    rois = _rois(arguments.roi, [name for name, _ in named])
    options = source_options(arguments)
    session = Session.open(
        arguments.bundle,
        arguments.backend,
        arguments.precision,
        arguments.threads,
        policy=policy_of(arguments),
        trust=arguments.trust,
        certificate=demand_of(arguments),
        probabilities=arguments.probabilities,
    )
    if arguments.backend != "auto":
        note(f"framegate: {session.describe()}")
    if session.bundle.dense is not None:
        raise UsageError(f"bundle {session.bundle.name}: a dense bundle judges one camera; give one source")

    def opener(address: str) -> Callable[[], Source]:
        def opened() -> Source:
            source = open_source(address, options, realtime=not arguments.as_fast_as_possible, loop=arguments.loop)
            if arguments.handover and not source.live:
                source.close()
                raise UsageError(f"--handover: the frames of {address!r} do not come by themselves; give a camera")
            return source

        return opened

    cameras = [Camera(name, opener(address), rois[name]) for name, address in named]
    addresses = dict(named)
    with contextlib.ExitStack() as stack:
        deadline_ms = arguments.deadline_ms or default_deadline_ms(arguments.fps)
        sender = None
        if arguments.handover:
            streams = [
                (addresses[camera.name], roi.name, stream_name(camera.name, roi.name))
                for camera in cameras
                for roi in camera.rois or (Roi.whole(),)
            ]
            identity = Identity.of(session.bundle, session.calibration)
            sender = stack.enter_context(sender_of(arguments, streams, identity, deadline_ms))
        lines, recorders = _recorders(arguments, cameras, session, stack, deadline_ms)

        def take(camera: Camera, result: FrameResult) -> None:
            lines.put(result)
            recorders[camera.name].put(result)

        side_by_side = Cameras(
            cameras,
            session,
            take,
            deadline_ms=arguments.deadline_ms,
            keep_frames=wants_pictures(arguments),
            again=not arguments.no_reconnect,
            told=None if sender is None else sender.send_result,
        )
        if arguments.metrics is not None:
            stack.enter_context(MetricsServer(arguments.metrics, side_by_side.stats))
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        ending = _wait(side_by_side, lines)
        let_it_end()
    return _conclude(arguments, side_by_side, session, ending, (lines, *recorders.values()))


def _conclude(
    arguments: argparse.Namespace,
    side_by_side: Cameras,
    session: Session,
    ending: str,
    recorders: Sequence[Recorder],
) -> int:
    """Say how it ended; returns the exit code."""
    for name, failure in side_by_side.failures.items():
        to_stderr(f"framegate: camera {name}: {failure}")
    _print_summary(arguments, side_by_side, session)
    number = received()
    if ending or number is not None:
        to_stderr(f"framegate: {ending or why_ended(number or 0)}")
    broken = ending or side_by_side.failures or any(each.failed for each in recorders)
    if number is not None and not broken:
        return exit_code(number)
    return 1 if broken else 0


def _wait(cameras: Cameras, lines: Recorder) -> str:
    """Wait until all have ended. Returns why it ended early, if nobody reads the lines any more."""
    status = StatusLine()
    with stopped_by_signals(cameras.stop), cameras:
        try:
            while not cameras.wait(_LOOK_S):
                if lines.failure_of(STDOUT) is not None:
                    return "nobody reads the verdicts on the standard output any more"
                status.update(lambda: _status_text(cameras))
        finally:
            status.clear()
    return ""


def _status_text(cameras: Cameras) -> str:
    return "   ".join(f"{name}: {each.accepted}/{each.frames}" for name, each in cameras.stats().items())


def _check(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse what several cameras cannot have.

    Raises:
        UsageError: An option is for one camera only, or a recording's name is not one for each camera.
    """
    for option in ("inject", "health", "realtime", "objects", "max_objects", "track_rule", "label_map"):
        if getattr(arguments, option):
            raise UsageError(f"--{option.replace('_', '-')} is for one camera; start a process for it, or leave it out")
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads {arguments.threads}: expected at least 1")
    files = [path for path in (*arguments.record, arguments.rerun) if path is not None]
    for path in files:
        if PLACE not in str(path):
            raise UsageError(f"recording {path}: every camera has a file of its own; write {PLACE} into its name")
    if arguments.jsonl == STDOUT and arguments.json:
        raise UsageError("--json and --jsonl - both write to the standard output; leave one out")
    require_formats(arguments.record)
    require_distinct(inputs_of(arguments), arguments.jsonl, *(_file(path, name) for path in files for name in names))


def _rois(texts: Sequence[str], names: Sequence[str]) -> dict[str, tuple[Roi, ...]]:
    """The regions of each camera: ``CAMERA:NAME=x,y,w,h`` of one, without ``CAMERA:`` of all.

    Raises:
        UsageError: A region cannot be read, or its camera does not exist.
    """
    own: dict[str, list[str]] = {name: [] for name in names}
    for text in texts:
        camera, colon, rest = text.partition(":")
        if colon and camera not in own:
            raise UsageError(f"region {text!r}: there is no camera {camera!r}; there are {', '.join(names)}")
        for name in [camera] if colon else names:
            own[name].append(rest if colon else text)
    return {name: parse_rois(each) if each else () for name, each in own.items()}


def _file(path: Path, camera: str) -> Path:
    return Path(str(path).replace(PLACE, camera))


def _recorders(
    arguments: argparse.Namespace,
    cameras: Sequence[Camera],
    session: Session,
    stack: contextlib.ExitStack,
    deadline_ms: float,
) -> tuple[Recorder, dict[str, Recorder]]:
    """What writes the JSON lines of all cameras, and each camera's own files."""
    lossless = arguments.as_fast_as_possible
    recorders = {}
    for camera in cameras:
        recording = Recording.of(
            session, camera.regions, sequence=True, deadline_ms=deadline_ms, fps=arguments.fps, source=camera.name
        )
        files = [_file(path, camera.name) for path in arguments.record]
        rerun = None if arguments.rerun is None else _file(arguments.rerun, camera.name)
        sinks = open_sinks(
            files, rerun, None, camera.regions, arguments.fps, recording=recording, pictures=not arguments.no_pictures
        )
        if arguments.black_box is not None:
            sinks.append(open_black_box(arguments, camera.regions, recording, camera.name, len(cameras)))
        recorders[camera.name] = stack.enter_context(Recorder(sinks, lossless=lossless))
    beat_s = deadline_ms / 1e3 / BEATS if arguments.jsonl == STDOUT and not lossless else None
    lines: list[Sink] = [] if arguments.jsonl is None else [JsonLinesSink(arguments.jsonl, beat_s)]
    return stack.enter_context(Recorder(lines, lossless=lossless)), recorders


def _print_summary(arguments: argparse.Namespace, cameras: Cameras, session: Session) -> None:
    stats = cameras.stats()
    if arguments.json:
        about: dict[str, object] = {"model": session.describe(), "machine": circumstances()}
        about["cameras"] = {name: each.to_json() for name, each in stats.items()}
        about["failures"] = {name: str(each) for name, each in cameras.failures.items()}
        json_to_stdout(about)
        return
    lines_out = arguments.jsonl == STDOUT or LINES_OUT in arguments.handover
    for name, each in stats.items():
        for table in stats_tables(each):
            table.title = f"{name}: {table.title}"
            (ERR if lines_out else OUT).print(table)
        (to_stderr if lines_out else to_stdout)(f"{name}: {each.drift_line()}")
