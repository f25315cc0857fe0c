"""Options of the black box (``--black-box``), for one camera and for several."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from framegate import __version__
from framegate.runtime.errors import UsageError
from framegate.runtime.replay.recording import Recording
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.black_box import NO_PICTURES, PICTURES, WHOLE, BlackBoxSink, drive_name

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
DEFAULT_KEEP = "2GB"


def add_black_box_options(parser: argparse.ArgumentParser) -> None:
    """The options, in a group of their own."""
    group = parser.add_argument_group("black box", "what it keeps, and what becomes of it, is in docs/drives.md")
    group.add_argument(
        "--black-box",
        type=Path,
        metavar="DIR",
        help="keep the last part of the drive in this folder: every verdict, a small picture a second, and full "
        "pictures where something happened (default: no)",
    )
    group.add_argument(
        "--keep", metavar="SIZE", help=f"largest size of the black box, e.g. 500MB (default: {DEFAULT_KEEP})"
    )
    group.add_argument(
        "--pictures",
        choices=PICTURES,
        help=f"what the black box may store of the frames; regions: black outside what is judged (default: {WHOLE})",
    )
    group.add_argument("--drive", metavar="NAME", help="what the black box calls this drive (default: its time in UTC)")
    group.add_argument(
        "--camera", metavar="NAME", help="what black box and --metrics call the camera (default: camera, or the source)"
    )


def parse_bytes(text: str, option: str) -> int:
    """Read a size such as ``2GB`` or ``512MiB``.

    Raises:
        UsageError: It is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise UsageError(f"{option} {text}: expected a size such as 500MB or 2GB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def check_black_box(arguments: argparse.Namespace) -> None:
    """Refuse what can be known to be wrong before anything is opened.

    Raises:
        UsageError: An option of the black box without one, or its folder is a file.
    """
    if arguments.black_box is None:
        for option in ("keep", "pictures", "drive"):
            if getattr(arguments, option) is not None:
                raise UsageError(f"--{option} belongs to --black-box DIR; give both")
        return
    parse_bytes(arguments.keep or DEFAULT_KEEP, "--keep")
    if arguments.black_box.exists() and not arguments.black_box.is_dir():
        raise UsageError(f"--black-box {arguments.black_box}: it is a file; give a folder")


def black_box_wants_pictures(arguments: argparse.Namespace) -> bool:
    """Whether the frames' pixels have to be kept for it."""
    return getattr(arguments, "black_box", None) is not None and arguments.pictures != NO_PICTURES


def open_black_box(
    arguments: argparse.Namespace, rois: tuple[Roi, ...], recording: Recording, camera: str, cameras: int = 1
) -> BlackBoxSink:
    """Create the black box of one camera.

    Args:
        arguments: What `add_black_box_options` collected.
        rois: The camera's regions.
        recording: What its recording says about itself.
        camera: Its name; empty takes ``camera``.
        cameras: How many share the size.

    Raises:
        UsageError: A value is out of range, or mcap is not installed.
        SinkError: A file cannot be created.
    """
    if arguments.drive is None:
        arguments.drive = drive_name()  # all cameras of a run share it
    return BlackBoxSink(
        arguments.black_box,
        parse_bytes(arguments.keep or DEFAULT_KEEP, "--keep") // cameras,
        rois,
        recording,
        drive=arguments.drive,
        camera=camera or "camera",
        version=__version__,
        pictures=arguments.pictures or WHOLE,
    )
