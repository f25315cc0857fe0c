"""Tables of made drives, for what is measured on them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from framegate.evaluation.drives.index import IndexTask, find_files, plan
from framegate.evaluation.drives.merge import merge
from framegate.evaluation.drives.work import run_units
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.replay.recording import Recording


def quiet(*_: object) -> None:
    """No progress."""


def table_of(drives: Path, work: Path) -> Path:
    """The table of the made drives; made once."""
    out = work / "drives.parquet"
    if not out.exists():
        units = plan(find_files([drives])).units
        outcome = run_units(IndexTask(), units, work / "parts", None, quiet, "")
        merge(outcome.parts, out, outcome.quarantined)
        shutil.rmtree(work / "parts")
    return out


def with_threshold(factor: float) -> Callable[[Recording], Calibration]:
    """A chooser for what-if: the recording's own calibration, its threshold so many times as high."""

    def choose(recording: Recording) -> Calibration:
        assert recording.calibration is not None
        return replace(recording.calibration, threshold=recording.calibration.threshold * factor)

    return choose
