"""``framegate run``: a source through a bundle, verdicts to files, a table at the end."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.bundle.object_promises import BOXES, TRACKS
from framegate.runtime.circumstances import circumstances
from framegate.runtime.cli.black_box import add_black_box_options, check_black_box
from framegate.runtime.cli.handover import add_handover_options, check_handover, open_sender
from framegate.runtime.cli.metrics import MetricsServer, add_metrics_option
from framegate.runtime.cli.objects import add_object_options, objects_of
from framegate.runtime.cli.options import (
    BUNDLE_HELP,
    LINES_OUT,
    SOURCE_HELP,
    SWITCH_INTERVAL_S,
    add_certificate_options,
    add_engine_options,
    add_policy_options,
    add_recording_options,
    add_source_options,
    check_recordings,
    demand_of,
    open_recorder,
    policy_of,
    source_options,
    source_record,
    wants_pictures,
)
from framegate.runtime.cli.signals import exit_code, let_it_end, received, stopped_by_signals, why_ended
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.cli.tables import stats_tables
from framegate.runtime.console import ERR, OUT, StatusLine, json_to_stdout, note, to_stderr, to_stdout
from framegate.runtime.errors import FramegateError, UsageError
from framegate.runtime.handover.sender import Sender
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.pipeline import RESULTS_HELD, Pipeline
from framegate.runtime.policy.delays import policy_lines, policy_record
from framegate.runtime.policy.stream import Policy
from framegate.runtime.realtime import WAITING, Tuning, realtime, spin_us
from framegate.runtime.regions.judge import Objects
from framegate.runtime.roi import Roi, parse_rois
from framegate.runtime.session import Session
from framegate.runtime.sinks.record_file import STDOUT
from framegate.runtime.sinks.recorder import Recorder
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.open import open_source
from framegate.runtime.stats import PipelineStats
from framegate.runtime.verdict import Reason

_UNUSABLE_SHOWN = 5
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=(.+)", re.DOTALL)


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``run`` to the command line."""
    parser = commands.add_parser("run", help=SUMMARIES["run"], add_help=False)
    parser.add_argument("-h", "--help", nargs=0, action=_Help, help="show this help message and exit")
    parser.add_argument(
        "source", nargs="+", help=f"{SOURCE_HELP}; several, each as NAME=SOURCE, are judged side by side"
    )
    parser.add_argument("--bundle", required=True, help=BUNDLE_HELP)
    add_engine_options(parser)
    parser.add_argument(
        "--roi",
        action="append",
        default=[],
        metavar="[NAME=]x,y,w,h",
        help="classify this region, in pixels or (with a decimal point) fractions; repeat for several; of several "
        "cameras CAMERA:NAME=x,y,w,h for one, or without CAMERA: for all (default: the whole frame)",
    )
    parser.add_argument(
        "--deadline-ms",
        type=float,
        metavar="MS",
        help="a frame that is older, in milliseconds, when its verdict is ready is LATE, and so long after capture a "
        "verdict may be used (default: three frames of a camera or clip at its own pace, at least 100; else none)",
    )
    parser.add_argument(
        "--as-fast-as-possible", action="store_true", help="judge every frame of a file instead of playing it live"
    )
    parser.add_argument("--loop", action="store_true", help="start a clip again when it ends")
    add_source_options(parser)
    parser.add_argument(
        "--inject",
        metavar="KIND:FIRST-LAST[:SEVERITY],...",
        help="corrupt frames, e.g. black:10-15,blur:20-25:4; kinds and severities are listed below (default: none)",
    )
    parser.add_argument(
        "--health",
        type=Path,
        metavar="FILE",
        help="limits of the camera check for this camera, from framegate health (default: general limits)",
    )
    recordings = add_recording_options(parser)
    recordings.add_argument(
        "--video",
        action="append",
        type=Path,
        dest="record",
        metavar="FILE",
        help="another name of --record (default: none)",
    )
    add_black_box_options(parser)
    add_metrics_option(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of tables")
    parser.add_argument(
        "--probabilities", action="store_true", help="record the probability of every class with each verdict"
    )
    parser.add_argument(
        "--realtime",
        choices=WAITING,
        help="no garbage collection, a core for the worker, SCHED_FIFO where allowed; the worker sleeps (block) or "
        "looks (spin, which takes a core) until the next frame (default: not tuned)",
    )
    add_policy_options(parser)
    add_handover_options(parser)
    add_object_options(parser)
    add_certificate_options(parser)
    parser.set_defaults(run=run)


class _Help(argparse.Action):
    """``--help`` with the kinds of faults: the code that breaks frames is loaded for this and for ``--inject`` only."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from framegate.runtime.faults.inject import DEFAULT_SEVERITY, fault_kinds

        parser.epilog = f"kinds of --inject: {', '.join(fault_kinds())}; SEVERITY: 1 to 5 (default: {DEFAULT_SEVERITY})"
        parser.print_help()
        parser.exit()


def run(arguments: argparse.Namespace) -> int:
    """Judge frames until the source ends, or a signal (Ctrl-C, SIGTERM, SIGHUP) ends the command.

    Returns:
        1 if images could not be used as input at all, or if a recording is not what it should be.
    """
    check_handover(arguments)
    check_black_box(arguments)
    named = parse_sources(arguments.source)
    arguments.source = named[0][1]
    if LINES_OUT in arguments.handover and (arguments.json or arguments.jsonl == STDOUT):
        raise UsageError(f"--handover {LINES_OUT} takes the standard output; leave out --json and --jsonl -")
    if len(named) > 1 or named[0][0]:
        from framegate.runtime.cli.run_cameras import run_cameras

        return run_cameras(arguments, named)
    check_recordings(arguments)
    rois = parse_rois(arguments.roi)
    inject = _injector(arguments.inject, rois)
    options = source_options(arguments)
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads {arguments.threads}: expected at least 1")
    policy = policy_of(arguments)
    health = HealthThresholds.load(arguments.health) if arguments.health else None
    session = Session.open(
        arguments.bundle,
        arguments.backend,
        arguments.precision,
        arguments.threads,
        policy=policy,
        health=health,
        probabilities=arguments.probabilities,
        trust=arguments.trust,
        certificate=demand_of(arguments),
    )
    if arguments.backend != "auto":
        note(f"framegate: {session.describe()}")
    rois = session.regions_of(rois)
    objects = objects_of(arguments, session.bundle.labels)
    with contextlib.ExitStack() as stack:
        if objects is not None:
            stack.callback(objects.giver.close)
            rois = ()
        paced = not arguments.as_fast_as_possible
        source = open_source(arguments.source, options, realtime=paced, loop=arguments.loop)
        stack.callback(source.close)
        if not source.fixed_size and (policy.debounce or policy.warm_up):
            raise UsageError(
                f"source {arguments.source!r}: images of a folder do not follow each other in time, so they have no "
                "--debounce and no --warm-up; leave both out"
            )
        if arguments.realtime and not source.live:
            raise UsageError(
                f"--realtime is for frames that come by themselves; those of {arguments.source!r} wait until they are "
                "read: leave it out"
            )
        source = inject(source, session.bundle)
        pipeline = Pipeline(
            source,
            session,
            rois=rois,
            deadline_ms=arguments.deadline_ms,
            # What does not come by itself (photographs, a file read as fast as possible) is judged completely.
            lossless=not source.live,
            keep_frames=wants_pictures(arguments),
            spin_us=spin_us(arguments.realtime, source.fps),
            objects=objects,
            results_held=RESULTS_HELD,  # what is recorded shall be complete
        )
        sender = open_sender(arguments, rois, source, session, pipeline, objects.most if objects is not None else 0)
        if sender is not None:
            pipeline.tell(stack.enter_context(sender).send_result)
        if arguments.metrics is not None:
            metrics = MetricsServer(arguments.metrics, lambda: {arguments.camera or source.name: pipeline.stats})
            stack.enter_context(metrics)
        # Files are replaced last, when everything else that was asked for is known to be possible.
        recorder = stack.enter_context(
            open_recorder(arguments, rois, source, session, pipeline.deadline_ms, arguments.camera)
        )
        if arguments.deadline_ms is None and pipeline.deadline_ms is not None:
            note(f"framegate: deadline {pipeline.deadline_ms:g} ms, from the source's rate (--deadline-ms)")
        code, ending, tuning = _consume(pipeline, source, recorder, sender, arguments.realtime is not None)
    _print_summary(arguments, pipeline, source, session, policy, recorder, tuning, objects)
    if ending:
        to_stderr(f"framegate: {ending}")
    return 1 if recorder.failed else code


def parse_sources(texts: list[str]) -> list[tuple[str, str]]:
    """Name and address of each source; without a name it has the empty one.

    A file whose name looks like NAME=SOURCE is that file.

    Raises:
        UsageError: There are several, and one has no name, or two have the same.
    """
    found = []
    for text in texts:
        match = None if os.path.exists(text) else _NAMED.fullmatch(text)
        found.append((match[1], match[2]) if match else ("", text))
    names = [name for name, _ in found]
    if len(found) > 1 and not all(names):
        raise UsageError(
            f"source {texts[names.index('')]!r}: several cameras need names, NAME=SOURCE, e.g. front=0 rear=1"
        )
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"camera name {name!r} is used twice; give each camera its own: NAME=SOURCE")
    return found


def _print_summary(
    arguments: argparse.Namespace,
    pipeline: Pipeline,
    source: Source,
    session: Session,
    policy: Policy,
    recorder: Recorder,
    tuning: Tuning | None,
    objects: Objects | None,
) -> None:
    if arguments.json:
        about: dict[str, object] = {"source": source.name, "source_status": source_record(source)}
        about |= {"model": session.describe(), "machine": circumstances()}
        about["policy"] = policy_record(policy, session.calibration, source.fps, source.fixed_size)
        about["track_rule"] = objects and str(objects.rule)
        about["recordings"] = recorder.to_json()
        about["realtime"] = tuning and {"waiting": arguments.realtime, **vars(tuning)}
        json_to_stdout({**about, **pipeline.stats.to_json()})
    else:
        # Standard output belongs to the verdicts if they go there.
        lines_out = arguments.jsonl == STDOUT or LINES_OUT in arguments.handover
        for table in stats_tables(pipeline.stats):
            (ERR if lines_out else OUT).print(table)
        show = to_stderr if lines_out else to_stdout
        if objects is not None:
            said = (*pipeline.stats.objects.lines(), objects.rule.describe(source.fps), *promises_on(session, objects))
            for line in said:
                show(line)
        show(pipeline.stats.drift_line())
        for line in policy_lines(policy, session.calibration, source.fps, source.fixed_size):
            show(line)
        if objects is not None and policy.drift and session.calibration is not None:
            show("drift of objects: each track has an alarm of its own; one that ends before is never DRIFT")


def promises_on(session: Session, objects: Objects) -> list[str]:
    """What the bundle promises about these objects: about tracks under this rule, about boxes of this very detector."""
    key = record_key(session.scorer.backend.name, session.precision)
    return [
        f"promise about objects: {each.describe()}"
        for each in session.bundle.object_promises.get(key, ())
        if (each.about == TRACKS and each.rule == str(objects.rule))
        or (each.about == BOXES and each.giver == getattr(objects.giver, "identity", None))
    ]


def _injector(text: str | None, rois: tuple[Roi, ...]) -> Callable[[Source, Bundle], Source]:
    """What puts the faults of ``--inject``, if it was given, between a source and its reader.

    Raises:
        UsageError: The text describes no faults.
    """
    if not text:
        return lambda source, _: source
    from framegate.runtime.faults.inject import FaultInjector, parse_faults
    from framegate.runtime.faults.plugins import load_plugins

    faults = parse_faults(text)
    kinds = [fault.kind for fault in faults]
    return lambda source, bundle: FaultInjector(source, faults, load_plugins(kinds, bundle, rois))


def _consume(
    pipeline: Pipeline, source: Source, recorder: Recorder, sender: Sender | None, tuned: bool
) -> tuple[int, str, Tuning | None]:
    """Run to the end. What was judged is written, whatever happens.

    Returns:
        The exit code, one line about why it is not 0, and what real-time tuning achieved.
    """
    previous = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    unusable: list[str] = []
    try:
        with pipeline, realtime(pipeline) if tuned else contextlib.nullcontext() as tuning:
            if tuning is not None:
                _tuning_to_stderr(tuning)
            code, ending = _drain(pipeline, source, recorder, unusable)
            if sender is not None:
                sender.close()  # before anything that takes time: receivers are told at once
            let_it_end()
            recorder.close()
    finally:
        sys.setswitchinterval(previous)
    # An object that is too small to be classified is no mistake of the source's.
    scene = pipeline.stats.objects.scene
    bad = (scene.reasons if scene.evaluated else pipeline.stats.rejected_by_reason)[Reason.BAD_INPUT.value]
    if code == 0 and not pipeline.stats.frames:
        return 1, "the source delivered no frame", tuning
    if code == 0 and bad:
        for line in unusable:
            to_stderr(f"framegate: {line}")
        return 1, f"{bad} verdicts were REJECT because the image cannot be used as input (BAD_INPUT)", tuning
    return code, ending, tuning


def _tuning_to_stderr(tuning: Tuning) -> None:
    note(f"framegate: real time: {'; '.join(tuning.applied)}")
    for problem in tuning.refused:
        to_stderr(f"framegate: real time, NOT allowed: {problem}")


def _drain(pipeline: Pipeline, source: Source, recorder: Recorder, unusable: list[str]) -> tuple[int, str]:
    """Record all results. Returns the exit code and why it ended early, if it did.

    Args:
        pipeline: Running.
        source: Its source, for the length.
        recorder: Gets every result.
        unusable: Gets a line for each of the first frames that were no usable input.
    """
    status = StatusLine()
    try:
        with stopped_by_signals(pipeline.stop):
            for result in pipeline.results():
                recorder.put(result)
                if recorder.failure_of(STDOUT) is not None:  # whoever listened has gone
                    return 1, "nobody reads the verdicts on the standard output any more"
                first = result.first
                if Reason.BAD_INPUT in first.decided_reasons and len(unusable) < _UNUSABLE_SHOWN:
                    unusable.append(f"frame {first.frame_id} {result.name}: {first.detail}")
                status.update(lambda: status_text(pipeline.stats, source.length))
    except FramegateError as error:
        return error.exit_code, str(error)
    finally:
        status.clear()
    number = received()
    return (0, "") if number is None else (exit_code(number), why_ended(number))


def status_text(stats: PipelineStats, length: int | None) -> str:
    """The live line: progress, verdict counts and median latency."""
    total = f"/{length}" if length else ""
    return (
        f"frame {stats.frames}{total}  accepted {stats.accepted}  rejected {stats.evaluated - stats.accepted}  "
        f"dropped {stats.dropped}  p50 {stats.latency.percentile_ms(50):.2f} ms"
    )
