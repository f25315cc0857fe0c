"""The options of ``framegate bench``: what they mean, and which cannot be used."""

from __future__ import annotations

import argparse
import math
import shlex
from pathlib import Path

from framegate.runtime.errors import SinkError, UsageError
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.realtime import spin_us

MOST_STREAMS = 8
BACK_TO_BACK, SOURCE = "back-to-back", "source"


def command_of(arguments: argparse.Namespace) -> str:
    """What has to be typed to measure the same again."""
    words = ["framegate", "bench", str(arguments.bundle)]
    for name, value in vars(arguments).items():
        option = f"--{name.replace('_', '-')}"
        if name in ("bundle", "run", "command", "out", "html", "json", "compare") or value is None or value is False:
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [option] if one is True else [option, str(one)]
    return shlex.join(hide_passwords(word) for word in words)


def wants_scenarios(arguments: argparse.Namespace) -> bool:
    """Whether one configuration runs as in a vehicle, and not all of them against the bare engine."""
    return bool(arguments.pace or arguments.streams or arguments.load or arguments.realtime)


def check_options(arguments: argparse.Namespace) -> None:
    """Look at everything before anything is opened: wrong usage costs no time.

    Raises:
        UsageError: A value or a combination cannot be used.
        SinkError: There is no folder for a result.
    """
    if arguments.frames < 1 or arguments.memory_frames < 0:
        raise UsageError("--frames must be at least 1 and --memory-frames at least 0")
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads {arguments.threads}: expected at least 1")
    for streams in arguments.streams or ():
        if not 1 <= streams <= MOST_STREAMS:
            raise UsageError(f"--streams {streams}: expected 1 to {MOST_STREAMS}")
    for option in ("backend", "precision", "deadline_ms"):
        if getattr(arguments, option) is not None and not wants_scenarios(arguments):
            raise UsageError(
                f"--{option.replace('_', '-')} belongs to --pace, --streams, --load or --realtime; "
                "without them every configuration is measured"
            )
    if arguments.deadline_ms is not None and not arguments.deadline_ms > 0:
        raise UsageError(f"--deadline-ms {arguments.deadline_ms:g}: expected milliseconds above 0")
    if arguments.source and arguments.size:
        raise UsageError("--size is that of the synthetic frames; those of --source have their own")
    paces(arguments)
    spin_us(arguments.realtime, None, max(arguments.streams or [1]))
    for path, what in ((arguments.out, "results"), (arguments.html, "page")):
        if path and not path.parent.is_dir():
            raise SinkError(f"{what} {path}: the folder {path.parent} does not exist")


def paces(arguments: argparse.Namespace) -> list[float | str | None]:
    """Frames per second, None for back to back, or ``source``.

    Raises:
        UsageError: A pace is nothing of these.
    """
    found: list[float | str | None] = []
    for text in arguments.pace or [BACK_TO_BACK]:
        if text in (BACK_TO_BACK, SOURCE):
            found.append(None if text == BACK_TO_BACK else text)
            continue
        try:
            fps = float(text)
        except ValueError:
            fps = math.nan
        if not 0.1 <= fps <= 1000:
            raise UsageError(f"--pace {text}: expected 0.1 to 1000 frames per second, {BACK_TO_BACK} or {SOURCE}")
        found.append(fps)
    if SOURCE in found and not arguments.source:
        raise UsageError(f"--pace {SOURCE}: which one? give --source")
    return found


def can_loop(uri: str) -> bool:
    """Clips, folders and test patterns start again at their end; cameras and streams have none."""
    return (Path(uri).exists() and not Path(uri).is_char_device()) or uri.startswith("synthetic://")


def frame_size(text: str | None, spec: PreprocessSpec) -> tuple[int, int]:
    """Width and height of the frames; without a wish the smallest column of slices that the test pattern can fill.

    Raises:
        UsageError: The text is no size, or does not fit the slices of a volume.
    """
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
