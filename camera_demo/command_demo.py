"""``framegate demo``: a camera or clip on a web page, with its verdicts, and faults on buttons."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from framegate.camera_demo.addresses import is_loopback
from framegate.camera_demo.looped_clip import LoopedClip
from framegate.camera_demo.own_file import Judge
from framegate.camera_demo.shipped import AGREEING, AGREEMENT, BUNDLE, CLIP, COUNTER_EXAMPLES, REGIONS, shipped_giver
from framegate.camera_demo.summaries import SUMMARIES
from framegate.camera_demo.window import Window
from framegate.runtime.cli.objects import add_object_options, objects_of
from framegate.runtime.cli.options import (
    BUNDLE_HELP,
    SOURCE_HELP,
    SWITCH_INTERVAL_S,
    add_engine_options,
    add_policy_options,
    add_recording_options,
    add_source_options,
    check_recordings,
    open_recorder,
    policy_of,
    source_options,
)
from framegate.runtime.cli.signals import EndedBySignal, exit_code, let_it_end, received, stopped_by_signals
from framegate.runtime.console import to_stderr, to_stdout
from framegate.runtime.errors import FramegateError, UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.regions.judge import Objects
from framegate.runtime.roi import Roi, parse_rois
from framegate.runtime.session import Session
from framegate.runtime.sinks.record_file import STDOUT
from framegate.runtime.sinks.recorder import Recorder
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions

PORT = 8321
OWN_BOXES = "clip"
"""As ``--objects``: the boxes that come with the shipped clip."""
DEADLINE_MS = 150.0
_NEEDED = ("starlette", "uvicorn", "websockets")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo`` to the command line."""
    parser = commands.add_parser(
        "demo",
        help=SUMMARIES["demo"],
        description="Serves a page with the live picture, its verdicts and buttons for faults. Without SOURCE it plays "
        "the clip that comes with framegate in a loop, and follows the cars that a detector found on it.",
    )
    parser.add_argument("source", nargs="?", help=SOURCE_HELP)
    parser.add_argument("--bundle", default=BUNDLE, help=f"{BUNDLE_HELP} (default: %(default)s)")
    add_engine_options(parser)
    parser.add_argument(
        "--roi",
        action="append",
        default=[],
        metavar="[NAME=]x,y,w,h",
        help="classify this region, in pixels or (with a decimal point) fractions; repeat for several "
        "(default: the whole frame; beside the cars of the shipped clip its sky and its road)",
    )
    parser.add_argument(
        "--deadline-ms",
        type=float,
        default=DEADLINE_MS,
        metavar="MS",
        help="age in milliseconds above which a frame's verdict is LATE (default: %(default)g)",
    )
    parser.add_argument("--once", action="store_true", help="end where a clip ends instead of starting it again")
    add_source_options(parser)
    add_policy_options(parser)
    add_object_options(parser)
    page = parser.add_argument_group("page")
    page.add_argument(
        "--port", type=int, default=PORT, metavar="PORT", help="TCP port; 0 takes any free one (default: %(default)s)"
    )
    page.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 opens the page to other machines, with a token (default: %(default)s)",
    )
    page.add_argument(
        "--own-files",
        choices=("auto", "on", "off"),
        default="auto",
        help="whether people may drop a picture or clip of their own onto the page and have it judged; auto: only "
        "where the page is for this machine alone (default: %(default)s)",
    )
    page.add_argument("--show", action="store_true", help="a window on this machine, too")
    add_recording_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until the source ends, or a signal (Ctrl-C, SIGTERM, SIGHUP) ends the command."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"demo: {', '.join(missing)} not installed; pip install 'framegate[demo]'")
    from framegate.camera_demo.live_demo import LiveDemo
    from framegate.camera_demo.web_server import listen

    _check(arguments)
    policy = policy_of(arguments)
    parse_rois(arguments.roi)  # a mistake in one is found before anything is opened
    opened = _opener(arguments)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(arguments.host, arguments.port))
        session = Session.open(
            arguments.bundle,
            arguments.backend,
            arguments.precision,
            arguments.threads,
            policy=policy,
            trust=arguments.trust,
        )
        if arguments.backend != "auto":
            to_stderr(f"framegate: {session.describe()}")
        shipped, rois = _shipped(arguments, session)
        if shipped or rois is REGIONS:
            session.policy = replace(session.policy, counter_examples=frozenset(roi.name for roi in COUNTER_EXAMPLES))
        objects = _objects(arguments, session, shipped)
        if objects is not None:
            stack.callback(objects.giver.close)
            rois = rois if shipped or arguments.roi else ()
        attacked = REGIONS if shipped else rois or (Roi.whole(),)
        demo = stack.enter_context(
            LiveDemo(
                opened,
                session,
                rois,
                arguments.deadline_ms,
                arguments.host,
                listener,
                objects,
                attacked,
                _own_files(arguments, session),
            )
        )
        window = Window(rois, demo.stale_ms) if arguments.show else None
        recorder = stack.enter_context(
            open_recorder(arguments, () if objects else rois, demo.source, session, arguments.deadline_ms)
        )
        address = demo.start()
        to_stdout(f"framegate demo: open {address} in a browser   (Ctrl-C ends it)")
        if demo.is_private and "SSH_CONNECTION" in os.environ:
            port = listener.getsockname()[1]
            to_stderr(
                "framegate: that is for a browser on this machine; from another one first run ssh -L "
                f"{port}:127.0.0.1:{port} to here, or start the demo with --host 0.0.0.0"
            )
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        consumers = [demo.show, *([window.show] if window else [])]
        consume = functools.partial(_consume, demo.pipeline, recorder, consumers)
        code, ending = consume() if window is None else _consume_beside(window, consume, demo.source.close)
        let_it_end()
        to_stderr(f"framegate: {ending}")
        demo.finish(ending)
    to_stderr(f"framegate: {demo.pipeline.stats}")
    return 1 if recorder.failed else code


def _shipped(arguments: argparse.Namespace, session: Session) -> tuple[bool, tuple[Roi, ...]]:
    """Whether the cars of the repository's clip are followed, and which regions stay where they are.

    An engine on a GPU is built for a batch of one: there the clip has four fixed regions, unless
    its cars are asked for.
    """
    own = arguments.source is None and not arguments.roi and session.bundle.dense is None
    if own and arguments.objects is None and session.scorer.backend.takes_frames:
        return False, REGIONS
    shipped = own and arguments.objects in (None, OWN_BOXES)
    return shipped, COUNTER_EXAMPLES if shipped else session.regions_of(parse_rois(arguments.roi))


def _own_files(arguments: argparse.Namespace, session: Session) -> Judge | None:
    """What judges the files that people drop onto the page; None where they may not."""
    wanted = is_loopback(arguments.host) if arguments.own_files == "auto" else arguments.own_files == "on"
    if not wanted:
        return None
    detects = arguments.objects is not None and arguments.objects != OWN_BOXES and not Path(arguments.objects).is_file()
    detects = detects and not Path(arguments.objects).is_fifo()
    return Judge(
        str(session.bundle.path),
        session.scorer.backend.name,
        session.precision,
        None if arguments.trust is None else str(arguments.trust),
        arguments.objects if detects else None,
        str(arguments.label_map) if detects and arguments.label_map is not None else None,
        arguments.track_rule if detects else None,
    )


def _objects(arguments: argparse.Namespace, session: Session, shipped: bool) -> Objects | None:
    """What moves; of the repository's clip its recorded boxes, with its own label map where the labels fit."""
    if not shipped:
        return objects_of(arguments, session.bundle.labels)
    if arguments.label_map is None and set(session.bundle.labels) >= AGREEING:
        arguments.label_map = AGREEMENT
    return objects_of(arguments, session.bundle.labels, shipped_giver())


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what can be known to be wrong before anything is opened.

    Raises:
        UsageError: A value is outside its range.
    """
    if not arguments.deadline_ms > 0:
        raise UsageError(f"--deadline-ms {arguments.deadline_ms:g}: expected a positive number")
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads {arguments.threads}: expected at least 1")
    if arguments.jsonl == STDOUT:
        raise UsageError("--jsonl -: the demo's own lines go to the standard output; give a file, or use framegate run")
    check_recordings(arguments)


def _opener(arguments: argparse.Namespace) -> Callable[[], Source]:
    """What opens the source, at the start and again after it was killed on the page."""
    options = source_options(arguments)
    if arguments.source is not None:
        return lambda: open_source(arguments.source, options, loop=not arguments.once)
    if arguments.once or options != SourceOptions():
        return lambda: open_source(str(CLIP), options, loop=not arguments.once)
    return lambda: LoopedClip(CLIP)


def _consume(
    pipeline: Pipeline, recorder: Recorder, consumers: Sequence[Callable[[FrameResult], None]]
) -> tuple[int, str]:
    """Hand on results until they end. Returns the exit code and why it was the last one."""
    try:
        with pipeline, stopped_by_signals(pipeline.stop):
            for result in pipeline.results():
                recorder.put(result)
                if not result.has_frame:  # the page says by itself that nothing comes
                    continue
                for consume in consumers:
                    consume(result)
    except FramegateError as error:
        return error.exit_code, str(error)
    number = received()
    if number is not None:
        return exit_code(number), "the demo was ended"
    return (0, "the source has ended") if pipeline.stats.frames else (1, "the source delivered no frame")


def _consume_beside(
    window: Window, consume: Callable[[], tuple[int, str]], stop: Callable[[], None]
) -> tuple[int, str]:
    """The same in a thread of its own, since a window belongs to the main one.

    Args:
        window: Shown until it is closed or the results end.
        consume: Returns what this returns if the results end by themselves.
        stop: Ends the source.
    """
    ended: list[tuple[int, str]] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            ended.append(consume())
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            failed.append(error)
        finally:
            window.finish()

    thread = threading.Thread(target=work, name="framegate-demo-consumer")
    thread.start()
    closed = (0, "the window was closed")
    try:
        if not window.run():
            thread.join()
            if failed:
                raise failed[0]
            return ended[0]
    except EndedBySignal as error:
        closed = (exit_code(error.number), "the demo was ended")
    stop()
    thread.join()
    return closed
