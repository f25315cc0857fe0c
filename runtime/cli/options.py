"""Command-line options that several commands share: source, engine, policy, recordings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from framegate.runtime.backends.choice import BACKENDS
from framegate.runtime.bundle.certificates import Demand
from framegate.runtime.cli.black_box import black_box_wants_pictures, open_black_box
from framegate.runtime.errors import UsageError
from framegate.runtime.policy.debounce import parse_debounce
from framegate.runtime.policy.stream import Policy
from framegate.runtime.replay.recording import Recording
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sinks.jsonl import BEATS
from framegate.runtime.sinks.open import open_sinks, require_formats
from framegate.runtime.sinks.record_file import STDOUT
from framegate.runtime.sinks.recorder import Recorder
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.options import FLIPS, FORMATS, SourceOptions, parse_size

SOURCE_HELP = (
    "0, /dev/video0, csi://0, clip.mp4, a folder of images, an image, 'images/*.png', rtsp://..., http://..., "
    "'gst://PIPELINE', synthetic:// (docs/sources.md)"
)
SWITCH_INTERVAL_S = 0.0005
"""How long a Python thread may keep the others waiting; the default of 5 ms is a third of a frame at 60 Hz."""
LINES_OUT = "jsonl://-"
"""The hand-over that writes to the standard output."""
BUNDLE_HELP = "folder NAME.bundle, or a name that `framegate bundles` lists"


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Options that ask something of a source; each is an attribute of `SourceOptions`."""
    group = parser.add_argument_group("source", "which kinds of source can do what is in docs/sources.md")
    group.add_argument(
        "--size",
        metavar="WxH",
        help="picture size in pixels that a camera should deliver, e.g. 1280x720 (default: the camera's own)",
    )
    group.add_argument(
        "--fps",
        type=float,
        metavar="FPS",
        help="frames per second: ask a camera for this rate, play files at it, limit a stream to it (default: the "
        "source's own rate)",
    )
    group.add_argument("--format", choices=FORMATS, help="what a camera should send (default: the camera's own choice)")
    group.add_argument(
        "--exposure-ms",
        type=float,
        metavar="MS",
        help="fixed exposure time of a camera in milliseconds (default: automatic)",
    )
    group.add_argument(
        "--flip", choices=tuple(FLIPS), default="none", help="mirror, or turn by 180 degrees (default: %(default)s)"
    )
    group.add_argument(
        "--skip", type=int, default=0, metavar="N", help="leave out N frames after every opening (default: %(default)s)"
    )
    group.add_argument("--no-reconnect", action="store_true", help="end when a camera or stream breaks off")
    group.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="seconds without a frame after which a stream counts as broken (default: 4)",
    )


def source_options(arguments: argparse.Namespace) -> SourceOptions:
    """What `add_source_options` collected.

    Raises:
        UsageError: A value is out of range.
    """
    try:
        size = None if arguments.size is None else parse_size(arguments.size)
    except ValueError as error:
        raise UsageError(f"--size {arguments.size}: expected {error}") from None
    default = SourceOptions()
    timeout = arguments.timeout
    return SourceOptions(
        size=size,
        fps=arguments.fps,
        format=arguments.format,
        exposure_ms=arguments.exposure_ms,
        flip=arguments.flip,
        skip=arguments.skip,
        reconnect=not arguments.no_reconnect,
        open_timeout_s=default.open_timeout_s if timeout is None else timeout,
        read_timeout_s=default.read_timeout_s if timeout is None else timeout,
    )


def source_record(source: Source) -> dict[str, object]:
    """How a source is doing, as plain JSON values."""
    status = source.status
    return {
        "state": status.state,
        "reconnects": status.reconnects,
        "skipped": status.skipped,
        "timestamps": status.timestamps,
        "error": status.error or None,
    }


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose the engine, shared by several commands."""
    parser.add_argument("--backend", default="auto", help=f"auto, {', '.join(BACKENDS)} (default: auto)")
    parser.add_argument("--precision", help="fp32, fp16 or int8 (default: the backend's fastest)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the engine (default: its own choice)")
    add_trust_option(parser)


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """``--trust``: whose signature a bundle must have."""
    parser.add_argument(
        "--trust",
        type=Path,
        metavar="KEY.pem",
        help="refuse a bundle that the holder of this Ed25519 key has not signed (default: ask for no signature)",
    )


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Options of the stream's policy, shared by several commands."""
    parser.add_argument(
        "--debounce",
        action="append",
        default=[],
        metavar="REASON=M/N/K",
        help="reject for REASON when M of the last N frames have it, come back with the K-th clean frame in a row; "
        "reasons that make a frame unusable take only a K (1/1/K); repeat for several (default: 1/1/1 for all)",
    )
    parser.add_argument(
        "--warm-up",
        type=int,
        default=0,
        metavar="N",
        help="reject the first N usable frames of every region (default: %(default)s)",
    )
    parser.add_argument(
        "--scene-frames",
        type=int,
        default=0,
        metavar="N",
        help="the stream's scenes last about N frames: the drift alarm then takes three scenes as one piece of "
        "evidence, so that it is as seldom false as it says, and later (default: %(default)s, blocks of 100 frames)",
    )


def policy_of(arguments: argparse.Namespace) -> Policy:
    """The policy that the options describe.

    Raises:
        UsageError: They cannot be used.
    """
    return Policy(parse_debounce(arguments.debounce), arguments.warm_up, scene_frames=arguments.scene_frames)


def add_certificate_options(parser: argparse.ArgumentParser) -> None:
    """The options that require a certificate."""
    parser.add_argument(
        "--require-certificate",
        metavar="BUDGET",
        help="reject what an attack within this budget could have made: patch:5 (pixels of the region) or linf:2/255, "
        "docs/certificates.md (default: no certificate)",
    )
    parser.add_argument(
        "--certify-every",
        type=int,
        default=1,
        metavar="N",
        help="require it of every Nth frame of a region only; for the others no bound holds (default: %(default)s)",
    )
    parser.add_argument(
        "--certify-once",
        action="store_true",
        help="with --objects: require it once a track, before its first ACCEPT; then the track is accepted with that "
        "label only. It needs a certificate that was proved for tracks (framegate certify --unit track)",
    )


def demand_of(arguments: argparse.Namespace) -> Demand | None:
    """The certificate that `add_certificate_options` asked for.

    Raises:
        UsageError: It is not understood.
    """
    if arguments.require_certificate is None:
        if arguments.certify_every != 1 or arguments.certify_once:
            raise UsageError("--certify-every and --certify-once need --require-certificate")
        return None
    return Demand.parse(arguments.require_certificate, arguments.certify_every, arguments.certify_once)


def add_recording_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Options that say which files are written beside the verdicts, shared by several commands."""
    group = parser.add_argument_group("recordings", "what survives a crash or a full disk is in docs/demo.md")
    group.add_argument(
        "--record",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="annotated video (.mp4, .mkv, .avi), or pictures and verdicts (.mcap); repeat for several (default: none)",
    )
    group.add_argument("--no-pictures", action="store_true", help="leave the frames out of .mcap recordings")
    group.add_argument(
        "--rerun", type=Path, metavar="FILE.rrd", help="a recording for the Rerun viewer (default: none)"
    )
    group.add_argument(
        "--jsonl",
        type=Path,
        metavar="FILE",
        help="write every verdict as a JSON line, to a file or pipe, or with - to standard output, with a heartbeat "
        "(default: no)",
    )
    return group


def check_recordings(arguments: argparse.Namespace) -> None:
    """Refuse what `add_recording_options` collected if it can be known to be wrong before anything is opened.

    Raises:
        UsageError: A file's ending says no format, or two names are the same file, or one is the source.
    """
    if STDOUT in (*arguments.record, arguments.rerun):
        raise UsageError("a recording needs a file; the standard output (-) is for --jsonl")
    if arguments.jsonl == STDOUT and getattr(arguments, "json", False):
        raise UsageError("--json and --jsonl - both write to the standard output; leave one out")
    require_formats(arguments.record)
    require_distinct(inputs_of(arguments), *arguments.record, arguments.rerun, arguments.jsonl)


def open_recorder(
    arguments: argparse.Namespace,
    rois: tuple[Roi, ...],
    source: Source,
    session: Session,
    deadline_ms: float | None = None,
    camera: str = "",
) -> Recorder:
    """Create the files that were asked for, and what writes them.

    Args:
        arguments: What `add_recording_options` collected.
        rois: The pipeline's regions.
        source: Its source.
        session: Judges its frames.
        deadline_ms: Its deadline, if it has one.
        camera: Its name, for a black box.

    Raises:
        UsageError: Something that is needed for it is missing here.
        SinkError: A file cannot be written.
    """
    beat_s = None if deadline_ms is None or not source.live else deadline_ms / 1e3 / BEATS
    recording = Recording.of(
        session, rois, sequence=source.fixed_size, deadline_ms=deadline_ms, fps=source.fps, source=source.name
    )
    pictures = not arguments.no_pictures
    sinks = open_sinks(
        arguments.record, arguments.rerun, arguments.jsonl, rois, source.fps, beat_s, recording, pictures
    )
    if getattr(arguments, "black_box", None) is not None:
        sinks.append(open_black_box(arguments, rois, recording, camera))
    return Recorder(sinks, lossless=not source.live)


def wants_pictures(arguments: argparse.Namespace) -> bool:
    """Whether a recording that was asked for holds the frames."""
    return (
        bool(arguments.rerun)
        or black_box_wants_pictures(arguments)
        or any(path.suffix.lower() != ".mcap" or not arguments.no_pictures for path in arguments.record)
    )


_INPUTS = ("source", "objects", "label_map", "health", "trust", "handover_key")
"""Options of the commands that record, which may name a file to be read."""


def inputs_of(arguments: argparse.Namespace) -> list[str]:
    """What a command line names to be read, as far as it may be files; of ``NAME=SOURCE`` the source, too."""
    found = [getattr(arguments, name, None) for name in _INPUTS]
    texts = [str(each) for some in found for each in (some if isinstance(some, list | tuple) else [some]) if each]
    return [*texts, *(text.partition("=")[2] for text in texts if "=" in text)]


def require_distinct(inputs: Iterable[str], *outputs: Path | None) -> None:
    """Refuse to write over what is read, or two outputs into one file.

    Args:
        inputs: Names of which some are files: a source may be a camera's address.
        outputs: Files, or the standard output; None: not asked for.

    Raises:
        UsageError: Two of the paths are the same file.
    """
    # os.path, which takes a pipeline longer than any file name for what it is: no file.
    taken = [Path(each) for each in inputs if os.path.exists(each)]
    for output in outputs:
        if output is None or output == STDOUT:
            continue
        if any(_same_file(output, each) for each in taken):
            raise UsageError(f"output {output} is also an input or another output; nothing was written")
        taken.append(output)


def _same_file(first: Path, second: Path) -> bool:
    """Whether two paths are one file, by whatever names and links."""
    if first.resolve() == second.resolve():
        return True
    try:
        return os.path.samefile(first, second)
    except OSError:  # one is not there, or its name is longer than any file's
        return False
