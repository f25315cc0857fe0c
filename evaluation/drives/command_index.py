"""``framegate drives index`` and ``report``."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from framegate.evaluation.drives.options import add_worker_options, hands_of, say_outcome, store_of
from framegate.export.progress import Progress
from framegate.runtime.console import progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import DataError, UsageError


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the two commands."""
    parser = commands.add_parser("index", help="turn recordings into a table (Parquet)")
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="folders with recordings (.mcap), or files"
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="TABLE",
        help="the table, docs/drives.md: FILE.parquet, or a new folder, with a file for each recording",
    )
    add_worker_options(parser)
    parser.set_defaults(run=run_index)
    parser = commands.add_parser("report", help="coverage, risk, reasons and drift of the drives, as one HTML page")
    parser.add_argument("table", type=Path, metavar="FILE.parquet", help="what framegate drives index wrote")
    parser.add_argument(
        "--out", type=Path, default=Path("drives.html"), metavar="FILE.html", help="the page (default: %(default)s)"
    )
    parser.set_defaults(run=run_report)


def run_index(arguments: argparse.Namespace) -> int:
    """Index drives.

    Returns:
        1 if there is nothing of a file in the table.
    """
    out: Path = arguments.out
    if out.suffix not in (".parquet", ""):
        raise UsageError(f"--out {out}: expected a file that ends in .parquet, or a folder")
    if not out.suffix and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise UsageError(f"--out {out}: it is there already; choose another folder")
    with progress_bar() as progress:
        return index(arguments, out, progress)


def index(arguments: argparse.Namespace, out: Path, progress: Progress) -> int:
    """Index drives into a file; returns as `run_index`.

    Raises:
        DataError: No file can be read.
    """
    from framegate.evaluation.drives.index import IndexTask, find_files, plan
    from framegate.evaluation.drives.merge import gather, merge
    from framegate.evaluation.drives.work import run_units

    planned = plan(find_files(arguments.folders))
    task = IndexTask()
    store = store_of(out)
    outcome = run_units(
        task, planned.units, store, hands_of(arguments, task, len(planned.units)), progress, "indexing recordings"
    )
    missing = {**planned.broken, **outcome.quarantined}
    if not outcome.parts:
        say_outcome(outcome, missing)
        raise DataError("none of the recordings can be read; nothing was written")
    rows, about = (merge if out.suffix else gather)(outcome.parts, out, missing)
    shutil.rmtree(store, ignore_errors=True)
    say_outcome(outcome, about.broken)
    to_stdout(f"{rows} verdicts of {len(outcome.parts)} recordings: {out}")
    if missing:
        to_stderr(f"framegate: of {len(missing)} files nothing is in the table")
    return 1 if missing else 0


def run_report(arguments: argparse.Namespace) -> int:
    """Write the page."""
    from framegate.evaluation.drives.report import write_report
    from framegate.evaluation.drives.table import DriveTable

    if arguments.out.suffix != ".html":
        raise UsageError(f"--out {arguments.out}: expected a file that ends in .html")
    write_report(DriveTable(arguments.table), arguments.out)
    to_stdout(f"report: {arguments.out}")
    return 0
