"""``framegate drives mine`` and ``labels``: frames go out to be labelled, and come back."""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.runtime.console import progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import UsageError

_ABOUT = {
    "near": "score near its threshold",
    "disagree": "detector and classifier contradict each other",
    "changed": "verdict or label other than before or after",
    "rare": "a rare combination of label, reasons and region",
}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the two commands."""
    parser = commands.add_parser("mine", help="write the frames that are most worth a label")
    parser.add_argument("table", type=Path, metavar="FILE.parquet", help="what framegate drives index wrote")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder for pictures and list")
    for name, about in _ABOUT.items():
        option = "--near-threshold" if name == "near" else f"--{name}"
        parser.add_argument(option, dest="criteria", action="append_const", const=name, help=f"{about} (default: all)")
    parser.add_argument(
        "--random",
        action="store_true",
        help="instead, frames drawn at random, which a calibration needs for its promise (default: by the criteria)",
    )
    parser.add_argument(
        "--budget", type=int, default=500, metavar="N", help="so many frames at most (default: %(default)s)"
    )
    parser.add_argument(
        "--format",
        choices=("folder", "label-studio", "cvat"),
        default="folder",
        help="also write the file that a labelling tool imports (default: %(default)s, a list to fill in)",
    )
    parser.set_defaults(run=run_mine)
    parser = commands.add_parser("labels", help="read the labels back into the table")
    parser.add_argument("table", type=Path, metavar="FILE.parquet", help="the table that was mined")
    parser.add_argument(
        "labels", type=Path, metavar="LABELS", help="frames.csv, or the export of Label Studio (.json) or CVAT (.xml)"
    )
    parser.add_argument(
        "--frames", type=Path, metavar="frames.csv", help="list that the export belongs to (default: the one beside it)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.parquet", help="the table with labels")
    parser.set_defaults(run=run_labels)


def run_mine(arguments: argparse.Namespace) -> int:
    """Choose and write frames.

    Returns:
        1 if there was nothing to write.
    """
    from framegate.evaluation.drives.labelling import OTHER, write_frames
    from framegate.evaluation.drives.mine import CRITERIA, draw, mine
    from framegate.evaluation.drives.table import DriveTable

    table = DriveTable(arguments.table)
    if arguments.random and arguments.criteria:
        raise UsageError("--random takes no criteria; leave one of them out")
    criteria = [name for name in CRITERIA if name in (arguments.criteria or CRITERIA)]
    mined = draw(table, arguments.budget) if arguments.random else mine(table, criteria, arguments.budget)
    seen = table.read(["candidate"])["candidate"].unique().to_pylist()
    labels = [*sorted(each for each in seen if each), OTHER]
    with progress_bar() as progress:
        written, lost = write_frames(mined.rows, table.about, labels, arguments.out, arguments.format, progress)
    how = "random" if arguments.random else ", ".join(criteria)
    if written:
        to_stdout(f"{written} frames to label ({how}): {arguments.out}")
    else:
        to_stderr(f"framegate: no frame to label was found ({how}); nothing was written")
    if mined.unseen:
        to_stderr(f"framegate: {mined.unseen} verdicts have no full picture and could not be chosen")
    if lost:
        to_stderr(f"framegate: of {lost} chosen frames the recording is no longer there")
    return 0 if written else 1


def run_labels(arguments: argparse.Namespace) -> int:
    """Read labels back.

    Returns:
        1 if nothing is labelled.
    """
    from framegate.evaluation.drives.labelling import add_labels, read_labels, read_mined
    from framegate.evaluation.drives.table import DriveTable

    if arguments.out.suffix != ".parquet":  # of any other name it would be no table to the next command
        raise UsageError(f"--out {arguments.out}: expected a file that ends in .parquet")
    labels = read_labels(arguments.labels, arguments.frames)
    if not labels:
        to_stderr(f"framegate: {arguments.labels} holds no label; nothing was written")
        return 1
    mined = read_mined(arguments.labels, arguments.frames)
    rows, labelled = add_labels(DriveTable(arguments.table), labels, arguments.out, mined)
    to_stdout(f"{labelled} of {rows} verdicts labelled: {arguments.out}")
    return 0
