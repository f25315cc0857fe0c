"""The command-line options that say how a source is opened, shared by every command that opens one."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from framegate.runtime.backends.choice import BACKENDS
from framegate.runtime.errors import UsageError
from framegate.runtime.policy.debounce import parse_debounce
from framegate.runtime.policy.stream import Policy
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.options import FLIPS, FORMATS, SourceOptions, parse_size

SOURCE_HELP = (
    "0, /dev/video0, csi://0, clip.mp4, a folder of images, an image, 'images/*.png', rtsp://..., http://..., "
    "'gst://PIPELINE', synthetic:// (docs/sources.md)"
)
BUNDLE_HELP = "folder NAME.bundle, or a name that `framegate bundles` lists"


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Options that ask something of a source; each is an attribute of `SourceOptions`."""
    group = parser.add_argument_group("source", "which kinds of source can do what is in docs/sources.md")
    group.add_argument("--size", metavar="WxH", help="picture size that a camera should deliver, e.g. 1280x720")
    group.add_argument("--fps", type=float, help="ask a camera for this rate, play files at it, limit a stream to it")
    group.add_argument("--format", choices=FORMATS, help="what a camera should send")
    group.add_argument("--exposure-ms", type=float, help="fixed exposure time of a camera")
    group.add_argument("--flip", choices=tuple(FLIPS), default="none", help="mirror, or turn by 180 degrees")
    group.add_argument("--skip", type=int, default=0, metavar="N", help="leave out N frames after every opening")
    group.add_argument("--no-reconnect", action="store_true", help="end when a camera or stream breaks off")
    group.add_argument("--timeout", type=float, metavar="SECONDS", help="silence that breaks a stream (default: 4)")


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
    parser.add_argument("--precision", help="fp32 or int8 (default: the backend's fastest)")
    parser.add_argument("--threads", type=int, help="CPU threads of the engine (default: its own choice)")


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
        "--warm-up", type=int, default=0, metavar="N", help="reject the first N usable frames of every region"
    )


def policy_of(arguments: argparse.Namespace) -> Policy:
    """The policy that the options describe.

    Raises:
        UsageError: They cannot be used.
    """
    return Policy(parse_debounce(arguments.debounce), arguments.warm_up)


def require_distinct(source: str, *outputs: Path | None) -> None:
    """Refuse to write over the source, or two outputs into one file.

    Raises:
        UsageError: Two of the paths are the same file.
    """
    # os.path, which takes a pipeline longer than any file name for what it is: no file.
    taken = {Path(source).resolve()} if os.path.exists(source) else set()
    for output in outputs:
        if output is None:
            continue
        if output.resolve() in taken:
            raise UsageError(f"output {output} is also the source or another output; nothing was written")
        taken.add(output.resolve())
