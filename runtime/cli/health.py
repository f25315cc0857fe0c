"""``framegate health``: limits of the camera-health check from frames of a healthy camera."""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.runtime.cli.options import require_distinct
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.console import json_to_stdout, to_stdout
from framegate.runtime.errors import CalibrationError, SinkError, UsageError
from framegate.runtime.health.check import CameraHealth, unusable
from framegate.runtime.health.content import Content
from framegate.runtime.health.learning import calibrated
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.sources.open import open_source

SHOWN = ("saturated_share", "contrast", "detail", "sharpness", "noise", "blockiness", "colour")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``health`` to the command line."""
    parser = commands.add_parser("health", help=SUMMARIES["health"])
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="clips, folders or a camera: only good frames")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="write the limits to this JSON file")
    parser.add_argument(
        "--frames",
        type=int,
        default=10_000,
        metavar="N",
        help="frames to take at most, of each source its share (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure all frames and write the limits."""
    if arguments.frames < 1:
        raise UsageError(f"--frames {arguments.frames}: expected at least 1")
    if not arguments.out.parent.is_dir():
        raise SinkError(f"health thresholds {arguments.out}: the folder {arguments.out.parent} does not exist")
    require_distinct(arguments.sources, arguments.out)
    frames: list[Content] = []
    size: tuple[int, int] | None = None
    base = HealthThresholds()
    for number, uri in enumerate(arguments.sources, 1):
        # A long first clip leaves every other one its share: the night counts as the day does.
        most = arguments.frames * number // len(arguments.sources)
        health = CameraHealth(fixed_size=False)  # nothing may be compared or learnt here
        with open_source(uri, realtime=False) as source:
            while len(frames) < most and (frame := source.read()) is not None:
                found = (frame.image.shape[1], frame.image.shape[0]) if not unusable(frame.image) else None
                if found is None or (size is not None and found != size):
                    raise CalibrationError(
                        f"{source.name}, frame {frame.frame_id}: expected frames of one camera, 8-bit colour, "
                        f"found {unusable(frame.image) or f'{found} after {size}'}"
                    )
                size = found
                health.check(frame.image)
                assert health.content is not None
                frames.append(health.content)
    limits = calibrated(base, frames)
    limits.save(
        arguments.out,
        {"sources": [hide_passwords(uri) for uri in arguments.sources], "frames": len(frames), "size": size},
    )
    if arguments.json:
        shown = {name: getattr(limits, name) for name in SHOWN}
        json_to_stdout({"out": str(arguments.out), "frames": len(frames), "size": size, "limits": shown})
        return 0
    for name in SHOWN:
        value = getattr(limits, name)
        to_stdout(f"{name:16s} {value:.4g}" if isinstance(value, float) else f"{name:16s} {value}")
    to_stdout(f"{len(frames)} frames; use it with framegate run --health {arguments.out}")
    return 0
