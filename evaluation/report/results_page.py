"""Fills the tables of RESULTS.md and the README from results records, so that no figure there is typed by hand.

    python -m framegate.evaluation.report.results_page benchmarks/results/evaluation evaluation/RESULTS.md README.md

Records of `framegate gate` lie in the folder ``gate`` beside the others.

A document holds ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; what stands between them is written anew.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from framegate.evaluation.gate import tables as gate_tables
from framegate.evaluation.report import results_tables
from framegate.evaluation.report.table import Table, markdown, write_text
from framegate.evaluation.report.values import check_format, text
from framegate.runtime.errors import DataError, FramegateError

Record = Mapping[str, Any]
_BLOCK = re.compile(r"(<!-- begin ([\w-]+(?: [\w-]+)?) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
_ALL: dict[str, Callable[[Sequence[Record]], Table]] = {
    "models": results_tables.models,
    "selective": results_tables.selective,
    "best": results_tables.best,
    "false-accepts": results_tables.false_accepts,
    "adaptive": results_tables.adaptive,
    "batches": results_tables.batches,
    "foreign": results_tables.foreign,
}


_OF_ONE: dict[str, Callable[[Record], Table]] = {
    "research": results_tables.research,
    "engines": results_tables.engines,
}


def load_records(folder: Path) -> list[dict[str, Any]]:
    """All results records of a folder, by file name.

    Raises:
        DataError: There is none, or one is damaged or of another kind.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); run `framegate evaluate` again") from error
        check_format(record)
        records.append(record)
    if not records:
        raise DataError(f"{folder}: no results records (*.json) here; copy results.json of `framegate evaluate` there")
    return records


def gates_beside(folder: Path) -> Path:
    """Where the gate records lie that belong to a folder of results records."""
    return folder.parent / "gate"


def fill(document: str, records: Sequence[Record], gates: Sequence[Record] = ()) -> str:
    """The document with every block written anew.

    Args:
        document: Markdown. A block's name is one of the tables over all bundles, ``research BUNDLE`` or
            ``engines BUNDLE``.
        records: Results records.
        gates: Gate records.

    Raises:
        DataError: A block has an unknown name, or names a bundle without a record.
    """

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n{_table(match[2], records, gates)}\n{match[3]}"

    return _BLOCK.sub(block, document)


def _table(name: str, records: Sequence[Record], gates: Sequence[Record]) -> str:
    kind, _, bundle = name.partition(" ")
    if kind in _OF_ONE and bundle:
        for record in records:
            if text(record, "bundle", "name") == bundle:
                return markdown(_OF_ONE[kind](record))
        raise DataError(f"block {name!r}: no record of bundle {bundle}")
    if name in gate_tables.TABLES:
        return markdown(gate_tables.TABLES[name](gates))
    if name not in _ALL:
        known = ", ".join((*_ALL, *gate_tables.TABLES))
        raise DataError(f"block {name!r}: expected 'research BUNDLE', 'engines BUNDLE' or one of {known}")
    return markdown(_ALL[name](records))


def main(words: Sequence[str] | None = None) -> int:
    """Fill the given documents."""
    parser = argparse.ArgumentParser(prog="results_page", description="Fill the tables of documents from records.")
    parser.add_argument("records", type=Path, help="folder of results records")
    parser.add_argument("documents", type=Path, nargs="+", help="Markdown files with blocks; they are rewritten")
    arguments = parser.parse_args(words)
    try:
        records = load_records(arguments.records)
        gates = gate_tables.load_gate_records(gates_beside(arguments.records))
        for path in arguments.documents:
            write_text(path, fill(path.read_text(encoding="utf-8"), records, gates))
    except (FramegateError, OSError) as error:
        print(f"results_page: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
