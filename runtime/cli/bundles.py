"""``framegate bundles``: which bundles can be given by name, where they lie and what they promise."""

from __future__ import annotations

import argparse
from typing import Any

from rich.table import Table

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.search import NamedBundle, named_bundles, problems
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.console import OUT, json_to_stdout, to_stderr, to_stdout
from framegate.runtime.dense.spec import promise_of
from framegate.runtime.errors import BundleError


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``bundles`` to the command line."""
    parser = commands.add_parser(
        "bundles",
        help=SUMMARIES["bundles"],
        description="Lists the bundles in the current folder, in the package and in the folders of "
        "$FRAMEGATE_BUNDLES, in this order: of two with the same name, the first one is taken.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List all. Returns 1 if there is none, or if one of them cannot be opened."""
    for problem in problems():
        to_stderr(f"framegate: {problem}")
    rows = [_record(each) for each in named_bundles()]
    if arguments.json:
        json_to_stdout(rows)
    elif rows:
        OUT.print(_table(rows))
        for row in rows:
            to_stdout(f"{row['name']} ({row['place']}): {row['path']}")
            if row["hidden"]:
                to_stdout(f"  not taken for the name {row['name']}: another one comes first; give its path")
            if row["error"]:
                to_stdout(f"  cannot be used: {row['error']}")
        to_stdout("A promise is about accepted frames like the calibration data, not about frames under attack.")
    else:
        to_stderr("framegate: no bundle can be given by name here; give the path of a folder NAME.bundle")
    return int(not rows or any(row["error"] for row in rows))


def _record(found: NamedBundle) -> dict[str, Any]:
    """One bundle as plain JSON values."""
    record: dict[str, Any] = {
        "name": found.name,
        "path": str(found.path.absolute()),
        "place": found.place,
        "hidden": found.hidden,
        "labels": None,
        "precisions": None,
        "detector": None,
        "promise": None,
        "promises": None,
        "error": None,
    }
    try:
        bundle = Bundle.open(found.path.absolute())
    except BundleError as error:
        return {**record, "error": str(error)}
    promises = {key: promise_of(bundle, calibration) for key, calibration in bundle.calibrations.items()}
    short = sorted({each.short() for each in bundle.calibrations.values()})
    return record | {
        "labels": list(bundle.labels),
        "precisions": sorted(bundle.models),
        "detector": bundle.detector is not None,
        "promises": promises,
        "promise": "; ".join(short),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Bundles that can be given by name")
    table.add_column("name", no_wrap=True)
    table.add_column("labels", justify="right")
    table.add_column("precisions")
    table.add_column("promise")
    table.add_column("where")
    for row in rows:
        name = f"({row['name']})" if row["hidden"] else row["name"]
        if row["error"]:
            table.add_row(name, "-", "-", "cannot be used", row["place"])
            continue
        nothing = "a detector (--objects)" if row["detector"] else "NOT CALIBRATED: every frame is rejected"
        promise = row["promise"] or nothing
        table.add_row(name, str(len(row["labels"])), " ".join(row["precisions"]), promise, row["place"])
    return table
