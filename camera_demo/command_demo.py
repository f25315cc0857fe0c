"""``framegate demo``: a camera or clip on a web page, with its verdicts, and faults on buttons."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from framegate.camera_demo.looped_clip import LoopedClip
from framegate.camera_demo.recorder import Recorder
from framegate.camera_demo.shipped import BUNDLE, CLIP, REGIONS, shipped
from framegate.camera_demo.window import Window, WindowClosed
from framegate.runtime.command_run import (
    SWITCH_INTERVAL_S,
    Sink,
    add_engine_options,
    add_policy_options,
    policy_of,
    require_distinct,
)
from framegate.runtime.command_source import SOURCE_HELP, add_source_options, source_options
from framegate.runtime.console import say, tell
from framegate.runtime.errors import FramegateError, SinkError, UsageError
from framegate.runtime.pipeline import FrameResult, Pipeline
from framegate.runtime.roi import Roi, parse_rois
from framegate.runtime.session import Session
from framegate.runtime.source import Source, open_source
from framegate.runtime.source_options import SourceOptions

if TYPE_CHECKING:  # needs the packages of the page
    from framegate.camera_demo.live_demo import LiveDemo

PORT = 8321
DEADLINE_MS = 150.0
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_NEEDED = ("starlette", "uvicorn", "websockets")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo`` to the command line."""
    parser = commands.add_parser(
        "demo",
        help="a camera or clip on a web page, faults on buttons",
        description="Serves a page with the live picture, its verdicts and buttons for faults. Without SOURCE it plays "
        "the repository's clip in a loop through the repository's bundle.",
    )
    parser.add_argument("source", nargs="?", help=SOURCE_HELP)
    parser.add_argument("--bundle", type=Path, help=f"folder NAME.bundle (default: the repository's {BUNDLE})")
    add_engine_options(parser)
    parser.add_argument(
        "--roi", action="append", default=[], metavar="[NAME=]x,y,w,h", help="classify this region; repeat for several"
    )
    parser.add_argument(
        "--deadline-ms",
        type=float,
        default=DEADLINE_MS,
        help="a verdict on an older frame is LATE (default: %(default)g)",
    )
    parser.add_argument("--once", action="store_true", help="end where a clip ends instead of starting it again")
    add_source_options(parser)
    add_policy_options(parser)
    page = parser.add_argument_group("page")
    page.add_argument("--port", type=int, default=PORT, help=f"0 takes any free one (default: {PORT})")
    page.add_argument(
        "--host", default="127.0.0.1", help="open the page to other machines, with a token, e.g. 0.0.0.0 (default: not)"
    )
    outputs = parser.add_argument_group("outputs beside the page")
    outputs.add_argument("--show", action="store_true", help="a window on this machine, too")
    outputs.add_argument("--record", type=Path, metavar="FILE", help="annotated video (.mp4, .avi) or .mcap")
    outputs.add_argument("--rerun", type=Path, metavar="FILE.rrd", help="a recording for the Rerun viewer")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until the source ends or Ctrl-C."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"demo: {', '.join(missing)} not installed; pip install 'framegate[demo]'")
    from framegate.camera_demo.live_demo import LiveDemo
    from framegate.camera_demo.web_server import listen

    _check(arguments)
    policy = policy_of(arguments)
    rois = REGIONS if arguments.source is None and not arguments.roi else parse_rois(arguments.roi)
    opened = _opener(arguments)
    bundle = arguments.bundle or shipped(BUNDLE, "the bundle", "--bundle NAME.bundle")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(arguments.host, arguments.port))
        session = Session.open(bundle, arguments.backend, arguments.precision, arguments.threads, policy=policy)
        if arguments.backend != "auto":
            tell(f"framegate: {session.describe()}")
        stack.enter_context(_ended_by_signals())
        demo = stack.enter_context(LiveDemo(opened, session, rois, arguments.deadline_ms, arguments.host, listener))
        takers = _takers(arguments, rois, demo, stack)
        say(f"framegate demo: {demo.start()}   (Ctrl-C ends it)")
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        code, ending = _consume(demo.pipeline, takers)
        _let_it_end()
        tell(f"framegate: {ending}")
        demo.finish(ending)
    tell(f"framegate: {demo.pipeline.stats}")
    return code


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what can be known to be wrong before anything is opened.

    Raises:
        UsageError: A value is outside its range.
    """
    if not arguments.deadline_ms > 0:
        raise UsageError(f"--deadline-ms {arguments.deadline_ms:g}: expected a positive number")
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads {arguments.threads}: expected at least 1")


def _opener(arguments: argparse.Namespace) -> Callable[[], Source]:
    """What opens the source, at the start and again after it was killed on the page.

    Raises:
        UsageError: There is no source, and no repository whose clip could be played.
    """
    options = source_options(arguments)
    if arguments.source is not None:
        return lambda: open_source(arguments.source, options, loop=not arguments.once)
    clip = shipped(CLIP, "the clip", "a SOURCE, e.g. 0 or synthetic://, and --bundle")
    if arguments.once or options != SourceOptions():
        return lambda: open_source(str(clip), options, loop=not arguments.once)
    return lambda: LoopedClip(clip)


def _consume(pipeline: Pipeline, takers: Sequence[Callable[[FrameResult], None]]) -> tuple[int, str]:
    """Hand on results until they end. Returns the exit code and why it was the last one."""
    try:
        with pipeline:
            for result in pipeline.results():
                for take in takers:
                    take(result)
    except WindowClosed:
        return 0, "the window was closed"
    except KeyboardInterrupt:
        return 130, "the demo was ended"
    except FramegateError as error:
        return error.exit_code, str(error)
    return (0, "the source has ended") if pipeline.stats.frames else (1, "the source delivered no frame")


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Meanwhile SIGTERM and a closed terminal end the demo as Ctrl-C does, unless they were ignored (nohup)."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _let_it_end()
    raise KeyboardInterrupt


def _let_it_end() -> None:
    """From now on no signal interrupts what ends in seconds anyway: recordings are finished, pages told."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _takers(
    arguments: argparse.Namespace, rois: tuple[Roi, ...], demo: LiveDemo, stack: contextlib.ExitStack
) -> list[Callable[[FrameResult], None]]:
    """Who gets every result: the page, and what was asked for beside it, which the stack closes.

    Raises:
        UsageError: Something that is needed for it is missing here.
        SinkError: A file cannot be written.
    """
    takers: list[Callable[[FrameResult], None]] = [demo.show]
    if arguments.show:
        window = Window(rois)
        stack.callback(window.close)
        takers.append(window.show)
    require_distinct(arguments.source or "", arguments.record, arguments.rerun)
    sinks = _sinks(arguments, rois, demo.source.fps)
    if sinks:
        recorder = Recorder(sinks, lossless=not demo.source.live)
        stack.callback(_finish, recorder)
        takers.append(recorder.put)
    return takers


def _finish(recorder: Recorder) -> None:
    recorder.close()
    if recorder.missing:
        tell(f"framegate: the recording lacks {recorder.missing} frames: writing was slower than the stream")


def _sinks(arguments: argparse.Namespace, rois: tuple[Roi, ...], fps: float | None) -> list[Sink]:
    """The files to be written.

    Raises:
        UsageError: The package for it is missing.
        SinkError: A file cannot be written.
    """
    sinks: list[Sink] = []
    record: Path | None = arguments.record
    if record is not None and record.suffix.lower() not in (".mp4", ".avi", ".mcap"):
        raise SinkError(f"--record {record}: the ending decides the format; use .mp4, .avi or .mcap")
    if record is not None and record.suffix.lower() == ".mcap":
        from framegate.camera_demo.sink_mcap import McapSink

        sinks.append(McapSink(record, rois))
    elif record is not None:
        from framegate.runtime.sink_video import OverlayVideoSink

        sinks.append(OverlayVideoSink(record, rois, fps))
    if arguments.rerun is not None:
        from framegate.camera_demo.sink_rerun import RerunSink

        sinks.append(RerunSink(arguments.rerun, rois))
    return sinks
