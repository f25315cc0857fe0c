"""``framegate replay``: decide a recorded drive again, and show what would have changed."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace as with_changes
from pathlib import Path

from rich.table import Table

from framegate.runtime.bundle.calibration import READ_FORMATS, Calibration
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.cli.tables import counts
from framegate.runtime.console import OUT, json_to_stdout, to_stderr, to_stdout
from framegate.runtime.errors import CalibrationError, UsageError
from framegate.runtime.replay.recording import Recording
from framegate.runtime.replay.replay import Replay, read_recording, replay, require_applicable

_SHOWN = 20


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``replay`` to the command line."""
    parser = commands.add_parser(
        "replay",
        help=SUMMARIES["replay"],
        description="Decides a recording of framegate run --record FILE.mcap again from its scores. Without another "
        "threshold or calibration every verdict must be the recorded one; otherwise the exit code is 1.",
    )
    parser.add_argument("recording", type=Path, metavar="FILE.mcap", help="what framegate run --record wrote")
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="accept scores up to this one (default: the recorded threshold)",
    )
    other.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="calibration.json of a bundle with the same network and temperature (default: the recorded calibration)",
    )
    parser.add_argument("--json", action="store_true", help="print every change as JSON instead of tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Decide it again.

    Returns:
        1 if nothing was changed and verdicts come out different all the same, or if the recording has no verdict.
    """
    path: Path = arguments.recording
    recording = read_recording(path)
    changed = arguments.threshold is not None or arguments.calibration is not None
    calibration = _calibration(recording, arguments.threshold, arguments.calibration)
    found = replay(path, recording, calibration)
    if arguments.json:
        json_to_stdout(found.to_json())
    else:
        _show(found)
    if found.broken_off:
        to_stderr(
            f"framegate: recording {path} broke off ({found.broken_off}); the {found.verdicts} verdicts before were "
            "decided again"
        )
    if found.unlike:
        to_stderr(
            f"framegate: {found.unlike} verdicts come out otherwise with the recording's own calibration, too: it "
            "lacks frames, or a drift alarm was reset"
        )
    if not found.verdicts:
        to_stderr(f"framegate: recording {path} holds no verdict on a frame")
        return 1
    return 1 if found.unlike and not changed else 0


def _calibration(recording: Recording, threshold: float | None, path: Path | None) -> Calibration | None:
    """By which to decide.

    Raises:
        UsageError: It cannot be applied to this recording.
        CalibrationError: The file cannot be used.
    """
    if threshold is not None:
        if recording.calibration is None:
            raise UsageError("--threshold: the recording was made without a calibration; give --calibration FILE")
        if not math.isfinite(threshold):
            raise UsageError(f"--threshold {threshold}: expected a finite number")
        return with_changes(recording.calibration, threshold=threshold, classes=())
    if path is None:
        return recording.calibration
    found = read_calibration(path, recording.key)
    require_applicable(recording, found, f"--calibration {path}")
    return found


def read_calibration(path: Path, key: str) -> Calibration:
    """The record of a bundle's ``calibration.json`` for one backend and precision.

    Raises:
        CalibrationError: There is none, or it cannot be used.
    """
    try:
        content = json.loads(path.read_bytes())
        records = content["records"]
        if content["format"] not in READ_FORMATS or not isinstance(records, dict):
            expected = " or ".join(READ_FORMATS)
            raise CalibrationError(f"--calibration {path}: its format is {content['format']!r}, expected {expected}")
    except OSError as error:
        raise CalibrationError(f"--calibration {path}: cannot be read ({error.strerror})") from error
    except (LookupError, TypeError, ValueError, RecursionError):
        raise CalibrationError(f"--calibration {path}: it is no calibration.json of a bundle") from None
    if key not in records:
        raise CalibrationError(
            f"--calibration {path}: it has no record for {key}, with which the drive was recorded; it has "
            f"{', '.join(sorted(records)) or 'none'}"
        )
    try:
        return Calibration.from_json(records[key])
    except CalibrationError as error:
        raise CalibrationError(f"--calibration {path}: {error}") from error


def _show(found: Replay) -> None:
    before, after = found.recording.calibration, found.calibration
    table = Table(title="The drive, decided again")
    for column in ("region", "verdicts", "accepted then", "accepted now", "ACCEPT to REJECT", "REJECT to ACCEPT"):
        table.add_column(column, justify="left" if column == "region" else "right")
    table.add_column("rejected now because", justify="left")
    for name, region in found.regions.items():
        lost = sum(bool(change.reasons) for change in region.changes)
        numbers = (region.verdicts, region.accepted, region.accepted_now, lost, len(region.changes) - lost)
        table.add_row(name, *map(str, numbers), counts(region.reasons))
    OUT.print(table)
    thresholds = " -> ".join(
        "none" if each is None else f"{each.threshold:.6g} ({each.score})" for each in (before, after)
    )
    to_stdout(f"{found.recording.bundle}, {found.recording.key}; threshold {thresholds}")
    silences = sum(region.silences for region in found.regions.values())
    if silences:
        to_stdout(f"silences: {silences}; they stay what they were")
    changes = [change for region in found.regions.values() for change in region.changes]
    for change in changes[:_SHOWN]:
        verdict = change.verdict
        was, now = (" ".join(reasons) or f"ACCEPT {verdict.candidate}" for reasons in (verdict.reasons, change.reasons))
        to_stdout(f"frame {verdict.frame_id} {verdict.region}: score {change.score:.6g}; {was} -> {now}")
    if len(changes) > _SHOWN:
        to_stdout(f"... and {len(changes) - _SHOWN} more (--json lists all)")
