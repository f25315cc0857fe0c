"""``framegate drives what-if``: what another calibration or bundle would have made of the recorded drives."""

from __future__ import annotations

import argparse
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from framegate.evaluation.drives.options import add_worker_options, hands_of, say_outcome, store_of
from framegate.export.progress import Progress
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.cli.options import require_distinct
from framegate.runtime.cli.replay import read_calibration
from framegate.runtime.console import progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import UsageError
from framegate.runtime.replay.recording import Recording

if TYPE_CHECKING:
    from framegate.evaluation.drives.difference import Difference
    from framegate.evaluation.drives.table import DriveTable


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("what-if", help="decide recorded drives again, by another calibration or bundle")
    parser.add_argument("table", type=Path, metavar="FILE.parquet", help="what framegate drives index wrote")
    other = parser.add_mutually_exclusive_group(required=True)
    other.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="accept scores up to this one, of every label (default: none)",
    )
    other.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="calibration.json of a bundle with the same network and temperature; every verdict is decided again "
        "(default: none)",
    )
    other.add_argument("--bundle", metavar="BUNDLE", help="judge recorded pictures again with it (default: none)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("what-if.html"),
        metavar="FILE",
        help="the difference, as a page (.html) or a record (.json) (default: %(default)s)",
    )
    parser.add_argument("--backend", help="engine for --bundle (default: the recording's own)")
    parser.add_argument("--precision", help="fp32, fp16 or int8, for --bundle (default: the recording's own)")
    add_worker_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Decide again and write the difference."""
    from framegate.evaluation.drives.difference_files import show, write_difference
    from framegate.evaluation.drives.table import DriveTable

    if arguments.out.suffix not in (".html", ".json"):
        raise UsageError(f"--out {arguments.out}: expected a file that ends in .html or .json")
    require_distinct([str(arguments.calibration or "")], arguments.out)
    table = DriveTable(arguments.table)
    with progress_bar() as progress:
        if arguments.bundle is None:
            found = _from_scores(arguments, table, progress)
        else:
            found = _from_pictures(arguments, table, progress)
    write_difference(found, table, arguments.out)
    show(found)
    for why in sorted(set(found.refused.values())):
        to_stderr(f"framegate: left out: {why}")
    if found.unlike:
        to_stderr(
            f"framegate: {found.unlike} verdicts come out otherwise with the recording's own calibration, too: the box "
            "begins within a drive or lacks frames, or a drift alarm was reset"
        )
    to_stdout(f"difference: {arguments.out}")
    return 0


def _from_scores(arguments: argparse.Namespace, table: DriveTable, progress: Progress) -> Difference:
    from framegate.evaluation.drives.what_if import require_rows, what_if

    threshold, path = arguments.threshold, arguments.calibration
    if threshold is not None and not math.isfinite(threshold):
        raise UsageError(f"--threshold {threshold}: expected a finite number")
    known: dict[str, Calibration] = {}

    def choose(recording: Recording) -> Calibration:
        if threshold is not None:
            if recording.calibration is None:
                raise UsageError("--threshold: the recording was made without a calibration; give --calibration FILE")
            return replace(recording.calibration, threshold=threshold, classes=())
        if recording.key not in known:
            known[recording.key] = read_calibration(path, recording.key)
        return known[recording.key]

    found = what_if(table, choose, progress)
    require_rows(found, table)
    found.about = f"Threshold {threshold:g}." if threshold is not None else f"Calibration {path}."
    return found


def _from_pictures(arguments: argparse.Namespace, table: DriveTable, progress: Progress) -> Difference:
    from framegate.evaluation.drives.rejudge import JudgeTask, compare, require_comparable, units_of
    from framegate.evaluation.drives.work import run_units
    from framegate.runtime.bundle.bundle import Bundle
    from framegate.runtime.bundle.search import find_bundle

    bundle = Bundle.open(find_bundle(arguments.bundle))
    require_comparable(bundle, table)
    task = JudgeTask(str(bundle.path.resolve()), bundle.digest, *_engine(arguments, table))
    units = units_of(table)
    store = store_of(arguments.out)
    outcome = run_units(task, units, store, hands_of(arguments, task, len(units)), progress, "judging pictures")
    say_outcome(outcome, outcome.quarantined)
    found = compare(table, outcome.parts)
    shutil.rmtree(store, ignore_errors=True)
    found.refused.update(outcome.quarantined)
    found.about = (
        f"Bundle {bundle.name}, {bundle.digest[:12]}..., on {task.backend}, {task.precision}; {found.verdicts} "
        "recorded regions. A picture is judged by itself: what only several frames show is left out, before and after."
    )
    return found


def _engine(arguments: argparse.Namespace, table: DriveTable) -> tuple[str, str]:
    """Backend and precision that judge: those that were given, else the recordings' own.

    Raises:
        UsageError: The recordings have several.
    """
    own = sorted({(each.backend, each.precision) for each in map(table.about.recording, table.about.recordings)})
    if len(own) != 1 and not (arguments.backend and arguments.precision):
        listed = ", ".join("/".join(each) for each in own)
        raise UsageError(f"--bundle: the drives were recorded with {listed}; say which: --backend and --precision")
    return arguments.backend or own[0][0], arguments.precision or own[0][1]
